"""One worker as its supervisor sees it: a process with its pid and start time. Imports no TensorFlow."""

import contextlib
import os
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from fmnist_optuna.described_errors import find_last_words
from fmnist_optuna.ledger.holders import Process
from fmnist_optuna.work.order import WORKER_FAILED, WorkerOrder


@dataclass
class WorkerProcess:
    """One child and what is known of it."""

    order: WorkerOrder
    process: BaseProcess
    identity: Process | None
    killed_for: str | None = None  # the limit that it broke

    @property
    def is_alive(self) -> bool:
        """By its pid and start time, whatever multiprocessing says."""
        if self.process.is_alive():
            return True
        return self.identity is not None and not self.identity.is_dead()

    def signal(self, signum: int) -> None:
        """Send a signal to this very process, if it still is."""
        if self.identity is not None and not self.identity.is_dead():
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                os.kill(self.identity.pid, signum)


def run_in_process(order: WorkerOrder) -> None:
    """Body of the process: a worker, and with it TensorFlow."""
    from fmnist_optuna.work.worker import run_worker_process  # loads TensorFlow and Optuna

    run_worker_process(order)


def says_what_broke(log_file: Path | None) -> bool:
    """Whether a worker's log says what broke it: an exit status alone may be that of the user's own code."""
    return log_file is not None and log_file.exists() and WORKER_FAILED in log_file.read_text(errors="replace")


def quote_log(log_file: Path | None) -> str:
    """The last words in a worker's log, or what it is instead."""
    if log_file is None or not log_file.exists():
        return "(no log)"
    return find_last_words(log_file.read_text(errors="replace")) or "(empty)"
