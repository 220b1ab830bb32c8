"""One worker as its supervisor sees it, whatever started it; and what its log says."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fmnist_optuna.described_errors import find_last_words
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.log import log_event
from fmnist_optuna.statuses import Status
from fmnist_optuna.work.order import WORKER_FAILED, WorkerOrder

logger = logging.getLogger(__name__)

CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
EXIT_UNSEEN = 255  # what multiprocessing says when the server that forked a process has died


class LaunchedWorker(Protocol):
    """A worker that was started, with what was ordered.

    Attributes:
        killed_for: The limit that it broke; None as long as it broke none.
    """

    killed_for: str | None

    @property
    def order(self) -> WorkerOrder:
        """What it was told."""

    @property
    def is_alive(self) -> bool:
        """Whether it still runs, or waits to be started."""

    @property
    def pid(self) -> int | None:
        """Of its process; None where that is not known."""

    @property
    def exit_code(self) -> int | None:
        """Once it has ended: as multiprocessing has it, None when nobody saw it."""

    def describe_end(self) -> str:
        """Once it has ended: how, in words."""

    def resident_bytes(self) -> int | None:
        """What it takes of the memory; None when that is not known."""

    def signal(self, signum: int) -> None:
        """Send it SIGTERM, so that it gives back what it holds and leaves, or SIGKILL."""

    def look(self) -> None:
        """Called twice a second as long as it is watched."""

    def reap(self) -> None:
        """Called once, when it has ended."""


Launch = Callable[[WorkerOrder], LaunchedWorker]
"""Starts a worker.

Raises:
    WorkerFailedError: It cannot be started now; another time it may.
"""


def log_death(worker: LaunchedWorker, exit_code: int | None) -> TrialAttributes:
    """Log how a worker ended before its work was done; returns what that means for the trial that it held.

    The attempt is to blame for a limit and for a crash. A worker that met a storage which was away has stopped, as if
    it had been asked to leave. Anything else is a kill.
    """
    ids: dict[str, object] = {"worker": worker.order.worker_id}
    log = worker.order.log_file
    if worker.killed_for is not None:
        log_event(logger, logging.WARNING, "worker_killed", **ids, error=worker.killed_for, log=log)
        return TrialAttributes(reason="limit", error=worker.killed_for)
    if exit_code is not None and -exit_code in CRASH_SIGNALS:
        error = f"the process crashed with {signal.Signals(-exit_code).name}"
        log_event(logger, logging.WARNING, "worker_crashed", **ids, error=error, log=log)
        return TrialAttributes(reason="crash", error=error)
    log_event(logger, logging.WARNING, "worker_died", **ids, error=worker.describe_end(), log=log)
    if exit_code == Status.STORAGE and says_what_broke(log):
        return TrialAttributes(reason="stopped")
    return TrialAttributes(reason="killed", exit_code=None if exit_code == EXIT_UNSEEN else exit_code)


def says_what_broke(log_file: Path | None) -> bool:
    """Whether a worker's log says what broke it: an exit status alone may be that of the user's own code."""
    return log_file is not None and log_file.exists() and WORKER_FAILED in log_file.read_text(errors="replace")


def quote_log(log_file: Path | None) -> str:
    """The last words in a worker's log, or what it is instead."""
    if log_file is None or not log_file.exists():
        return "(no log)"
    return find_last_words(log_file.read_text(errors="replace")) or "(empty)"
