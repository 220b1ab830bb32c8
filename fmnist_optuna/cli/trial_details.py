"""All that `show` tells of one trial, read once."""

from dataclasses import dataclass, replace
from pathlib import Path

from fmnist_optuna.bridge.artifacts import kept_files
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.study.attempts import find_attempt
from fmnist_optuna.study.cuts import explain_cut
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.session import Session


@dataclass(frozen=True)
class TrialDetails:
    """A trial with what belongs to it.

    Args:
        record: The trial's study.
        attempt: The trial with its epochs.
        log: The log of the worker that trained it last; None where it is not on this machine.
        files: Where it is what its callbacks wrote and was kept, by the paths that they wrote to.
        cut: Why its cell was cut at a rung, in one sentence; None if it was not.
    """

    record: StudyRecord
    attempt: Attempt
    log: Path | None
    files: dict[str, str]
    cut: str | None


def read_details(session: Session, number: int) -> TrialDetails:
    """Read a trial.

    Raises:
        NotFoundError: The study has no such trial.
    """
    attempt = find_attempt(session, number)
    log = session.storage.artifacts.parent / "logs" / f"{attempt.worker}.log"
    trial = session.optuna_storage.get_trial(attempt.trial_id)
    return TrialDetails(
        record=session.record,
        attempt=replace(attempt, epochs=tuple(session.history.curve(attempt.trial_id))),
        log=log if log.exists() else None,
        files=kept_files(session.store, session.optuna_storage, trial),
        cut=explain_cut(session, attempt.trial_id),
    )
