"""Making the trial of a claim in Optuna, with the ranges of every grid that is accepted by then."""

from fmnist_optuna.bridge.ranges import catch_up, read_grids
from fmnist_optuna.bridge.trials import make_distributions, make_template, sampler_for
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.session import Session


def create_trial(session: Session, cell_id: str, token: str, params: Params, attributes: TrialAttributes) -> int:
    """Make the RUNNING trial of a claim, with the ranges of all grids that are accepted by now; returns its id.

    Raises:
        KeyError: The study was deleted.
    """
    study_id = session.record.study_id
    grids = read_grids(session.storage, study_id)
    sampler, distributions = sampler_for(params, grids), make_distributions(grids)
    template = make_template(cell_id, token, params, sampler, distributions, attributes)
    trial_id: int = session.optuna_storage.create_new_trial(study_id, template_trial=template)
    catch_up(session.storage, study_id, trial_id, grids)
    return trial_id
