"""Which workers a study has, where they run, and whether one of this host is dead for certain."""

import functools
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import case, delete, exists, func, insert, literal, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from fmnist_optuna import __version__
from fmnist_optuna.errors import NotFoundError, StorageError
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.part import StudyPart
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage, insert_or_ignore
from fmnist_optuna.ledger.tables import StoredRow, cells, studies, workers

SAME_PROCESS_SECONDS = 2.0  # start times of one process as different clocks round them; not on Linux


@dataclass(frozen=True)
class Process:
    """A process, told apart from a later one with the same pid."""

    host_id: str
    pid: int
    started: float  # as `_look` has it

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process of this host with this pid, or None when there is none."""
        found = _look(pid)
        return None if found is None else cls(host_identity(), pid, found[0])

    @classmethod
    def current(cls) -> "Process":
        """The calling process."""
        return cls(host_identity(), os.getpid(), (_look(os.getpid()) or (0.0, False))[0])

    def is_dead(self) -> bool:
        """Whether it is gone for certain; a process of another host never is."""
        if self.host_id != host_identity():
            return False
        found = _look(self.pid)
        if found is None:
            return not _is_hidden(self.pid)
        started, is_zombie = found
        tolerance = 0.0 if sys.platform == "linux" else SAME_PROCESS_SECONDS
        return is_zombie or abs(started - self.started) > tolerance


def _look(pid: int) -> tuple[float, bool] | None:
    """When a process started and whether it is a zombie; None when there is no such process to be seen.

    On Linux in clock ticks since the boot, which no step of the clock changes, as a time of day would; elsewhere in
    seconds since 1970.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None
        return float(fields[19]), fields[0] == "Z"  # fields 22 and 3 of proc_pid_stat(5)
    try:
        process = psutil.Process(pid)
        return float(process.create_time()), bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return None


def _is_hidden(pid: int) -> bool:
    """Whether a process that cannot be seen is there: /proc may hide those of other users (`hidepid` in proc(5))."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False  # one of this user, begun a moment ago


@functools.cache
def host_identity() -> str:
    """The boot of this host and, in a container, its process namespace: where a pid means something."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{boot.read_text().strip()}/{namespace.readlink()}"
    return f"{socket.gethostname()}/{psutil.boot_time():.0f}"


def machine_identity() -> str:
    """The boot of this host: what its processes have in common, whatever container they are in."""
    return _boot(host_identity())


def _boot(host_id: str) -> str:
    return host_id.split("/")[0]


class Presence(StudyPart):
    """The workers of one study, as the `workers` table has them."""

    def __init__(self, storage: Storage, study_id: int) -> None:
        super().__init__(storage, study_id)
        self._entered: dict[str, dict[str, object]] = {}  # the rows of those that entered here and have not left

    @retrying
    def register(self, worker_id: str, fresh_seconds: float, device: str | None = None) -> None:
        """Enter this process as a worker.

        Args:
            fresh_seconds: A worker seen within this time is taken to be alive.
            device: On which it trains; None where nobody has asked.

        Raises:
            StorageError: The storage is an SQLite file and a live worker of another host uses it.
            NotFoundError: The study was deleted.
        """
        process = Process.current()
        with self.storage.write() as connection:
            is_fresh = (workers.c.last_seen > self.storage.now - fresh_seconds).label("is_fresh")
            for row in connection.execute(select(workers, is_fresh)).all():
                other = Process(row.host_id, row.pid, row.pid_started)
                is_elsewhere = row.host != socket.gethostname() and _boot(row.host_id) != _boot(process.host_id)
                if row.is_fresh and is_elsewhere and self.storage.is_sqlite:
                    raise StorageError(
                        f"SQLite must be used from one host, but a worker on {row.host} uses {self.storage.name}; "
                        "share a study between machines through Postgres."
                    )
                is_gone = not row.is_fresh or other.is_dead()  # of an earlier run that could not say that it ended
                if is_gone and not _holds_a_cell(connection, row):
                    connection.execute(delete(workers).where(workers.c.worker_id == row.worker_id))
            connection.execute(delete(workers).where(workers.c.worker_id == worker_id))
            entry = self._describe(process, worker_id, device)
            times = {"started": self.storage.now, "last_seen": self.storage.now}
            made = insert(workers).values(**entry, **times).returning(workers.c.started)
            try:
                entry["started"] = connection.execute(made).scalar_one()
            except IntegrityError as error:
                raise NotFoundError("The study of this worker must be there, but was deleted a moment ago.") from error
        self._entered[worker_id] = entry

    def _describe(self, process: Process, worker_id: str, device: str | None) -> dict[str, object]:
        """The row of a worker, but for its times."""
        return {
            "worker_id": worker_id,
            "study_id": self.study_id,
            "host": socket.gethostname(),
            "host_id": process.host_id,
            "pid": process.pid,
            "pid_started": process.started,
            "version": __version__,
            "device": device,
        }

    @retrying
    def touch(self, worker_id: str) -> None:
        """Say that a worker is still there.

        One that was silent for longer than a lease may be off the list: to whoever entered meanwhile it was gone. It
        comes back as it entered.
        """
        seen = update(workers).where(workers.c.worker_id == worker_id).values(last_seen=self.storage.now)
        with self.storage.single() as connection:
            is_listed = connection.execute(seen).rowcount > 0
        entry = self._entered.get(worker_id)
        if not is_listed and entry is not None:
            self._come_back(entry)

    def _come_back(self, entry: dict[str, object]) -> None:
        """Put a worker on the list again, if its study is still there; a deletion is waited for, or waits for this."""
        told = [literal(value, workers.c[name].type) for name, value in entry.items()]
        row = select(*told, self.storage.now).where(studies.c.study_id == self.study_id)
        locked = row.with_for_update(key_share=True, read=True)
        with self.storage.single() as connection:
            connection.execute(insert_or_ignore(self.storage, workers).from_select([*entry, "last_seen"], locked))

    @retrying
    def leave(self, worker_id: str) -> None:
        """Take a worker that ended off the list, for good."""
        self._entered.pop(worker_id, None)  # first: a thread of it may touch meanwhile
        with self.storage.single() as connection:
            connection.execute(delete(workers).where(workers.c.worker_id == worker_id))

    @retrying
    def place_in_crowd(self, worker_id: str) -> tuple[int, int]:
        """How many workers without a cell come before this one by their ids, of those that were seen within a lease.

        Returns:
            Of all, and of those on this host.
        """
        is_fresh = workers.c.last_seen > self.storage.now - self.storage.timing.lease_seconds
        is_busy = exists().where(
            cells.c.study_id == self.study_id, cells.c.worker == workers.c.worker_id, cells.c.state == State.RUNNING
        )
        is_here = case((workers.c.host_id == Process.current().host_id, 1), else_=0)
        before = select(func.count(), func.coalesce(func.sum(is_here), 0)).where(
            workers.c.study_id == self.study_id, workers.c.worker_id < worker_id, is_fresh, ~is_busy
        )
        with self.storage.look() as connection:
            n_all, n_here = connection.execute(before).one()
        return int(n_all), int(n_here)

    @retrying
    def processes(self) -> dict[str, Process]:
        """Process of every worker on the list, by worker id."""
        query = select(workers.c.worker_id, workers.c.host_id, workers.c.pid, workers.c.pid_started).where(
            workers.c.study_id == self.study_id
        )
        with self.storage.look() as connection:
            return {name: Process(host, pid, started) for name, host, pid, started in connection.execute(query)}


def _holds_a_cell(connection: Connection, worker: StoredRow) -> bool:
    """Whether a cell is still held in its name: only its row says that the holder is dead, so that nobody need wait."""
    held = select(cells.c.cell_id).where(
        cells.c.study_id == worker.study_id, cells.c.worker == worker.worker_id, cells.c.state == State.RUNNING
    )
    return connection.execute(held.limit(1)).first() is not None
