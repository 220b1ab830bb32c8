"""What a worker asks of Postgres in its first trial, compiled before it is forked: 60 ms of the processor for each.

Each operation runs on a storage without a server, up to its statement, so that what is compiled is what it will send.
"""

import contextlib
from collections.abc import Callable

import sqlalchemy.orm
from optuna.trial import TrialState

from fmnist_optuna.bridge.fitting import adopt, newest_tables, tables_fit
from fmnist_optuna.bridge.own_trials import is_made_under
from fmnist_optuna.bridge.ranges import read_ranges, select_ranges_of_grids
from fmnist_optuna.bridge.storage import SharedPostgres
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.codes import list_codes
from fmnist_optuna.ledger.dialect import n_compiled
from fmnist_optuna.ledger.holders import Presence
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.progress import History
from fmnist_optuna.ledger.records import Attempt, Claim
from fmnist_optuna.ledger.schema import check_schema
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.unconnected import NotSentError, unconnected_storage
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.studies import find_study_or_none

_CLAIM = Claim("cell", "token", {}, 1)
_EPOCH = Epoch(0, 1.0, 0.5, 1.0, 0.5, 0.0)


def compile_first_statements() -> int:
    """Compile them for Postgres, and read once what else each worker would; nothing where there is no driver.

    Returns:
        How many statements are compiled now.
    """
    try:
        storage = unconnected_storage()
    except ImportError:  # studies are kept in files here
        return 0
    newest_tables()
    sqlalchemy.orm.configure_mappers()
    for operation in (*_of_joining(storage), *_of_a_trial(storage), *_of_optuna(storage)):
        with contextlib.suppress(NotSentError):
            operation()
    return n_compiled()


def _of_joining(storage: Storage) -> list[Callable[[], object]]:
    presence, history = Presence(storage, 0), History(storage, 0)
    return [
        lambda: check_schema(storage),
        lambda: find_study_or_none(storage, "study"),
        lambda: presence.register("worker", fresh_seconds=60.0),
        lambda: tables_fit(storage),
        lambda: list_codes(storage, 0),
        lambda: history.counts(only_unfinished=True),
        lambda: presence.touch("worker"),
        lambda: presence.count(),
        lambda: presence.processes(),
        lambda: presence.leave("worker"),
    ]


def _of_a_trial(storage: Storage) -> list[Callable[[], object]]:
    ledger = Ledger(storage, 0, is_made_under)
    done = Attempt(1, 0, "cell", {}, State.COMPLETE, 0.5)
    return [
        lambda: ledger.claim("worker", 0),
        lambda: read_ranges(storage, 0),
        lambda: _read_ranges_of_grids(storage),
        lambda: ledger.bind(_CLAIM, 1, 0),
        lambda: ledger.renew(_CLAIM),
        lambda: ledger.record_epoch(_CLAIM, 1, _EPOCH),
        lambda: ledger.park(_CLAIM, 1, 1),
        lambda: ledger.finish_cell("cell", "token", done),
        lambda: ledger.generation(),
        lambda: ledger.held_cells(as_writer=True),
    ]


@retrying
def _read_ranges_of_grids(storage: Storage) -> None:
    with storage.read() as connection:
        select_ranges_of_grids(connection, 0, [{"hidden_size": (1,)}])


def _of_optuna(storage: Storage) -> list[Callable[[], object]]:
    trials = object.__new__(SharedPostgres)
    adopt(trials, storage)
    return [
        lambda: trials.get_study_id_from_name("study"),
        lambda: trials.get_study_directions(0),
        lambda: trials.get_trial(1),
        lambda: trials.set_trial_intermediate_value(1, 0, 0.5),
        lambda: trials.set_trial_state_values(1, TrialState.COMPLETE, [0.5]),
        lambda: trials.set_trial_user_attr(1, "key", "value"),
    ]
