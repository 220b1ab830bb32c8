"""What the ledger tells and is told: cells, attempts at them, their epochs; claims and what they may last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import VAL_ACCURACY, Epoch, Metric


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
    """A worker's right to one cell, as long as the cell carries its token.

    Args:
        attempt: Which one at the cell, from 1.
        trial_id: Of the trial to go on with, which was parked; None where a trial is to be made.
        trial_number: Of the same trial.
        rung: Epochs at which the cell was parked last; 0 for none.
        cut_at: The rung beyond which it does not go; None where it is to go on.
    """

    cell_id: str
    token: str
    params: Params
    attempt: int
    trial_id: int | None = None
    trial_number: int | None = None
    rung: int = 0
    cut_at: int | None = None


@dataclass(frozen=True)
class HeldCell:
    """Somebody else's right to a cell, as it was seen: enough to take the cell over if it has not changed since."""

    cell_id: str
    token: str
    worker: str
    lease_until: float
    trial_id: int | None
    is_expired: bool
    n_lost: int = 0  # earlier attempts that were lost or killed
    trial_number: int | None = None


@dataclass(frozen=True)
class Cell:
    """What the ledger knows of a cell.

    Args:
        state: Where it stands.
        worker: Who holds it, or held it last; "" before the first claim.
        trial_id: Of the trial that is bound to it, is its result, or was its last failure; None without one.
        trial_number: Of the same trial.
        value: Of its result, of the study's metric; None without one, and for one that diverged.
        error: What went wrong last, when the attempt was to blame.
        n_epochs: Of its trial so far.
        seconds: Of these epochs.
        held_seconds: Since it was claimed last; 0.0 before the first claim.
        finished_at: When its result came, in seconds since 1970 UTC; None without one.
        rung: Epochs at which it was parked last; 0 for none.
        cut_at: The rung beyond which it does not go; None where none is known.
        decision_id: Of the decision that cut it.
        first_claimed_at: When it was first claimed, in seconds since 1970 UTC; None before.
        number: Within a search that is no grid; None of a grid.
        accuracy: Of its result on the validation images, where that is not the value.
    """

    cell_id: str
    params: Params
    state: State
    worker: str = ""
    trial_id: int | None = None
    trial_number: int | None = None
    value: float | None = None
    error: str | None = None
    n_epochs: int = 0
    seconds: float = 0.0
    held_seconds: float = 0.0
    finished_at: float | None = None
    rung: int = 0
    cut_at: int | None = None
    decision_id: int | None = None
    first_claimed_at: float | None = None
    number: int | None = None
    accuracy: float | None = None

    @property
    def val_accuracy(self) -> float | None:
        """Of its result, 0..1; None without one, and for one that diverged."""
        return self.value if self.accuracy is None else self.accuracy


@dataclass(frozen=True)
class Leg:
    """What is trained of a trial without a pause: from its begin, or from where it went on after one.

    Args:
        n_epochs: That the trial had by then.
        began: Seconds since 1970 UTC, by the worker's clock.
        worker: Who trained it from there.
    """

    n_epochs: int
    began: float
    worker: str


@dataclass(frozen=True)
class TrialAttributes:
    """What is noted on a trial of ours beside what Optuna keeps of every trial; None is what was not noted.

    Args:
        worker: Who trains its first leg.
        attempt: Which attempt at its cell, from 1.
        seed: Of its training.
        environment: What its numbers depend on beside seed, data and code.
        code: Fingerprint of the user's code.
        machine: Where it runs.
        oom_counter: The kernel's count of processes killed for want of memory when it began.
        reason: Why it was cut or failed.
        error: What went wrong, when the attempt is to blame.
        best_epoch: 0-based epoch whose weights were kept.
        n_parameters: Of the model, trainable or not.
        weights_sha256: Of the kept weights.
        exit_code: Of a killed worker, as multiprocessing has it, if somebody saw its end.
        killed_for_memory: Whether the kernel counted a kill meanwhile.
        kept_epochs: Number of epochs that an earlier attempt trained, and that this one goes on from.
        told_number: Number that its callbacks were told, where they are those of an earlier attempt; None for its own.
        legs: All but the first, of which the trial itself tells, in the order of time.
        val_accuracy: Beside its value, where that is of another metric; noted before the trial has a value.
    """

    worker: str | None = None
    attempt: int | None = None
    seed: int | None = None
    environment: Mapping[str, Json] | None = None
    code: str | None = None
    machine: str | None = None
    oom_counter: Mapping[str, Json] | None = None
    reason: Reason | None = None
    error: str | None = None
    best_epoch: int | None = None
    n_parameters: int | None = None
    weights_sha256: str | None = None
    exit_code: int | None = None
    killed_for_memory: bool | None = None
    kept_epochs: int | None = None
    told_number: int | None = None
    legs: Sequence[Leg] | None = None
    val_accuracy: float | None = None


@dataclass(frozen=True)
class Attempt:
    """One trial: an attempt at a cell.

    Args:
        number: 0-based, within the study.
        cell_id: Cell; "" for a trial that another program made, of which the rest is what that program left.
        value: Of the study's metric: of the kept weights when complete, the last one reported when pruned; None for any
            other.
        attributes: What is noted on it; nothing is for another program's.
        n_epochs: That it has trained.
        seconds: Of these epochs.
        epochs: What they measured, where they were asked for.
        rung: Number of epochs at which it rests, or was cut, where that was asked for; None for any other.
        began: Seconds since 1970 UTC; 0.0 for one that has not begun.
        ended: The same; None while it runs.
        metric: That its value is of.
        point_mean: Mean value of the cells of its point, where that was asked for, once all are complete; else None.
    """

    trial_id: int
    number: int
    cell_id: str
    params: Params
    state: State
    value: float | None
    attributes: TrialAttributes = field(default_factory=TrialAttributes)
    n_epochs: int = 0
    seconds: float = 0.0
    epochs: tuple[Epoch, ...] = ()
    rung: int | None = None
    began: float = 0.0
    ended: float | None = None
    metric: Metric = VAL_ACCURACY
    point_mean: float | None = None

    @property
    def val_accuracy(self) -> float | None:
        """Of the weights that its value is of, 0..1; None without a value, and where another metric is all there is."""
        if self.metric.is_accuracy:
            return self.value
        return None if self.value is None else self.attributes.val_accuracy

    @property
    def is_foreign(self) -> bool:
        """Whether another program added it to the study."""
        return not self.cell_id

    @property
    def standing(self) -> State:
        """Its state; parked where it rests at a rung, which Optuna knows as running."""
        return State.PARKED if self.state is State.RUNNING and self.rung is not None else self.state

    @property
    def legs(self) -> tuple[Leg, ...]:
        """All legs in the order of time, one more than there were pauses."""
        first = Leg(self.attributes.kept_epochs or 0, self.began, self.attributes.worker or "")
        return first, *(self.attributes.legs or ())

    @property
    def worker(self) -> str:
        """Who trained it last, or began to; "" where nothing says so."""
        return self.legs[-1].worker


@dataclass(frozen=True)
class CellCounts:
    """Number of cells by state.

    Args:
        total: All cells; the sum of waiting, running, parked, done and failed.
        waiting: For a worker.
        running: That a worker trains.
        parked: That wait at a rung.
        done: With a result; the sum of complete and pruned.
        complete: Trained to the end.
        pruned: Ended early by the pruner.
        cut: Of these, at a rung.
        failed: For good.
    """

    total: int
    waiting: int
    running: int
    parked: int
    done: int
    complete: int
    pruned: int
    cut: int
    failed: int

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.waiting == 0 and self.running == 0 and self.parked == 0


@dataclass(frozen=True)
class WorkerRow:
    """A worker as it last said it was there.

    Args:
        worker_id: Its name, as trials have it.
        host: Where it runs.
        pid: Its process there.
        version: Of this program.
        device: On which it trains, such as "CPU"; None of a worker that has not said it.
        seconds_since_start: By the database's clock.
        seconds_since_seen: By the same.
    """

    worker_id: str
    host: str
    pid: int
    version: str
    device: str | None
    seconds_since_start: float
    seconds_since_seen: float
