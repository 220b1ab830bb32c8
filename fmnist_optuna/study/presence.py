"""Which workers a study has, where they run, and whether one of this host is dead for certain."""

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import delete, insert, select, update

from fmnist_optuna import __version__
from fmnist_optuna.errors import StorageError
from fmnist_optuna.study.retry import Patience, retrying
from fmnist_optuna.study.schema import workers
from fmnist_optuna.study.storage import Storage

SAME_PROCESS_SECONDS = 2.0  # start times of one process as different clocks round them


@dataclass(frozen=True)
class Process:
    """A process, told apart from a later one with the same pid."""

    host_id: str
    pid: int
    started: float  # seconds since 1970

    @classmethod
    def current(cls) -> "Process":
        """The calling process."""
        return cls(host_identity(), os.getpid(), psutil.Process().create_time())

    def is_dead(self) -> bool:
        """Whether it is gone for certain; a process of another host never is."""
        if self.host_id != host_identity():
            return False
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > SAME_PROCESS_SECONDS:
                return True
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


@functools.cache
def host_identity() -> str:
    """The boot of this host and, in a container, its process namespace: where a pid means something."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{boot.read_text().strip()}/{namespace.readlink()}"
    return f"{socket.gethostname()}/{psutil.boot_time():.0f}"


class Presence:
    """The workers of one study, as the `workers` table has them."""

    def __init__(self, storage: Storage, study_id: int) -> None:
        self.storage = storage
        self.study_id = study_id

    @property
    def patience(self) -> Patience:
        """How long its operations wait for the database."""
        return self.storage.patience

    @retrying
    def register(self, worker_id: str, fresh_seconds: float) -> None:
        """Enter this process as a worker.

        Args:
            fresh_seconds: A worker seen within this time is taken to be alive.

        Raises:
            StorageError: The storage is an SQLite file and a live worker of another host uses it.
        """
        process = Process.current()
        with self.storage.write() as connection:
            if self.storage.is_sqlite:
                boot = process.host_id.split("/")[0]
                recent = workers.c.last_seen > self.storage.now - fresh_seconds
                for host, host_id in connection.execute(select(workers.c.host, workers.c.host_id).where(recent)):
                    if host_id.split("/")[0] != boot:
                        raise StorageError(
                            f"SQLite must be used from one host, but a worker on {host} uses {self.storage.name}; "
                            "share a study between machines through Postgres."
                        )
            connection.execute(delete(workers).where(workers.c.worker_id == worker_id))
            connection.execute(
                insert(workers).values(
                    worker_id=worker_id,
                    study_id=self.study_id,
                    host=socket.gethostname(),
                    host_id=process.host_id,
                    pid=process.pid,
                    pid_started=process.started,
                    version=__version__,
                    started=self.storage.now,
                    last_seen=self.storage.now,
                )
            )

    @retrying
    def touch(self, worker_id: str) -> None:
        """Say that a worker is still there."""
        with self.storage.write() as connection:
            connection.execute(
                update(workers).where(workers.c.worker_id == worker_id).values(last_seen=self.storage.now)
            )

    @retrying
    def leave(self, worker_id: str) -> None:
        """Take a worker that ended off the list."""
        with self.storage.write() as connection:
            connection.execute(delete(workers).where(workers.c.worker_id == worker_id))

    @retrying
    def processes(self) -> dict[str, Process]:
        """Process of every worker on the list, by worker id."""
        query = select(workers.c.worker_id, workers.c.host_id, workers.c.pid, workers.c.pid_started).where(
            workers.c.study_id == self.study_id
        )
        with self.storage.read() as connection:
            return {name: Process(host, pid, started) for name, host, pid, started in connection.execute(query)}
