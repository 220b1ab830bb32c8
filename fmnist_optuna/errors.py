"""Every exception that the package raises on purpose, each with the exit status that the command line gives it.

The text of an exception says what must hold, then what came, names the object, and ends with the next step where
there is one.
"""

import signal

from fmnist_optuna.statuses import Status, status_of_signal


class FmnistOptunaError(Exception):
    """Root of all our exceptions; catch it to catch them all."""

    exit_status: int = Status.FAILED


class WorkerFailedError(FmnistOptunaError):
    """The local workers cannot go on (a crash loop); read the log that the text names."""


class UsageError(FmnistOptunaError):
    """An option, argument or name is wrong; correct it and call again."""

    exit_status = Status.USAGE


class SpecError(UsageError):
    """A study file breaks a rule; the text names file, key, rule and value."""


class JoinRefusedError(UsageError):
    """The study exists with another specification; choose another name or delete it."""


class NotFoundError(FmnistOptunaError):
    """No such storage file, study, trial or finished trial; `list` shows what there is."""

    exit_status = Status.NOT_FOUND


class DataError(FmnistOptunaError):
    """A data file is missing, incomplete or corrupt; `data verify` shows which."""

    exit_status = Status.DATA


class StorageError(FmnistOptunaError):
    """The storage is unreachable, not a database, or not writable."""

    exit_status = Status.STORAGE


class ArtifactsError(StorageError):
    """The place of a study's artifacts cannot be reached, read or written; the text says what was tried."""


class ArtifactsAwayError(ArtifactsError):
    """It does not answer now, and may later: whatever waits for the database waits for this too."""


class UnreadableStudyError(StorageError):
    """What a storage says of a study was damaged or made by another version; `delete` removes the study."""

    exit_status = Status.DATA  # no start anew reads it


class LaterVersionError(StorageError):
    """A later version of this program made the storage; use that one."""

    exit_status = Status.DATA


class MismatchError(FmnistOptunaError):
    """What was checked does not hold: failed cells, or a verification that found a difference."""

    exit_status = Status.MISMATCH


class StoppedError(FmnistOptunaError):
    """The study was stopped before every cell was done; `run` goes on where it ended."""

    exit_status = Status.STOPPED


class InterruptedBySignalError(FmnistOptunaError):
    """A signal ended the command after its cells were given back.

    Args:
        signum: Number of the signal; the exit status is 128 + signum, as shells have it.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_status = status_of_signal(signum)


def is_ctrl_c(error: BaseException) -> bool:
    """Whether an exception comes from the keyboard, not from code that raises KeyboardInterrupt itself."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
