"""The states of cells and of attempts: one vocabulary, from the tables to what people read."""

from enum import StrEnum
from typing import Literal

from fmnist_optuna.errors import MismatchError

# How the column `state` of a cell says that it has a result; the column `result` has Optuna's name of which.
DONE = "done"
FAIL = "FAIL"  # the only one of Optuna's names that is not ours in capital letters

# Why a trial was cut or failed.
Reason = Literal["pruned", "diverged", "exception", "limit", "crash", "stopped", "lost", "killed", "blamed", "moved"]
LOSSES: tuple[Reason, ...] = ("lost", "killed", "blamed")  # it went with its lease or with its worker


class State(StrEnum):
    """Where an attempt or a cell stands.

    An attempt runs, or is complete, pruned or failed; one that another program put into a queue waits. A cell waits,
    runs, or is parked: its attempt has paused at a rung. Then it has the state of the attempt that is its result; it
    has failed when it is not tried any more.
    """

    WAITING = "waiting"
    RUNNING = "running"
    PARKED = "parked"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def has_result(self) -> bool:
        """Whether it is over, and something came of it."""
        return self in (State.COMPLETE, State.PRUNED)

    @property
    def optuna_name(self) -> str:
        """What Optuna, the column `result` and the answers in JSON call it: COMPLETE, FAIL ..."""
        return FAIL if self is State.FAILED else self.name

    @classmethod
    def from_optuna(cls, name: str) -> "State":
        """The state that Optuna calls so."""
        return cls.FAILED if name == FAIL else cls[name]

    @classmethod
    def of_cell(cls, state: str, result: str | None) -> "State":
        """The state that the two columns of a cell stand for.

        Raises:
            MismatchError: They stand for none: somebody has changed the database.
        """
        try:
            return cls(state) if result is None else cls.from_optuna(result)
        except (ValueError, KeyError) as error:
            raise MismatchError(
                f"A cell must be waiting, running, parked, failed or done with a result that is COMPLETE or PRUNED, "
                f"but one is {state!r:.40} with {result!r:.40}; `fmnist-optuna verify` shows what else is wrong."
            ) from error


UNFINISHED = (State.WAITING, State.RUNNING, State.PARKED)  # of a cell; such a cell owns the trial that it names
