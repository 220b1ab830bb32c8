"""The things that the ledger deals in: a claim, what it may last, what a trial measures, and how it ends."""

from dataclasses import dataclass
from typing import Literal

from fmnist_optuna.search.cell import Params


@dataclass(frozen=True)
class Timing:
    """How long a claim holds, and how often everybody looks.

    Args:
        lease_seconds: A worker's right to a cell without renewal.
        renewal_seconds: Time between renewals by the small thread.
        poll_seconds: Time between looks of a worker that waits.
        stall_seconds: Progress older than this is renewed no more: the training hangs.
    """

    lease_seconds: float = 60.0
    renewal_seconds: float = 10.0
    poll_seconds: float = 2.0
    stall_seconds: float = 900.0

    @classmethod
    def for_lease(cls, lease_seconds: float) -> "Timing":
        """The default proportions around another lease."""
        return cls(lease_seconds, lease_seconds / 6, min(2.0, lease_seconds / 30), max(900.0, 15 * lease_seconds))


@dataclass(frozen=True)
class Claim:
    """A worker's right to one cell, as long as the cell carries its token."""

    cell_id: str
    token: str
    params: Params
    attempt: int  # from 1


@dataclass(frozen=True)
class HeldCell:
    """A running cell as somebody saw it: enough to take it over if it has not changed since."""

    cell_id: str
    token: str
    worker: str
    lease_until: float
    trial_id: int | None
    is_expired: bool
    n_lost: int = 0  # earlier attempts that were lost or killed


@dataclass(frozen=True)
class Epoch:
    """What one epoch of one trial measured; accuracies are fractions."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Ending:
    """How a finished trial ended, as the cell needs it; read from Optuna.

    Args:
        result: Optuna's state.
        value: val_accuracy of a COMPLETE or PRUNED trial.
        error: What went wrong, when the attempt is to blame.
        is_exception: Whether the error is an exception of the user's code: the same one twice fails the cell.
        is_stopped: Whether it was stopped on purpose, so that nothing counts.
        is_blamed: Whether the cell was found to kill its workers, so that it fails at once.
    """

    trial_id: int
    number: int
    result: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None = None
    error: str | None = None
    is_exception: bool = False
    is_stopped: bool = False
    is_blamed: bool = False
