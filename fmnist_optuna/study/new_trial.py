"""Making the trial of a claim in Optuna, with the ranges of all that is accepted by then."""

from fmnist_optuna.bridge.ranges import catch_up, read_ranges
from fmnist_optuna.bridge.spaces import Accepted, notes_of_sampler
from fmnist_optuna.bridge.trials import make_template
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.session import Session


def create_trial(session: Session, cell_id: str, token: str, params: Params, attributes: TrialAttributes) -> int:
    """Make the RUNNING trial of a claim, with the ranges of all that is accepted by now; returns its id.

    Raises:
        KeyError: The study was deleted.
    """
    study_id = session.record.study_id
    try:
        trial_id, accepted = _create(session, cell_id, token, params, attributes)
    except ValueError:  # a grid was accepted meanwhile with which a range is logarithmic no more
        trial_id, accepted = _create(session, cell_id, token, params, attributes)
    catch_up(session.storage, study_id, trial_id, accepted)
    return trial_id


def _create(
    session: Session, cell_id: str, token: str, params: Params, attributes: TrialAttributes
) -> tuple[int, list[Accepted]]:
    study_id = session.record.study_id
    accepted, ranges = read_ranges(session.storage, study_id)
    template = make_template(cell_id, token, params, notes_of_sampler(params, accepted), ranges, attributes)
    return session.optuna_storage.create_new_trial(study_id, template_trial=template), accepted
