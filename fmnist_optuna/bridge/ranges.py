"""The ranges of numeric parameters in Optuna's tables: those of all accepted grids, and the same for every trial.

Importances and Optuna's search spaces compare trials by the ranges stored with them, so when a grid grows, the trials
that are there get the new ranges in the transaction of the join. That has the study's row locked in Optuna's table, as
has whoever makes a trial; and a trial is made only if the grids are still those that its ranges are for. So either the
join sees the trial, or the trial is made once more with what the join accepted.

Optuna takes no trial with a logarithmic range where another trial of the study has a plain one, nor the reverse. So the
first grid decides, and then the trials that are there, as a study of an earlier version has plain ones. Ranges are
logarithmic no more once a grid with a zero is accepted.

A search that is no grid says what its ranges are, and they only become wider.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages._rdb.models import StudyModel, TrialModel, TrialParamModel, TrialSystemAttributeModel
from sqlalchemy import Table, func, select, update
from sqlalchemy.engine import Connection

from fmnist_optuna.bridge.spaces import Accepted, ranges_of, read_grid, space_of
from fmnist_optuna.bridge.trials import find_logarithmic, make_distributions
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import TOKEN, studies
from fmnist_optuna.search.cell import Grid
from fmnist_optuna.spec.reading import restore_spec
from fmnist_optuna.spec.stored import upgrade_spec

_studies: Table = StudyModel.__table__
_trials: Table = TrialModel.__table__
_params: Table = TrialParamModel.__table__
_attributes: Table = TrialSystemAttributeModel.__table__


def store_ranges(connection: Connection, study_id: int, accepted: Sequence[Accepted]) -> int:
    """Give the trials of a study the ranges of all that is accepted, in a transaction that has the study's row locked.

    Trials of other programs keep theirs.

    Returns:
        How many parameters of trials had another range.
    """
    ours = (
        select(_trials.c.trial_id)
        .join(_attributes, _attributes.c.trial_id == _trials.c.trial_id)
        .where(_trials.c.study_id == study_id, _attributes.c.key == TOKEN)
    )
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
        stored = select(studies.c.spec, studies.c.spec_version).where(studies.c.study_id == study_id)
        row = connection.execute(stored).one()
        spec = restore_spec(upgrade_spec(json.loads(row.spec), row.spec_version), "its specification")
        return ranges_of(space, accepted, spec.repeats.n_folds)
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


@dataclass(frozen=True)
class Ranges:
    """What a new trial has as its ranges.

    Args:
        grids: All that the study has accepted, as it is stored.
        accepted: The same.
        distributions: By parameter.
    """

    grids: str
    accepted: Sequence[Accepted]
    distributions: Mapping[str, BaseDistribution]


@retrying
def read_ranges(storage: Storage, study_id: int) -> Ranges:
    """What a trial that is made now has as its ranges, in a transaction of its own.

    Raises:
        KeyError: The study was deleted.
    """
    with storage.read() as connection:
        grids = _select_grids(connection, study_id)
        accepted: list[Accepted] = json.loads(grids)
        return Ranges(grids, accepted, _select_ranges(connection, study_id, accepted))


@retrying
def read_accepted(storage: Storage, study_id: int) -> list[Accepted]:
    """All accepted grids or stages of a study, in a transaction of their own.

    Raises:
        KeyError: The study was deleted.
    """
    with storage.read() as connection:
        accepted: list[Accepted] = json.loads(_select_grids(connection, study_id))
        return accepted


def lock_in_optuna(connection: Connection, study_id: int) -> bool:
    """Let nobody make a trial of a study until the transaction ends; whether Optuna has it.

    SQLite has one writer at a time anyway.
    """
    own = select(_studies.c.study_id).where(_studies.c.study_id == study_id).with_for_update()
    return connection.execute(own).scalar_one_or_none() is not None


def _select_grids(connection: Connection, study_id: int) -> str:
    text = connection.execute(select(studies.c.grids).where(studies.c.study_id == study_id)).scalar_one_or_none()
    if text is None:
        raise KeyError(study_id)
    return str(text)
