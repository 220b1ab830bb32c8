"""All that `show` tells of one trial, read once."""

from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.bridge.artifacts import kept_files
from fmnist_optuna.ledger.records import Epoch
from fmnist_optuna.study.leaderboard import TrialRow, read_trial
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import StudyRecord


@dataclass(frozen=True)
class TrialDetails:
    """A trial with what belongs to it.

    Args:
        record: The trial's study.
        code: Fingerprint of the user's code that it was trained with; None where it recorded none.
        log: The log of its worker; None where it is not on this machine.
        files: What its callbacks wrote and was kept, by the paths that they wrote to.
        curve: Its epochs.
    """

    record: StudyRecord
    row: TrialRow
    code: str | None
    log: Path | None
    files: dict[str, Path]
    curve: tuple[Epoch, ...]


def read_details(session: Session, number: int) -> TrialDetails:
    """Read a trial.

    Raises:
        NotFoundError: The study has no such trial.
    """
    row = read_trial(session, number)
    trial = session.trials.get_trial(row.trial_id)
    log = session.storage.artifacts.parent / "logs" / f"{row.worker}.log"
    return TrialDetails(
        record=session.record,
        row=row,
        code=trial.user_attrs.get("code"),
        log=log if log.exists() else None,
        files=kept_files(session.storage.artifacts, session.trials, trial),
        curve=tuple(session.history.curve(row.trial_id)),
    )
