"""What the model of the ledger's protocol is about: a cell, its trials, actors, and what is said of them together."""

from enum import Enum
from typing import NamedTuple

RUNNING, COMPLETE, FAIL, LOST = "RUNNING", "COMPLETE", "FAIL", "lost in a crash"
NAMES = ("worker 0", "worker 1", "requeuer 0", "requeuer 1", "sweeper", "person")
REQUEUERS, SWEEPER, PERSON = (2, 3), 4, 5
SHARED_TOKEN = -1  # of every claim, where tokens are used again
NO_TOKEN = -2  # of a cell that does not run


class Clause(Enum):
    """What the protocol asks for; the model can do without each."""

    BIND_UNDER_TOKEN = "a trial is bound only to a cell under the binder's token"
    SETTLE_UNDER_TOKEN = "a cell is settled only under the settler's token"
    TAKE_OVER_AS_SEEN = "a cell is taken over only if token, lease and trial are as they were seen"
    TRIAL_AS_SEEN = "a trial bound since the look prevents a take-over"
    TAKER_HAS_TOKEN = "who takes a cell over puts it under a token of its own"
    TOKEN_IS_NEW = "a token is never used again"
    CLAIM_FINDS_ITSELF = "a repeated claim first looks for its token"
    TAKE_OVER_FINDS_ITSELF = "a repeated take-over looks for its token"
    BIND_BEFORE_TELL = "a trial is bound before it is told"
    TELL_BEFORE_COPY = "a result is told to Optuna before it is copied to the cell"
    FAIL_BEFORE_WAIT = "a requeuer fails the trial before it lets the cell wait"
    REQUEUER_READS_AGAIN = "a requeuer reads the trial that it tried to fail"
    ONE_TRANSACTION = "the state of a trial is read and written in one transaction"
    LIST_BEFORE_CELLS = "a sweep lists trials first and reads cells second"
    SPARE_UNBOUND = "a sweep spares a trial that is about to be bound"
    SWEEP = "running trials that no cell owns are swept"
    PARK_UNDER_TOKEN = "a cell is parked only under the parker's token"
    LEAVE_UNPARKED = "who cannot park a cell leaves its trial alone"
    SPARE_PAUSED = "a sweep spares the trial of a cell that is parked, or that waits to go on"
    POINT_WITH_CLAIM = "the first claim fixes the point of its cell, in its own transaction"
    POINT_IS_KEPT = "a claim keeps the point that an earlier one fixed"
    POINT_OF_ROW = "who claims a cell trains the point of its row, whatever it would have suggested"
    BIND_SEES_TRIAL = "a trial is bound only if it is there, made under the binder's token"
    GIVE_BACK_UNBOUND = "who cannot bind a trial gives the cell back if it still has it"
    DROP_UNDER_TOKEN = "who cannot bind a trial fails it only if it is the one that it made"
    SWEEP_UNDER_TOKEN = "a trial is swept only if it is the one that was listed"


class Cell(NamedTuple):
    """The row of the cell; token, trial and point are 0 for NULL, the lease is the clock at its last renewal.

    A parked cell, and one that waits to go on, has the trial that its next claim goes on with. A point is named by the
    time at which it was suggested, so that no two suggestions are the same.
    """

    state: str = "waiting"
    token: int = 0
    trial: int = 0
    lease: int = 0
    point: int = 0


class Trial(NamedTuple):
    """One of Optuna's trials, with the point that it trains; numbered from 1 in the order of their creation.

    One that is not durable is lost in a crash.
    """

    token: int
    status: str = RUNNING
    point: int = 0
    is_durable: bool = True


class Actor(NamedTuple):
    """A process: the step that comes next, and what it remembers.

    Args:
        at: Name of the step.
        token: Its own token, once it has claimed or taken over.
        trial: The trial that it deals with, or saw in the cell; 0 for none.
        seen: Token and lease that a requeuer saw, or the trials on a sweeper's list.
        point: What a worker has suggested, and then what it trains; 0 for none.
        tokens: Of the trials on a sweeper's list, as they were then.
    """

    at: str
    token: int = 0
    trial: int = 0
    seen: tuple[int, ...] = ()
    point: int = 0
    tokens: tuple[int, ...] = ()


class State(NamedTuple):
    """Everything at one moment; the clock counts steps, so that no token and no lease comes twice."""

    clock: int
    cell: Cell
    trials: tuple[Trial, ...]
    actors: tuple[Actor, ...]


class Move(NamedTuple):
    """What one actor does: a "step", a step to be done "again" as its answer was lost, or a "death" instead of it."""

    number: int
    action: str
    kind: str
    after: State


def owns(cell: Cell, token: int, trial: int) -> bool:
    """Whether a cell has this trial and is neither done nor failed, or runs and waits for it to be bound.

    Args:
        token: That the trial was made under.
    """
    if cell.trial == 0:
        return cell.state == "running" and cell.token == token
    return cell.trial == trial and cell.state in ("running", "parked", "waiting")


def tokens_of(trials: tuple[Trial, ...], numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Of those that are there."""
    return tuple(trials[number - 1].token for number in numbers if number <= len(trials))


def running_trials(trials: tuple[Trial, ...]) -> tuple[int, ...]:
    return tuple(number for number, trial in enumerate(trials, 1) if trial.status == RUNNING)


def status_of(trials: tuple[Trial, ...], trial: int) -> str:
    """Of a trial that may have been lost."""
    return trials[trial - 1].status if trial <= len(trials) else LOST


def is_made_by(actor: Actor, trials: tuple[Trial, ...]) -> bool:
    """Whether the trial that a worker has made is still there, and not another one with its number."""
    return actor.trial <= len(trials) and trials[actor.trial - 1].token == actor.token


def flush(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """All of them durable."""
    if all(trial.is_durable for trial in trials):
        return trials
    return tuple(trial if trial.is_durable else trial._replace(is_durable=True) for trial in trials)


def wait_again(cell: Cell) -> Cell:
    """A cell that waits for a new trial, of the same point."""
    return Cell(point=cell.point)


def with_status(trials: tuple[Trial, ...], trial: int, status: str) -> tuple[Trial, ...]:
    if trial > len(trials):  # without a clause somebody may write to one that was lost
        return trials
    return (*trials[: trial - 1], trials[trial - 1]._replace(status=status), *trials[trial:])
