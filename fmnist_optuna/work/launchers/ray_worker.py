"""One worker on a node of a Ray cluster, as its supervisor sees it. Imports no Ray: actors are handed in."""

import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from fmnist_optuna.described_errors import find_last_words
from fmnist_optuna.log import log_event
from fmnist_optuna.statuses import Status
from fmnist_optuna.wording import describe_exit
from fmnist_optuna.work.launchers.ray_host import Glimpse, Task
from fmnist_optuna.work.order import WorkerOrder

logger = logging.getLogger(__name__)

GLIMPSE_SECONDS = 2.0  # between looks at its log and its size
ROOM_SECONDS = 15.0  # for an actor to have room on a node; then it is said that there is none
KILL_SECONDS = 10.0  # for a node to say that a worker was killed; then the node is taken for lost


class Place:
    """A place on some node: an actor, and another one when that was ended.

    Args:
        make: Asks Ray for an actor, of a `WorkerHost`.
        kill: Ends an actor for good, wherever it is.
    """

    def __init__(self, make: Callable[[], Any], kill: Callable[[Any], object]) -> None:
        self.is_there = False
        self._make, self._kill = make, kill
        self._actor = make()

    @property
    def actor(self) -> Any:
        """A handle of Ray."""
        if self._actor is None:
            self._actor = self._make()
        return self._actor

    def end(self) -> None:
        """End the actor."""
        if self._actor is not None:
            self._kill(self._actor)
        self._actor, self.is_there = None, False


@dataclass
class RayWorker:
    """A worker that an actor starts as soon as it has a place.

    Args:
        order: What the supervisor has ordered.
        task: What the actor is told of it.
        place: Where it runs.
        tell_waiting: Called when there seems to be no room for it on any node.
    """

    order: WorkerOrder
    task: Task
    place: Place
    tell_waiting: Callable[[], object]
    killed_for: str | None = None
    pid: int | None = None  # is that of another machine
    _size: int | None = None
    _next_glimpse: float = 0.0
    _glimpse: "Future[Glimpse] | None" = None
    _given_up_at: float | None = None  # when the actor is no longer waited for
    _end: Glimpse | None = None
    _loss: str = ""  # what Ray says of an actor that is gone
    _actor: Any = field(init=False)
    _began: "Future[None]" = field(init=False)
    _asked_at: float = field(init=False)
    _ended: "Future[Glimpse] | None" = None

    def __post_init__(self) -> None:
        self.place.is_there, self._asked_at = False, time.monotonic()
        self._actor = self.place.actor
        self._began = self._actor.begin.remote().future()  # Ray asks until an actor that it restarts has its place

    @property
    def has_begun(self) -> bool:
        """Whether the actor has been told what to do."""
        return self._ended is not None

    @property
    def is_alive(self) -> bool:
        """Until the actor says how it ended, or Ray that the actor is lost."""
        if self._ended is not None and self._ended.done():
            return False
        if self._ended is None and self._began.done() and self._began.exception() is not None:
            return False
        if self._given_up_at is None or time.monotonic() < self._given_up_at:
            return True
        self.place.end()
        return False

    @property
    def exit_code(self) -> int | None:
        """Once it has ended; None when its actor was lost."""
        return None if self._end is None else self._end.exit_code

    def describe_end(self) -> str:
        """How it ended, in words."""
        return self._loss or describe_exit(self.exit_code)

    def resident_bytes(self) -> int | None:
        """As it was a few seconds ago."""
        return self._size

    def signal(self, signum: int) -> None:
        """Let the actor send a signal; one that has no place yet, which could not, is ended.

        After SIGKILL nothing more is sent: who waits for the end of a worker kills it again and again, and each time
        would be one more call that waits at an actor which cannot answer.
        """
        if self._given_up_at is not None:
            return
        if not self.has_begun:
            self._given_up_at = time.monotonic()
            return
        if signum == signal.SIGKILL:
            self._given_up_at = time.monotonic() + KILL_SECONDS
        self._actor.signal.options(max_task_retries=0).remote(self.order.worker_id, signum)

    def look(self) -> None:
        """Tell the actor what to do once it has its place; then bring over what the worker has written."""
        if self._ended is None:
            if self._given_up_at is not None:
                return
            if not self._began.done():
                if time.monotonic() - self._asked_at > ROOM_SECONDS:
                    self.tell_waiting()
            elif self._began.exception() is None:
                self.place.is_there = True
                # Once: should the node be lost, the supervisor starts another worker, by another name.
                self._ended = self._actor.run.options(max_task_retries=0).remote(self.task).future()
            return
        if self._glimpse is not None and self._glimpse.done():
            self._take(self._glimpse)
            self._glimpse = None
        now = time.monotonic()
        if self._glimpse is None and now >= self._next_glimpse:
            self._next_glimpse = now + GLIMPSE_SECONDS
            self._glimpse = self._actor.glimpse.options(max_task_retries=0).remote(self.order.worker_id).future()

    def reap(self) -> None:
        """Take the rest of its log, and how it ended."""
        answer = self._ended or self._began
        if self._glimpse is not None and (answer.done() or self._glimpse.done()):  # asked before, and so answered
            self._take(self._glimpse)
        if answer.done():
            self._end = self._take(answer)
        if self._ended is None:  # it never had its place, and was told to leave, or cannot be
            self.place.end()
            self._end = self._end if self._given_up_at is None else Glimpse(exit_code=Status.HANDED_BACK)
        if self._end is None:
            self._write(f"{self.describe_end()}\n".encode())

    def _take(self, answer: "Future[Glimpse] | Future[None]") -> Glimpse | None:
        try:
            glimpse = answer.result(timeout=KILL_SECONDS)
        except Exception as error:  # of Ray, which has many, or of what the actor could not do
            self._loss = f"is lost on its node: {_reason_of(error)}"
            return None
        if glimpse is None:
            return None
        self._size = glimpse.resident_bytes
        self._write(glimpse.log)
        return glimpse

    def _write(self, log: bytes) -> None:
        if self.order.log_file is None or not log:
            return
        try:
            with self.order.log_file.open("ab") as file:
                file.write(log)
        except OSError as error:
            log_event(logger, logging.WARNING, "log_not_written", worker=self.order.worker_id, error=str(error))


def _reason_of(error: BaseException) -> str:
    """What Ray says, in one line: its last words, as of a process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return find_last_words("\n".join(lines)) or type(error).__name__
