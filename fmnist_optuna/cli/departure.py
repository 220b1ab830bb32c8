"""How `worker` leaves when a signal or its time asks it to: in order, and by force before the grace of its engine ends.

Signals are heard at once, by a thread: Python's own handlers wait until the call of TensorFlow that trains an epoch
returns, and that may take minutes. What is held, and how it is given back, is said by `working`.
"""

import logging
import math
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from fmnist_optuna.cli.signals import handle_signals
from fmnist_optuna.cli.streams import say
from fmnist_optuna.log import log_event
from fmnist_optuna.statuses import Status, status_of_signal
from fmnist_optuna.wording import reason_of

logger = logging.getLogger(__name__)

PERSON = (signal.SIGINT, signal.SIGQUIT)  # of a keyboard: nobody starts the worker again
# Of an engine: at the end of a container or a session, and Slurm's and the kernel's warning that the time is almost up.
ENGINE = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)
MAX_TIME = "--max-time"
HAND_BACK_SECONDS = 2.0  # for giving back what is held, where that is done by force
RESERVE_SECONDS = 1.0  # of the grace, for what is left after that: temporary files, a busy machine
OUTAGE_SECONDS = 3.0  # that a worker which leaves waits for its database
SLICE_SECONDS = 86_400.0  # of a wait: select takes no more than some years at once, and a limit may be longer
SAME_SECONDS = 0.5  # in which a signal that comes twice is one: to the whole group, and passed on by a parent
CHILD_SECONDS = 0.2  # by which the end of a child may be seen before the signal that both of them got


class Departure:
    """Whether this worker was asked to leave, and what becomes of it then. A context manager around its work.

    The first signal asks. As long as nothing is held the process ends with it. Otherwise the work is told to leave; if
    it has not ended shortly before the grace is over, what it holds is given back from here and the process ends. A
    second Ctrl-C ends it at once. Further signals of an engine change nothing: many send to the whole group, or twice.

    Args:
        grace_seconds: In which the process ends once it is asked, > 0.
        max_seconds: After which it asks itself; None for never.

    Attributes:
        reason: What asked: the name of a signal, or "--max-time"; empty as long as nothing did.
        temporary: The folder of the process's temporary files, which goes with it.
    """

    def __init__(self, grace_seconds: float, max_seconds: float | None = None) -> None:
        self.reason = ""
        self.temporary: Path | None = None
        self._patience_seconds = max(0.0, grace_seconds - HAND_BACK_SECONDS - RESERVE_SECONDS)
        self._hand_back_seconds = min(HAND_BACK_SECONDS, grace_seconds)
        self._due = None if max_seconds is None else time.monotonic() + max_seconds
        self._asked_at = float("inf")
        self._signum: int | None = None  # of a person
        self._tell: Callable[[], object] = lambda: None
        self._hand_back: Callable[[], object] | None = None
        self._heard, self._caught = os.pipe()  # what the thread reads, and what signals are written to

    @property
    def is_asked(self) -> bool:
        """Whether anything has asked this worker to leave."""
        return bool(self.reason)

    @property
    def is_of_person(self) -> bool:
        """Whether somebody at a keyboard asked."""
        return self._signum is not None

    @property
    def status(self) -> Status:
        """With which the process ends when it was asked to leave before the study was finished."""
        return Status.HANDED_BACK if self._signum is None else status_of_signal(self._signum)

    def is_overdue(self) -> bool:
        """Whether it was asked so long ago that no outage is waited for any more."""
        return time.monotonic() - self._asked_at > OUTAGE_SECONDS

    def hold(self, hand_back: Callable[[], object], tell: Callable[[], object]) -> None:
        """From here on the worker is on the list, and may hold a cell.

        Args:
            hand_back: Gives back all that is held; called from another thread, while the work may still go on.
            tell: Tells the work to leave.
        """
        self._tell = tell
        self._hand_back = hand_back

    def __enter__(self) -> Self:
        os.set_blocking(self._caught, False)
        signal.set_wakeup_fd(self._caught, warn_on_full_buffer=False)
        handle_signals(lambda *_: None, *PERSON, *ENGINE)
        threading.Thread(target=self._watch, name="departure", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process if it was asked to leave and an error came between; else nothing asks any more.

        The signal may have ended a child first, or the database is away.
        """
        if isinstance(error, Exception):
            time.sleep(0.0 if self.is_asked else CHILD_SECONDS)
            if self.is_asked:
                log_event(logger, logging.WARNING, "left_with_error", error=reason_of(error))
                self._leave_at_once()
        signal.set_wakeup_fd(-1)
        for signum in (*PERSON, *ENGINE):  # how it ended is known: Python only tidies up
            signal.signal(signum, signal.SIG_IGN)
        os.close(self._caught)

    def _watch(self) -> None:
        """Read the numbers of signals until there are no more to come."""
        while True:
            seconds = math.inf if self._due is None else max(0.0, self._due - time.monotonic())
            if not select.select([self._heard], [], [], min(seconds, SLICE_SECONDS))[0]:
                if seconds <= SLICE_SECONDS:
                    self._be_due()
                continue
            numbers = os.read(self._heard, 64)
            if not numbers:
                return
            for signum in numbers:
                self._hear(signum)

    def _be_due(self) -> None:
        if self.is_asked:
            self._leave_at_once()
        self._ask(MAX_TIME)

    def _hear(self, signum: int) -> None:
        is_person = signum in PERSON
        if self.is_asked:
            if is_person and time.monotonic() - self._asked_at >= SAME_SECONDS:
                self._end(status_of_signal(signum))
        elif is_person or signum in ENGINE:
            self._signum = signum if is_person else None
            self._ask(signal.Signals(signum).name)

    def _ask(self, reason: str) -> None:
        self._asked_at = time.monotonic()
        self._due = self._asked_at + self._patience_seconds
        self.reason = reason
        if self._hand_back is None:
            self._leave_at_once()
        log_event(logger, logging.INFO, "asked_to_leave", reason=reason)
        self._tell()

    def _leave_at_once(self) -> NoReturn:
        """Give back what is held and end the process: in so much time, whatever hangs."""
        last = threading.Thread(target=self._hand_back_and_say, name="last", daemon=True)
        last.start()
        last.join(self._hand_back_seconds)
        self._end(self.status)

    def _hand_back_and_say(self) -> None:
        if self._hand_back is not None:
            log_event(logger, logging.WARNING, "leaves_at_once", reason=self.reason)
            try:
                self._hand_back()
            except Exception as error:  # another worker takes the cell over once the lease is over
                log_event(logger, logging.WARNING, "not_handed_back", error=reason_of(error))
        say(f"Left after {self.reason}. Start a worker again to go on.")

    def _end(self, status: int) -> NoReturn:
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)
        os._exit(status)
