"""The ranges of numeric parameters in Optuna's tables: those of all accepted grids, and the same for every trial.

Importances and Optuna's search spaces compare trials by the ranges stored with them, so when a grid grows, the trials
that are there get the new ranges in the transaction of the join. A worker that joined before makes its trial with what
it has read and looks once more afterwards: it then either sees the new grids, or the join sees its trial.

Optuna takes no trial with a logarithmic range where another trial of the study has a plain one, nor the reverse. So the
first grid decides, and then the trials that are there, as a study of an earlier version has plain ones. Ranges are
logarithmic no more once a grid with a zero is accepted.

A search that is no grid says what its ranges are, and they only become wider.
"""

import json
from collections.abc import Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages._rdb.models import TrialModel, TrialParamModel, TrialSystemAttributeModel
from sqlalchemy import Table, func, select, update
from sqlalchemy.engine import Connection

from fmnist_optuna.bridge.spaces import Accepted, ranges_of, read_grid, space_of
from fmnist_optuna.bridge.trials import find_logarithmic, make_distributions
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import TOKEN, studies
from fmnist_optuna.search.cell import Grid

_trials: Table = TrialModel.__table__
_params: Table = TrialParamModel.__table__
_attributes: Table = TrialSystemAttributeModel.__table__


def store_ranges(
    connection: Connection, study_id: int, accepted: Sequence[Accepted], trial_id: int | None = None
) -> int:
    """Give the trials of a study the ranges of all that is accepted, in a transaction that has the study's row locked.

    Trials of other programs keep theirs.

    Args:
        trial_id: The only trial to look at; None for all.

    Returns:
        How many parameters of trials had another range.
    """
    ours = (
        select(_trials.c.trial_id)
        .join(_attributes, _attributes.c.trial_id == _trials.c.trial_id)
        .where(_trials.c.study_id == study_id, _attributes.c.key == TOKEN)
    )
    if trial_id is not None:
        ours = ours.where(_trials.c.trial_id == trial_id)
    n_changed = 0
    for name, distribution in _select_ranges(connection, study_id, accepted).items():
        if not isinstance(distribution, CategoricalDistribution):
            text = distribution_to_json(distribution)
            is_other = _params.c.trial_id.in_(ours), _params.c.param_name == name, _params.c.distribution_json != text
            changed = connection.execute(update(_params).where(*is_other).values(distribution_json=text))
            n_changed += changed.rowcount
    return n_changed


def _select_ranges(connection: Connection, study_id: int, accepted: Sequence[Accepted]) -> dict[str, BaseDistribution]:
    """The range of each parameter: that of the space; or over all grids."""
    space = space_of(accepted)
    if space is not None:
        return ranges_of(space, accepted)
    return _select_ranges_of_grids(connection, study_id, [read_grid(grid) for grid in accepted])


def _select_ranges_of_grids(
    connection: Connection, study_id: int, grids: Sequence[Grid]
) -> dict[str, BaseDistribution]:
    """The range of each parameter over these grids, logarithmic where it is with the first trial that has it."""
    first = (
        select(_params.c.param_name, func.min(_params.c.trial_id).label("trial_id"))
        .join(_trials, _trials.c.trial_id == _params.c.trial_id)
        .where(_trials.c.study_id == study_id)
        .group_by(_params.c.param_name)
        .subquery()
    )
    is_first = (_params.c.trial_id == first.c.trial_id) & (_params.c.param_name == first.c.param_name)
    query = select(_params.c.param_name, _params.c.distribution_json).join(first, is_first)
    logarithmic = find_logarithmic(grids[0])
    for name, text in connection.execute(query):
        distribution = json_to_distribution(text)
        is_log = isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log
        logarithmic = logarithmic | {name} if is_log else logarithmic - {name}
    return make_distributions(grids, logarithmic)


@retrying
def read_ranges(storage: Storage, study_id: int) -> tuple[list[Accepted], dict[str, BaseDistribution]]:
    """All accepted grids or stages of a study, and what a new trial has as its ranges, in a transaction of their own.

    Raises:
        KeyError: The study was deleted.
    """
    with storage.read() as connection:
        accepted = select_accepted(connection, study_id)
        return accepted, _select_ranges(connection, study_id, accepted)


@retrying
def read_accepted(storage: Storage, study_id: int) -> list[Accepted]:
    """All accepted grids or stages of a study, in a transaction of their own.

    Raises:
        KeyError: The study was deleted.
    """
    with storage.read() as connection:
        return select_accepted(connection, study_id)


@retrying
def catch_up(storage: Storage, study_id: int, trial_id: int, accepted: Sequence[Accepted]) -> None:
    """Bring a new trial, made with these grids or stages, up to date if another was accepted while it was made."""
    if read_accepted(storage, study_id) == accepted:
        return
    with storage.write() as connection:
        store_ranges(connection, study_id, select_accepted(connection, study_id), trial_id)


def select_accepted(connection: Connection, study_id: int) -> list[Accepted]:
    """All accepted grids or stages; on Postgres it waits for a join that is not over, which SQLite need not."""
    query = select(studies.c.grids).where(studies.c.study_id == study_id).with_for_update(read=True)
    text = connection.execute(query).scalar_one_or_none()
    if text is None:
        raise KeyError(study_id)
    accepted: list[Accepted] = json.loads(text)
    return accepted
