"""Workers as processes of this machine, from a warm server that has imported TensorFlow once. Imports none itself.

A worker's pid is trusted, not what multiprocessing says of it: when the server that workers are forked from is killed,
living workers look dead.
"""

import contextlib
import os
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import psutil

from fmnist_optuna.ledger.holders import Process
from fmnist_optuna.processes.children import start
from fmnist_optuna.wording import describe_exit
from fmnist_optuna.work.order import WorkerOrder


@dataclass
class WorkerProcess:
    """One child, with its pid and start time."""

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

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """As multiprocessing has it."""
        return self.process.exitcode

    def describe_end(self) -> str:
        """How it ended, in words."""
        return describe_exit(self.exit_code)

    def resident_bytes(self) -> int | None:
        """Of the process alone."""
        if self.identity is None:
            return None
        try:
            return int(psutil.Process(self.identity.pid).memory_info().rss)
        except psutil.Error:
            return None

    def signal(self, signum: int) -> None:
        """Send a signal to this very process, if it still is."""
        if self.identity is not None and not self.identity.is_dead():
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                os.kill(self.identity.pid, signum)

    def look(self) -> None:
        """Nothing: the process writes its log by itself."""

    def reap(self) -> None:
        """Let multiprocessing take note of its end."""
        self.process.join(0.1)


def launch_process(order: WorkerOrder) -> WorkerProcess:
    """Start a worker.

    Raises:
        WorkerFailedError: The server of all children died meanwhile; the next start makes another.
    """
    process = start(run_in_process, (order,), name=order.worker_id)
    return WorkerProcess(order, process, None if process.pid is None else Process.of(process.pid))


def run_in_process(order: WorkerOrder) -> None:
    """Body of the process: a worker, and with it TensorFlow."""
    from fmnist_optuna.work.worker import run_worker_process  # loads TensorFlow and Optuna

    run_worker_process(order)
