"""Making the trial of a claim in Optuna, with the ranges of every grid that is accepted by then."""

from collections.abc import Mapping, Sequence
from typing import Any

from fmnist_optuna.bridge.ranges import read_grids, select_grids, store_ranges
from fmnist_optuna.bridge.trials import make_distributions, make_template
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.search.cell import Grid, Params
from fmnist_optuna.study.session import Session


def create_trial(session: Session, cell_id: str, token: str, params: Params, attributes: Mapping[str, Any]) -> int:
    """Make the RUNNING trial of a claim, with the ranges of all grids that are accepted by now; returns its id.

    Raises:
        KeyError: The study was deleted.
    """
    study_id, patience = session.record.study_id, session.storage.patience
    grids = read_grids(session.storage, study_id)
    sampler, distributions = session.sampler_for(params, grids), make_distributions(grids)
    template = make_template(cell_id, token, params, sampler, distributions, attributes)
    trial_id: int = session.trials.create_new_trial(study_id, template_trial=template)
    patience.call(lambda: _catch_up(session.storage, study_id, trial_id, grids), "store_ranges")
    return trial_id


def _catch_up(storage: Storage, study_id: int, trial_id: int, grids: Sequence[Grid]) -> None:
    """Bring a new trial up to date if a grid was accepted while it was made."""
    if read_grids(storage, study_id) == grids:
        return
    with storage.write() as connection:
        store_ranges(connection, study_id, select_grids(connection, study_id), trial_id)
