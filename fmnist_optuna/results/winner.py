"""The winner of a study: the best val_accuracy, or what a confirmation chose; and its one opening of the test set."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.progress import FinishedCell
from fmnist_optuna.results.confirmation import Confirmation, find_confirmation, open_confirmation
from fmnist_optuna.results.evaluation import Evaluation, find_opening, open_weights, summarize
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.leaderboard import read_trial
from fmnist_optuna.study.session import Session


@dataclass(frozen=True)
class Winner:
    """The chosen COMPLETE cell, and the score of its stored weights on the test images once there is one.

    Args:
        trial: Number of the trial whose weights `export` writes.
        val_accuracy: Of those weights, 0..1.
        opening: The recorded scoring of those very weights, found by their hash; None before it.
        class_names: Of the data, in the order of the labels.
        confirmation: Over fresh seeds, if there is one.
    """

    trial: int
    params: Params
    val_accuracy: float
    n_epochs: int
    opening: Opening | None
    class_names: tuple[str, ...]
    confirmation: Confirmation | None = None

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Accuracy, interval and classes of the opening."""
        return None if self.opening is None else summarize(self.opening, self.class_names)


def find_winner(session: Session) -> Winner:
    """The winner so far, with its recorded opening if there is one; nothing is scored.

    Raises:
        NotFoundError: No trial is complete yet.
    """
    confirmation = find_confirmation(session)
    cell = winning_cell(session, confirmation)
    return _winner(session, cell, find_opening(session, cell), confirmation)


def evaluate_winner(session: Session, data_dir: Path | None) -> Winner:
    """Score the winner's stored weights once on the test images, or replay the opening that was recorded.

    Args:
        data_dir: Folder with the IDX files, or None for the search order.

    Raises:
        NotFoundError: No trial is complete.
        MismatchError: The stored weights are missing or altered.
        DataError: The data is not that of the study.
    """
    confirmation = open_confirmation(session, data_dir)
    cell = winning_cell(session, confirmation)
    return _winner(session, cell, open_weights(session, cell, data_dir, purpose="winner"), confirmation)


def evaluate_leader(session: Session, data_dir: Path | None) -> Winner:
    """The same for the best val_accuracy, whatever a confirmation chose.

    Raises:
        NotFoundError: No trial is complete.
        MismatchError: The stored weights are missing or altered.
        DataError: The data is not that of the study.
    """
    cell = winning_cell(session, None)
    return _winner(session, cell, open_weights(session, cell, data_dir, purpose="winner"), None)


def winning_cell(session: Session, confirmation: Confirmation | None) -> FinishedCell:
    """The confirmed choice; without one the best val_accuracy.

    Raises:
        NotFoundError: No trial is complete yet.
    """
    cell = session.history.best() if confirmation is None else confirmation.chosen.cell
    if cell is None:
        raise NotFoundError(f"study {session.record.name}: no trial is complete yet.")
    return cell


def finished_cell(session: Session, number: int) -> FinishedCell:
    """The cell that a COMPLETE or PRUNED trial is the result of.

    Raises:
        NotFoundError: The study has no such trial.
        UsageError: The trial has not finished, or has failed.
    """
    cell = session.history.finished_by(number)
    if cell is None:
        raise UsageError(
            f"TRIAL must be COMPLETE or PRUNED, but trial {number} of study {session.record.name} is "
            f"{read_trial(session, number).state}."
        )
    return cell


def _winner(session: Session, cell: FinishedCell, opening: Opening | None, confirmation: Confirmation | None) -> Winner:
    return Winner(
        trial=cell.trial_number,
        params=cell.params,
        val_accuracy=float(cell.value or 0.0),
        n_epochs=cell.n_epochs,
        opening=opening,
        class_names=session.record.info.class_names,
        confirmation=confirmation,
    )
