"""The winner of a study: the best value, or what a confirmation chose; and its one opening of the test set."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.records import Attempt, Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.all_data import AllData, count_trained, find_all_data
from fmnist_optuna.results.confirmation import Confirmation, find_confirmation, open_confirmation
from fmnist_optuna.results.cross_validation import CrossValidation, open_training, read_cross_validation
from fmnist_optuna.results.ensemble import Ensemble, find_ensembles
from fmnist_optuna.results.evaluation import Evaluation, find_opening, open_weights, summarize
from fmnist_optuna.results.seeds import Sample
from fmnist_optuna.results.unsettled import Unsettled, find_unsettled
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.spec.study_names import searched_study
from fmnist_optuna.study.attempts import find_attempt, result_of
from fmnist_optuna.study.records import ALL_DATA, CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following


@dataclass(frozen=True)
class Winner:
    """The chosen attempt, and the score of its stored weights on the test images once there is one.

    Args:
        attempt: Complete; its weights are what `export` writes.
        opening: The recorded scoring of those very weights, found by their hash; None before it.
        class_names: Of the data, in the order of the labels.
        confirmation: Over fresh seeds, if there is one.
        all_data: The confirmed seeds trained once more, on the validation images too, if all were.
        ensembles: Confirmed seeds that were scored together, those on all data last.
        n_on_all_data: How many confirmed seeds were trained on all data; None where none was to be.
        metric: By which it was chosen.
        repeats: What the study compares by over the repeats of its point; None where points have none.
        folds: What the folds say of its point; None where the study has none. The attempt is then that on all training
            images, or before there is one that of the first fold, whose weights are neither opened nor exported.
        n_openings: How often the test set was opened for the study and what follows from it, once a set of weights.
        unsettled: A confirmation that was begun and says nothing of it, or training on all data that lacks seeds.
    """

    attempt: Attempt
    opening: Opening | None
    class_names: tuple[str, ...]
    confirmation: Confirmation | None = None
    all_data: AllData | None = None
    ensembles: tuple[Ensemble, ...] = ()
    n_on_all_data: int | None = None
    metric: Metric = VAL_ACCURACY
    repeats: Sample | None = None
    folds: CrossValidation | None = None
    n_openings: int = 0
    unsettled: Unsettled | None = None

    @property
    def trial(self) -> int:
        """Number of its trial, within `folds.study` where there are folds and it is trained on all images."""
        return self.attempt.number

    @property
    def own_trial(self) -> int | None:
        """The same where it is one of the study itself; None with folds, as what wins is a point, trained elsewhere."""
        return self.trial if self.folds is None else None

    @property
    def params(self) -> Params:
        """Its point of the grid."""
        is_whole = self.repeats is None and self.folds is None
        return self.attempt.params if is_whole else point_of(self.attempt.params)

    @property
    def value(self) -> float:
        """Of the metric, of its stored weights on the validation images; with folds the mean over these."""
        return (self.attempt.value or 0.0) if self.folds is None else self.folds.values.mean

    @property
    def val_accuracy(self) -> float:
        """The same of the accuracy, 0..1."""
        return (self.attempt.val_accuracy or 0.0) if self.folds is None else self.folds.val_accuracies.mean

    @property
    def n_epochs(self) -> int:
        """That it was trained."""
        return self.attempt.n_epochs

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Accuracy, interval and classes of the opening."""
        return None if self.opening is None else summarize(self.opening, self.class_names)


def find_winner(session: Session) -> Winner:
    """The winner so far, with its recorded opening if there is one; nothing is scored.

    Raises:
        NotFoundError: No trial is complete yet.
    """
    if session.record.is_cross_validated:
        return _cross_validated(session)
    confirmation = find_confirmation(session)
    attempt = winning_attempt(session, confirmation)
    return _with_unsettled(session, _winner(session, attempt, find_opening(session, attempt), confirmation))


def find_winner_or_none(session: Session) -> Winner | None:
    """The same; None before any cell, or of a point that is repeated every cell, is complete, and on all data."""
    return None if session.record.is_on_all_data or session.history.best() is None else find_winner(session)


def evaluate_winner(
    session: Session, data_dir: Path | None, scoring: Callable[[str], object] = lambda what: None
) -> Winner:
    """Score the winner's stored weights once on the test images, or replay the opening that was recorded.

    With folds these are the weights that were trained on all training images.

    Args:
        data_dir: Folder with the IDX files, or None for the search order.
        scoring: Is told whose weights are scored, before that takes its time; not of recorded openings.

    Raises:
        NotFoundError: No trial is complete; or the best point is not trained on all images yet.
        MismatchError: The stored weights are missing or altered.
        DataError: The data is not there.
    """
    if session.record.is_cross_validated:
        folds = find_folds(session)
        training, trained = open_training(session, folds)
        return _of_folds(session, folds, trained, _open_winner(training, trained, data_dir, scoring))
    confirmation = open_confirmation(session, data_dir, scoring)
    attempt = winning_attempt(session, confirmation)
    opening = _open_winner(session, attempt, data_dir, scoring)
    return _with_unsettled(session, _winner(session, attempt, opening, confirmation))


def evaluate_leader(
    session: Session, data_dir: Path | None, scoring: Callable[[str], object] = lambda what: None
) -> Winner:
    """The same for the best value, whatever a confirmation chose.

    Raises:
        NotFoundError: No trial is complete.
        MismatchError: The stored weights are missing or altered.
        DataError: The data is not there.
    """
    attempt = winning_attempt(session, None)
    return _winner(session, attempt, _open_winner(session, attempt, data_dir, scoring), None)


def _open_winner(
    session: Session, attempt: Attempt, data_dir: Path | None, scoring: Callable[[str], object]
) -> Opening:
    if find_opening(session, attempt) is None:
        scoring(f"trial {attempt.number}")
    return open_weights(session, [attempt], data_dir, purpose="winner")


def find_folds(session: Session) -> CrossValidation:
    """What the folds say of the best point of a study that has some.

    Raises:
        NotFoundError: No point is complete yet.
    """
    return read_cross_validation(session, _best_cell(session))


def _cross_validated(session: Session) -> Winner:
    first = _best_cell(session)
    folds = read_cross_validation(session, first)
    if folds.trained is None:
        return _of_folds(session, folds, result_of(session, first), None)
    training, attempt = open_training(session, folds)
    return _of_folds(session, folds, attempt, find_opening(training, attempt))


def _of_folds(session: Session, folds: CrossValidation, attempt: Attempt, opening: Opening | None) -> Winner:
    names, metric, n_openings = session.record.info.class_names, session.record.metric, session.openings.count_all()
    return Winner(attempt, opening, names, metric=metric, folds=folds, n_openings=n_openings)


def sample_repeats(session: Session, cell_id: str) -> Sample | None:
    """What the repeats of a cell's point have; None where it has none, or not all are complete, or there are folds."""
    if session.record.is_cross_validated:
        return None
    repeats = session.history.repeats_of(cell_id)
    values = [cell.value for cell in repeats if cell.state is State.COMPLETE and cell.value is not None]
    return Sample(tuple(values), session.record.metric) if repeats and len(values) == len(repeats) else None


def winning_attempt(session: Session, confirmation: Confirmation | None) -> Attempt:
    """The confirmed choice; without one the best value, or the first repeat of the point with the best mean.

    Which repeat answers for its point is settled before any is trained: the best of them would be its luckiest seed,
    and a choice by the test set would be none.

    Raises:
        NotFoundError: No trial is complete yet.
        UsageError: The study trains on its validation images, so that nothing may be chosen by them.
    """
    if session.record.is_on_all_data:
        name, noun = session.record.name, session.record.info.noun
        raise UsageError(
            f"study {name}: has no winner, as its validation {noun}s are trained on; "
            f"`fmnist-optuna best {searched_study(name)}` shows what the test set says of it."
        )
    if confirmation is not None:
        return confirmation.chosen.original
    return result_of(session, _best_cell(session))


def _best_cell(session: Session) -> Cell:
    best = session.history.best()
    if best is None:
        raise NotFoundError(f"study {session.record.name}: no trial is complete yet.")
    return best


def finished_attempt(session: Session, number: int) -> Attempt:
    """The complete or pruned attempt with this trial number.

    Raises:
        NotFoundError: The study has no such trial.
        UsageError: The trial has not finished, or has failed.
    """
    cell = session.history.finished_by(number)
    if cell is None:
        raise UsageError(
            f"The trial must be COMPLETE or PRUNED, but trial {number} of study {session.record.name} is "
            f"{find_attempt(session, number).state.optuna_name}."
        )
    return result_of(session, cell)


def _winner(session: Session, attempt: Attempt, opening: Opening | None, confirmation: Confirmation | None) -> Winner:
    names, metric = session.record.info.class_names, session.record.metric
    repeats, n_openings = sample_repeats(session, attempt.cell_id), session.openings.count_all()
    if confirmation is None:
        return Winner(attempt, opening, names, metric=metric, repeats=repeats, n_openings=n_openings)
    all_data, ensembles = find_all_data(session, confirmation), list[Ensemble]()
    for kind, runs in ((CONFIRMATION, confirmation.chosen.runs), (ALL_DATA, all_data.runs if all_data else ())):
        if runs and (following := open_following(session, kind)) is not None:
            ensembles += find_ensembles(following, runs)
    n_on_all_data = count_trained(session, confirmation) if all_data is None else len(all_data.runs)
    of_seeds = (confirmation, all_data, tuple(ensembles), n_on_all_data)
    return Winner(attempt, opening, names, *of_seeds, metric, repeats, n_openings=n_openings)


def _with_unsettled(session: Session, winner: Winner) -> Winner:
    if winner.all_data is not None:  # nothing is unsettled then
        return winner
    return replace(winner, unsettled=find_unsettled(session, winner.confirmation))
