"""Totals of the studies of a storage, for whoever asks again and again: four statements in one transaction.

Trials begun, trials lost and epochs trained are counters: as long as a study is there, none of them ever falls.
"""

import json
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Integer, Select, String, case, cast, func, select
from sqlalchemy.engine import Connection

from fmnist_optuna.bridge.own_trials import is_own, trials, user_attributes
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.states import FAIL, LOSSES, State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import Query, StoredRow, cells, epochs, studies, workers

REASON, KEPT_EPOCHS = "reason", "kept_epochs"  # as `TrialAttributes` has them
DIGITS = "^[0-9]{1,9}$"  # what is no number that the database could read is another program's


@dataclass
class StudyTotals:
    """What has come of a study so far.

    Args:
        study_id: Optuna's.
        name: Of the study.
        cells: Number of cells by state.
        n_trials: Trials that have begun at its cells.
        n_lost: Of these, lost with their lease or killed.
        n_epochs: That all trials have trained; what one took over from an earlier one is counted there alone.
        n_workers: Seen within a lease.
        values: Smallest and largest value of a complete cell; None before the first.
    """

    study_id: int
    name: str
    cells: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    n_trials: int = 0
    n_lost: int = 0
    n_epochs: int = 0
    n_workers: int = 0
    values: tuple[float, float] | None = None

    def add(self, row: StoredRow) -> None:
        """Add cells that are in one state."""
        if row.state is None:  # no cell yet
            return
        state = State.of_cell(row.state, row.result)
        self.cells[state] += row.n_cells
        self.n_trials += int(row.n_trials)
        if state is State.COMPLETE and row.least is not None:
            self.values = row.least, row.most


@retrying
def read_totals(storage: Storage, name: str | None = None) -> list[StudyTotals]:
    """The totals of all studies, the oldest first.

    Args:
        name: Of the only study that is wanted; None for all.

    Raises:
        MismatchError: A cell is in no state that there is.
    """
    is_wanted = studies.c.study_id.is_not(None) if name is None else studies.c.study_name == name
    wanted = select(studies.c.study_id).where(is_wanted)
    is_fresh = workers.c.last_seen > storage.now - storage.timing.lease_seconds
    at_work = select(workers.c.study_id, func.count().label("n")).where(is_fresh, workers.c.study_id.in_(wanted))
    found: dict[int, StudyTotals] = {}
    with storage.read() as connection:
        for row in connection.execute(_by_state().where(is_wanted)):
            found.setdefault(row.study_id, StudyTotals(row.study_id, row.study_name)).add(row)
        n_epochs, n_lost, n_workers = (
            _read_counts(connection, query)
            for query in (_trained(wanted), _lost(wanted), at_work.group_by(workers.c.study_id))
        )
    for study_id, totals in found.items():  # a study that is newer than the first statement comes next time
        totals.n_epochs = n_epochs.get(study_id, 0)
        totals.n_lost = n_lost.get(study_id, 0)
        totals.n_workers = n_workers.get(study_id, 0)
    return [found[study_id] for study_id in sorted(found)]


def _read_counts(connection: Connection, query: Query) -> dict[int, int]:
    """What a query counts as `n`, by study."""
    return {row.study_id: int(row.n) for row in connection.execute(query)}


def _by_state() -> Query:
    """Cells by study and state."""
    group = studies.c.study_id, studies.c.study_name, cells.c.state, cells.c.result
    return (
        select(
            *group,
            func.count().label("n_cells"),
            func.sum(cells.c.claims).label("n_trials"),
            func.min(cells.c.value).label("least"),
            func.max(cells.c.value).label("most"),
        )
        .select_from(studies.outerjoin(cells, cells.c.study_id == studies.c.study_id))
        .group_by(*group)
    )


def _trained(wanted: Select[int]) -> Query:
    """Number of epochs by study, without those that a trial has from an earlier one, from whose checkpoint it goes on.

    One statement, as an epoch that came between two would be missing. What is taken over is noted before it is stored,
    so that it is never counted at first.
    """
    stored = (
        select(epochs.c.study_id, func.count().label("n"))
        .where(epochs.c.study_id.in_(wanted))
        .group_by(epochs.c.study_id)
        .subquery()
    )
    # By the keys of few trials: in a join SQLite asks for the trial of each epoch, which took thrice as long (2026-11).
    of_trial = select(func.count()).where(
        epochs.c.trial_id == user_attributes.c.trial_id,
        epochs.c.epoch < _number(user_attributes.c.value_json),
    )
    taken_over = (
        select(trials.c.study_id, func.sum(of_trial.correlate(user_attributes).scalar_subquery()).label("n"))
        .join(user_attributes, user_attributes.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id.in_(wanted), user_attributes.c.key == KEPT_EPOCHS)
        .group_by(trials.c.study_id)
        .subquery()
    )
    n_trained = (stored.c.n - func.coalesce(taken_over.c.n, 0)).label("n")
    return select(stored.c.study_id, n_trained).outerjoin(taken_over, taken_over.c.study_id == stored.c.study_id)


def _lost(wanted: Select[int]) -> Query:
    """Number of lost trials by study: one that has failed stays, while `retry` sets the counters of its cell back."""
    return (
        select(trials.c.study_id, func.count().label("n"))
        .join(user_attributes, user_attributes.c.trial_id == trials.c.trial_id)
        .where(
            trials.c.study_id.in_(wanted),
            cast(trials.c.state, String) == FAIL,  # a type of its own on Postgres
            user_attributes.c.key == REASON,
            user_attributes.c.value_json.in_([json.dumps(reason) for reason in LOSSES]),
            is_own(),
        )
        .group_by(trials.c.study_id)
    )


def _number(value_json: ColumnElement[str]) -> ColumnElement[int]:
    """A whole number that is noted on a trial; 0 for anything else."""
    return case((value_json.regexp_match(DIGITS), cast(value_json, Integer)), else_=0)
