"""All that a report or a dashboard tells of a study, read once. Draws nothing and knows no HTML."""

from collections.abc import Iterable
from dataclasses import dataclass

from fmnist_optuna.bridge.attributes import is_foreign, read_attempt
from fmnist_optuna.bridge.foreign import count_foreign
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.importance import find_importances
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.records import Attempt, Cell, CellCounts
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.confirmation import Confirmation
from fmnist_optuna.results.winner import Winner, find_winner_or_none
from fmnist_optuna.study.attempts import arrange_attempts, with_rungs
from fmnist_optuna.study.climb import Climb, read_climb
from fmnist_optuna.study.records import KINDS, StudyRecord
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following


@dataclass(frozen=True)
class Overview:
    """A study as it stands.

    Args:
        cells: Every cell of the grid; of repeats one for each point, with their mean once all are complete.
        attempts: Every trial of ours with its epochs, in the order of the table of `trials`.
        n_foreign: Trials that other programs added to the study.
        climb: What came to the rungs; None where the pruner has none.
        winner: None before the first COMPLETE trial.
        openings: Of the grid's study and of those that follow from it, the oldest first.
        importances: Share of each parameter, 0..1; empty where it says nothing.
    """

    record: StudyRecord
    storage: str
    counts: CellCounts
    elapsed_seconds: float
    cells: tuple[Cell, ...]
    attempts: tuple[Attempt, ...]
    winner: Winner | None
    confirmation: Confirmation | None
    openings: tuple[Opening, ...]
    importances: dict[str, float]
    n_foreign: int
    climb: Climb | None = None

    def by_importance(self, names: Iterable[str]) -> list[str]:
        """Parameters, the most important one first; in the order given where nothing is known."""
        return sorted(names, key=lambda name: -self.importances.get(name, 0.0))

    @property
    def n_complete(self) -> int:
        """How many complete cells there are; points where each has several."""
        return sum(cell.state is State.COMPLETE for cell in self.cells)


def describe_seen(record: StudyRecord) -> str:
    """What every page of a study on all data says first."""
    examples = f"{record.info.noun}s"
    return f"The validation {examples} are trained on here: no val_accuracy of this study says what a model can do."


def read_overview(session: Session) -> Overview:
    """Read a study; nothing is scored and nothing is written."""
    following = [open_following(session, kind) for kind in KINDS.values()]
    openings = [opening for each in (session, *following) if each is not None for opening in each.openings.recorded()]
    counts, points = session.history.counts(), session.history.points()
    winner = find_winner_or_none(session)
    return Overview(
        record=session.record,
        storage=session.storage.name,
        counts=counts,
        elapsed_seconds=session.history.elapsed_seconds(),
        cells=tuple(points),
        attempts=tuple(arrange_attempts(session, _read_attempts(session))),
        winner=winner,
        confirmation=None if winner is None else winner.confirmation,
        openings=tuple(sorted(openings, key=lambda opening: opening.opened_at)),
        importances=find_importances(points, session.record.metric),
        n_foreign=count_foreign(session.storage, session.record.study_id),
        climb=read_climb(session),
    )


def _read_attempts(session: Session) -> list[Attempt]:
    everybodys = session.optuna_storage.get_all_trials(session.record.study_id, deepcopy=False)
    trials = {trial_id_of(trial): trial for trial in everybodys if not is_foreign(trial)}
    curves = session.history.curves(list(trials))
    metric = session.record.metric
    attempts = [
        read_attempt(trial, len(curve := curves[trial_id]), sum(epoch.seconds for epoch in curve), curve, metric)
        for trial_id, trial in trials.items()
    ]
    return with_rungs(session, attempts)
