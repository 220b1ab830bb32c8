"""Making the trial of a claim in Optuna, with the ranges of all that is accepted by then."""

from fmnist_optuna.bridge.ranges import Ranges, read_ranges
from fmnist_optuna.bridge.spaces import notes_of_sampler
from fmnist_optuna.bridge.trials import make_template
from fmnist_optuna.errors import SpecError
from fmnist_optuna.ledger.part import StudyPart
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.session import Session

MAX_TRIES = 3  # a grid may be accepted meanwhile, whose ranges are others


class KnownRanges(StudyPart):
    """The ranges of a study's trials, read again once a trial could not be made with them."""

    _known: Ranges | None = None

    def find(self) -> Ranges:
        """What they are, or were when they were read last.

        Raises:
            KeyError: The study was deleted.
        """
        if self._known is None:
            self._known = read_ranges(self.storage, self.study_id)
        return self._known

    def forget(self) -> None:
        """They are others by now."""
        self._known = None


def create_trial(session: Session, cell_id: str, token: str, params: Params, attributes: TrialAttributes) -> int:
    """Make the RUNNING trial of a claim, with the ranges of all that is accepted by now; returns its id.

    Raises:
        KeyError: The study was deleted.
        ValueError: Optuna takes none with these ranges, as another program made trials with some of another kind.
    """
    study_id, trials = session.record.study_id, session.optuna_storage
    for _ in range(MAX_TRIES):
        known = session.known_ranges.find()
        try:
            notes = notes_of_sampler(params, known.accepted)
        except SpecError:  # a cell of a grid that was accepted since
            session.known_ranges.forget()
            known = session.known_ranges.find()
            notes = notes_of_sampler(params, known.accepted)
        template = make_template(cell_id, token, params, notes, known.distributions, attributes)
        trial_id = trials.create_claimed_trial(study_id, template, known.grids)
        if trial_id is not None:
            return trial_id
        session.known_ranges.forget()
    return trials.create_new_trial(study_id, template_trial=template)  # which says what is wrong
