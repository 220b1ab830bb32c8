"""The ranges of numeric parameters in Optuna's tables: those of all accepted grids, and the same for every trial.

Importances and Optuna's search spaces compare trials by the ranges stored with them, so when a grid grows, the trials
that are there get the new ranges in the transaction of the join. A worker that joined before makes its trial with what
it has read and looks once more afterwards: it then either sees the new grids, or the join sees its trial.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages._rdb.models import TrialModel, TrialParamModel, TrialSystemAttributeModel
from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from fmnist_optuna.grid import Grid, Params
from fmnist_optuna.study.schema import TOKEN, control
from fmnist_optuna.study.storage import Storage
from fmnist_optuna.study.trials import make_distributions, make_template

if TYPE_CHECKING:
    from fmnist_optuna.study.session import Session

_trials: Any = TrialModel.__table__
_params: Any = TrialParamModel.__table__
_attributes: Any = TrialSystemAttributeModel.__table__


def store_ranges(connection: Connection, study_id: int, grids: Sequence[Grid], trial_id: int | None = None) -> int:
    """Give the trials of a study the ranges of these grids, within a transaction that has the study's row locked.

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
    for name, distribution in make_distributions(grids).items():
        if not isinstance(distribution, CategoricalDistribution):
            text = distribution_to_json(distribution)
            is_other = _params.c.trial_id.in_(ours), _params.c.param_name == name, _params.c.distribution_json != text
            changed = connection.execute(update(_params).where(*is_other).values(distribution_json=text))
            n_changed += changed.rowcount
    return n_changed


def create_trial(session: "Session", cell_id: str, token: str, params: Params, attributes: Mapping[str, Any]) -> int:
    """Make the RUNNING trial of a claim, with the ranges of all grids that are accepted by now; returns its id.

    Raises:
        KeyError: The study was deleted.
    """
    study_id, patience = session.record.study_id, session.storage.patience
    grids = _read_grids(session.storage, study_id)
    sampler, distributions = session.sampler_for(params, grids), make_distributions(grids)
    template = make_template(cell_id, token, params, sampler, distributions, attributes)
    trial_id: int = session.trials.create_new_trial(study_id, template_trial=template)
    patience.call(lambda: _catch_up(session.storage, study_id, trial_id, grids), "store_ranges")
    return trial_id


def _catch_up(storage: Storage, study_id: int, trial_id: int, grids: Sequence[Grid]) -> None:
    """Bring a new trial up to date if a grid was accepted while it was made."""
    if _read_grids(storage, study_id) == grids:
        return
    with storage.write() as connection:
        store_ranges(connection, study_id, _select_grids(connection, study_id), trial_id)


def _read_grids(storage: Storage, study_id: int) -> list[dict[str, list[Any]]]:
    with storage.read() as connection:
        return _select_grids(connection, study_id)


def _select_grids(connection: Connection, study_id: int) -> list[dict[str, list[Any]]]:
    """All accepted grids; on Postgres it waits for a join that is not over, which SQLite's one writer need not."""
    query = select(control.c.grids).where(control.c.study_id == study_id).with_for_update(read=True)
    text = connection.execute(query).scalar_one_or_none()
    if text is None:
        raise KeyError(study_id)
    grids: list[dict[str, list[Any]]] = json.loads(text)
    return grids
