"""One worker as its supervisor sees it: a process with its pid and start time. Imports no TensorFlow."""

import contextlib
import os
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from fmnist_optuna.ledger.holders import Process
from fmnist_optuna.work.order import WorkerOrder


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
