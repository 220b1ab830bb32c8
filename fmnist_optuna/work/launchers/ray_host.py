"""What an actor of Ray does on its node: it starts one worker process after another, and says how each ended.

A worker is a process of its own, as in a local run: it can be killed alone, its memory is freed, and TensorFlow stays
out of the actor. When the actor is killed, the worker notices, finishes its epoch and gives its cell back. Imports
neither Ray nor TensorFlow.
"""

import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from fmnist_optuna import __version__
from fmnist_optuna.processes.children import warm_up_early
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.statuses import Status
from fmnist_optuna.user_modules.search_path import search_in
from fmnist_optuna.work.launchers.local import WorkerProcess, launch_process
from fmnist_optuna.work.order import WorkerOrder

CARRIED = "carried"  # folder of the runtime environment with the user's modules: not at the front of Python's path
POLL_SECONDS = 0.05
MOST_LOG_BYTES = 2**20  # that travel at once


@dataclass(frozen=True)
class Task:
    """What an actor is told; it holds a URL with a password, which its `repr` does not show.

    Args:
        order: For the worker; its log is that of the supervisor, who has made the file.
        version: Of the supervisor's package.
        needs_folder: Whether artifacts go to a folder that this node must share with the supervisor.
    """

    order: WorkerOrder
    version: str
    needs_folder: bool


@dataclass(frozen=True)
class Glimpse:
    """A worker as it is now.

    Args:
        log: What it has written since the last glimpse.
        resident_bytes: What it takes of the memory; None when that is not known.
        exit_code: Once it has ended, as multiprocessing has it.
    """

    log: bytes = b""
    resident_bytes: int | None = None
    exit_code: int | None = None


class WorkerHost:
    """The actor: a place for one worker at a time. Its methods are called from several threads.

    Args:
        folder: Of the supervisor, which becomes the current one where the node has it.
    """

    def __init__(self, folder: str) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str, WorkerProcess] = {}
        self._n_sent: dict[str, int] = {}  # bytes of its log, by worker
        self._unwanted: set[str] = set()  # workers that were told to leave before they began
        carried = Path.cwd() / CARRIED  # Ray starts an actor in the folder of its runtime environment
        if Path(folder).is_dir():
            os.chdir(folder)
        search_in(*([carried] if carried.is_dir() else []), Path.cwd())
        warm_up_early()

    def begin(self) -> None:
        """Answer: the actor has its place."""

    def run(self, task: Task) -> Glimpse:
        """Start a worker, wait for its end, and say how it ended."""
        order = task.order
        if task.version != __version__:
            return _refuse(f"Every node must have fmnist-optuna {task.version}, but {_node()} has {__version__}.")
        if task.needs_folder and not (order.log_file and order.log_file.exists()):
            return _refuse(
                f"Every node must share the folder of the run, for weights and checkpoints, but {_node()} does not see "
                f"{order.log_file}; mount it there, or make the study with --artifacts s3://BUCKET/PREFIX."
            )
        with self._lock:
            if order.worker_id in self._unwanted:
                return Glimpse(exit_code=Status.HANDED_BACK)
            for other in self._workers.values():  # of which the supervisor had no answer, and takes it for lost
                other.signal(signal.SIGKILL)
            worker = launch_process(replace(order, log_file=_log_of(order.worker_id)))
            self._workers[order.worker_id] = worker
        while worker.is_alive:
            time.sleep(POLL_SECONDS)
        worker.reap()
        with self._lock:
            return Glimpse(self._read_on(order.worker_id, is_last=True), exit_code=worker.exit_code)

    def glimpse(self, worker_id: str) -> Glimpse:
        """What a worker has written since the last glimpse, and its size."""
        with self._lock:
            if worker_id not in self._workers:
                return Glimpse()
            log = self._read_on(worker_id)
            return Glimpse(log, self._workers[worker_id].resident_bytes())

    def _read_on(self, worker_id: str, *, is_last: bool = False) -> bytes:
        """What was not sent yet, as much as may travel at once.

        Args:
            is_last: Whether nothing is sent afterwards: of more than that the end counts, which says what broke.
        """
        n_sent, note = self._n_sent.get(worker_id, 0), b""
        try:
            with _log_of(worker_id).open("rb") as file:
                n_left_out = max(0, file.seek(0, os.SEEK_END) - n_sent - MOST_LOG_BYTES) if is_last else 0
                if n_left_out:
                    note = f"\n... {n_left_out} bytes are left out ...\n".encode()
                file.seek(n_sent + n_left_out)
                log = file.read(MOST_LOG_BYTES)
        except FileNotFoundError:  # it has only begun
            return b""
        self._n_sent[worker_id] = n_sent + n_left_out + len(log)
        return note + log

    def signal(self, worker_id: str, signum: int) -> None:
        """Send a worker a signal; one that has not begun will not."""
        with self._lock:
            if worker_id in self._workers:
                self._workers[worker_id].signal(signum)
            else:
                self._unwanted.add(worker_id)


def _refuse(reason: str) -> Glimpse:
    return Glimpse(f"{reason}\n".encode(), exit_code=Status.USAGE)


def _node() -> str:
    return f"the node {os.uname().nodename}"


def _log_of(worker_id: str) -> Path:
    return temporary_folder() / f"{worker_id}.log"
