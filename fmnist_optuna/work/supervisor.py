"""N workers: started, watched, replaced when they die, held to their limits, and stopped.

The supervisor trains nothing and imports no TensorFlow. What starts its workers, and where, it need not know.
"""

import itertools
import logging
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fmnist_optuna.errors import (
    DataError,
    FmnistOptunaError,
    MismatchError,
    StorageError,
    UsageError,
    WorkerFailedError,
)
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.log import log_event
from fmnist_optuna.statuses import Status
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import format_bytes
from fmnist_optuna.work.launched import Launch, LaunchedWorker, log_death, quote_log
from fmnist_optuna.work.limits import Limits
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.training_times import TrainingTimes

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05  # between looks at the processes
LOOK_SECONDS = 0.5  # between looks at the cells, and at time and memory
IN_ORDER = (Status.DONE, Status.HANDED_BACK)  # how a worker ends that holds nothing any more
GIVE_UP_DEATHS = 6  # of one cell's workers, without any cell finished in between
GRACE_SECONDS = 10.0  # for a worker to end once it holds no cell
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 10.0
FATAL_STATUS: dict[int, type[FmnistOptunaError]] = {
    error.exit_status: error for error in (UsageError, DataError, StorageError, MismatchError)
}


@dataclass
class Supervisor:
    """Keeps `n_workers` workers on one study.

    Args:
        session: The supervisor's own view of the study.
        order: What every worker gets, its name, slot and log aside.
        n_workers: How many at once, >= 1.
        limits: Of each attempt.
        log_folder: One log file a worker.
        launch: Starts a worker.
    """

    session: Session
    order: WorkerOrder
    n_workers: int
    limits: Limits
    log_folder: Path
    launch: Launch
    _workers: list[LaunchedWorker] = field(default_factory=list)
    _serial: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    _n_crashes: int = 0  # in a row, without a cell finished in between
    _deaths: Counter[str] = field(default_factory=Counter)  # of workers by the cell they held, since then
    _progress: int = 0
    _next_start: float = 0.0
    _next_look: float = 0.0
    _next_poll: float = 0.0
    _times: TrainingTimes = field(default_factory=TrainingTimes)
    given_up: dict[str, int] = field(default_factory=dict)  # deaths of their workers, by cell_id

    def _start_worker(self, slot: int) -> None:
        name = f"{socket.gethostname()}-{self._run_id}-{next(self._serial)}"
        log_file = self.log_folder / f"{name}.log"
        order = replace(self.order, worker_id=name, slot=slot, log_file=log_file)
        try:
            worker = self.launch(order)
        except WorkerFailedError as error:
            log_event(logger, logging.WARNING, "worker_not_started", worker=name, error=str(error))
            self._back_off(log_file)
            return
        self._workers.append(worker)
        log_event(logger, logging.INFO, "worker_started", worker=name, pid=worker.pid)

    def tick(self) -> bool:
        """Look once: reap, replace, enforce limits, heal; returns whether anything is left to wait for.

        Raises:
            WorkerFailedError: Workers die again and again without holding a cell.
            StorageError, DataError, UsageError: A worker found that it cannot work, and the others will find the same;
                MismatchError likewise, where the data here is not that of the study.
        """
        has_ended = self._reap()
        now = time.monotonic()
        if now < self._next_look and not has_ended:
            return True
        self._next_look = now + LOOK_SECONDS
        self._look()
        if now >= self._next_poll:
            self._next_poll = now + self.session.storage.timing.poll_seconds
            self._heal()
        self._enforce_limits()  # after healing, which would take a worker killed just now for one that was lost
        counts = self.session.history.counts(self.given_up)
        n_climbed = self.session.rungs.n_climbed() if self.session.ladder else 0
        self._note_progress(counts.done + counts.failed + n_climbed)
        if counts.is_over:
            if self.session.history.is_over():  # a cell that was given up may go on in another run
                self.session.checkpoints.remove_all()
            return self.session.recovery.sweep() > 0
        if self.session.ledger.generation() != self.order.generation:
            return bool(self._workers)
        if now >= self._next_start and self._may_start():
            has_to_decide = counts.parked > 0 and not self._workers  # whoever looks for work decides the rung
            self._fill_slots(n_waiting=counts.waiting or int(has_to_decide))
        return True

    def _fill_slots(self, n_waiting: int) -> None:
        """Start workers where there are none, but no more than cells wait."""
        busy = {worker.order.slot for worker in self._workers}
        for slot in sorted(set(range(self.n_workers)) - busy)[:n_waiting]:
            self._start_worker(slot)

    def _look(self) -> None:
        for worker in self._workers:
            worker.look()

    def _heal(self) -> None:
        """Requeue cells of dead holders; a worker of ours that lost its cell to its own silence hangs and must go."""
        holders = self.session.recovery.requeue_dead({worker.order.worker_id for worker in self._workers})
        for worker in self._workers:
            if worker.order.worker_id in holders:
                order = worker.order
                log_event(logger, logging.WARNING, "worker_hangs", worker=order.worker_id, log=order.log_file)
                worker.signal(signal.SIGKILL)

    def _note_progress(self, progress: int) -> None:
        """Forget the deaths so far once a cell is finished, or has come to a rung.

        Args:
            progress: Grows whenever that happens.
        """
        if progress > self._progress:
            self._progress = progress
            self._n_crashes = 0
            self._deaths.clear()

    def _reap(self) -> bool:
        ended = self._take_ended()
        for worker in ended:
            self._handle_death(worker, worker.exit_code)
        return bool(ended)

    def _take_ended(self) -> list[LaunchedWorker]:
        """Take the workers off the list whose process has ended."""
        ended = [worker for worker in self._workers if not worker.is_alive]
        for worker in ended:
            self._workers.remove(worker)
            worker.reap()
        return ended

    def _handle_death(self, worker: LaunchedWorker, exit_code: int | None) -> None:
        """Give back what a worker held whose process is seen to have ended, and say how it ended."""
        name, log = worker.order.worker_id, worker.order.log_file
        if exit_code in IN_ORDER and worker.killed_for is None and not self._is_at_work(worker):
            return  # it gave back what it held
        loss = log_death(worker, exit_code)
        held = self.session.recovery.let_go(name, loss)
        if exit_code in FATAL_STATUS and (not held or loss.reason == "stopped"):
            raise FATAL_STATUS[exit_code](f"worker {name} cannot work: {quote_log(log)}")
        if held:
            self._deaths.update(cell_id for cell_id in held if cell_id not in self.given_up)
            self._back_off_cells(held)
        else:
            self._back_off(log)

    def _back_off_cells(self, held: list[str]) -> None:
        """Wait before a cell is tried once more; whatever waits was tried since, as it went behind that."""
        n_deaths = max(self._deaths[cell_id] for cell_id in held)
        if n_deaths > 1:
            self._next_start = time.monotonic() + _delay(n_deaths)

    def _may_start(self) -> bool:
        """Whether workers may be started: not while one cell kills them again and again beside others.

        These may be the cause, where the memory is enough for one of them alone. Once no other cell is trained any
        more, the cell is given up: left alone in this run. It has gone behind all others each time, so whatever waits
        has been tried as well.
        """
        hopeless = {cell_id: n_deaths for cell_id, n_deaths in self._deaths.items() if n_deaths >= GIVE_UP_DEATHS}
        if not hopeless:
            return True
        ours = {worker.order.worker_id for worker in self._workers}
        held = self.session.ledger.held_cells()
        if any(cell.worker in ours and cell.cell_id not in hopeless for cell in held):
            return False
        for cell_id, n_deaths in hopeless.items():
            del self._deaths[cell_id]
            log_event(logger, logging.WARNING, "cell_given_up", cell=cell_id, deaths=n_deaths)
        self.given_up |= hopeless
        self.order = replace(self.order, given_up=frozenset(self.given_up))
        self.stop()  # those that wait would take it; others come in their place, with the new order
        return True

    def _back_off(self, log_file: Path | None) -> None:
        self._n_crashes += 1
        if self._n_crashes > 3 * self.n_workers + 3:
            raise WorkerFailedError(
                f"Workers must finish cells, but {self._n_crashes} died in a row; the last one's log "
                f"{log_file} ends: {quote_log(log_file)}"
            )
        if self._n_crashes > 1:
            self._next_start = time.monotonic() + _delay(self._n_crashes)

    def _enforce_limits(self) -> None:
        seconds = self.limits.trial_seconds
        overlong = set() if seconds is None else self._times.find_overlong(self.session, seconds)
        for worker in self._workers:
            excess = self._excess(worker, is_overlong=worker.order.worker_id in overlong)
            if excess is not None and worker.killed_for is None:
                worker.killed_for = excess
                worker.signal(signal.SIGKILL)

    def _excess(self, worker: LaunchedWorker, *, is_overlong: bool) -> str | None:
        n_bytes = self.limits.memory_bytes
        if is_overlong:
            return f"trial time limit of {self.limits.trial_seconds:g} s exceeded"
        if n_bytes is not None:
            size = worker.resident_bytes()
            if size is not None and size > n_bytes and self._is_at_work(worker):
                return f"memory limit of {format_bytes(n_bytes)} exceeded with {format_bytes(size)}"
        return None

    def _is_at_work(self, worker: LaunchedWorker) -> bool:
        """Whether the worker is within an attempt; between trials it replaces itself."""
        return bool(self.session.ledger.held_cells(worker.order.worker_id))

    def stop(self, *, at_once: bool = False) -> None:
        """Ask the workers to finish their epoch and give their cells back, or kill them."""
        for worker in self._workers:
            worker.signal(signal.SIGKILL if at_once else signal.SIGTERM)

    def abandon(self) -> None:
        """Kill the workers and leave their cells as they are, because the storage is away; the next run heals them."""
        self.stop(at_once=True)
        while any(worker.is_alive for worker in self._workers):
            time.sleep(0.02)

    def wait(self, is_impatient: Callable[[], bool] = lambda: False) -> None:
        """Wait until every worker has ended and its cell is given back; `is_impatient` turns to killing them."""
        next_look, free_since = 0.0, time.monotonic()
        while self._workers:
            if is_impatient():
                self.stop(at_once=True)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_SECONDS
                self._look()
                self._heal()
                free_since = self._kill_idle(free_since)
            for worker in self._take_ended():
                self.session.recovery.let_go(worker.order.worker_id, TrialAttributes(reason="stopped"))
            time.sleep(0.02)

    def _kill_idle(self, free_since: float) -> float:
        """Kill workers that hold no cell and yet do not end; returns since when none of ours holds one."""
        holders = {cell.worker for cell in self.session.ledger.held_cells()}
        if any(worker.order.worker_id in holders for worker in self._workers):
            return time.monotonic()
        if time.monotonic() - free_since > GRACE_SECONDS:
            self.stop(at_once=True)
        return free_since


def _delay(n_times: int) -> float:
    """Seconds to wait before something is tried again that has gone wrong so many times in a row, >= 2."""
    return float(min(FIRST_BACKOFF_SECONDS * 2 ** (n_times - 2), LONGEST_BACKOFF_SECONDS))
