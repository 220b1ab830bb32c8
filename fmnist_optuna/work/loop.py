"""The loop of a worker: claims cells and runs an objective on each until nothing is left; heals the study meanwhile.

Knows no Keras: the objective does.
"""

import enum
import logging
import math
import time
from collections.abc import Callable, Collection

import psutil

from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.records import CellCounts
from fmnist_optuna.log import log_event
from fmnist_optuna.study.claiming import Claiming
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.attempt import Objective, decide_rung, let_on_ahead, run_attempt
from fmnist_optuna.work.order import WorkerOrder

logger = logging.getLogger(__name__)

WAIT_SLICE_SECONDS = 0.1
LEAVE_SLICE_SECONDS = 0.02  # between looks whether this worker was asked to leave: the others wait for it
RUNG_POLL_SECONDS = 0.2  # who waits for the last cell of a rung; a decision frees work for all at once


class LeaveRequest:
    """A request to leave that a signal handler may set: `threading.Event` could deadlock with its own `wait` there."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Ask."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether it was asked."""
        return self._is_set

    def wait(self, seconds: float) -> None:
        """Sleep so long, or until it was asked."""
        until = time.monotonic() + seconds
        while not self._is_set and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LEAVE_SLICE_SECONDS))


class WorkerEnd(enum.Enum):
    """Why a worker's loop ended."""

    DONE = "done"  # no cell waits or runs
    STOPPED = "stopped"  # the study was stopped or this process was asked to leave
    RECYCLED = "recycled"  # past the memory limit


def open_session(order: WorkerOrder) -> Session:
    """Open the storage and the study as a worker and enter the list of workers."""
    storage = open_storage(order.storage, is_patient=True)  # an outage at this moment is no reason to give up
    record = find_study(storage, order.study_name)
    session = Session(storage, record, order.worker_id, given_up=order.given_up)
    session.presence.register(order.worker_id, fresh_seconds=storage.timing.lease_seconds)
    return session


def work(
    session: Session,
    objective: Objective,
    leave: LeaveRequest,
    generation: int,
    memory_limit_bytes: int | None = None,
    in_memory: Callable[[], Collection[str]] = tuple,
) -> WorkerEnd:
    """Claim cells and run an objective on each, until nothing is left; heal the study while waiting.

    Args:
        in_memory: The cells whose paused trainings this worker has in memory.
    """
    ledger, name, claiming = session.ledger, session.name, Claiming(session)
    began = time.monotonic()
    while not leave.is_set():
        claim = claiming.claim(generation, in_memory())
        if claim is not None:
            run_attempt(session, claim, objective, leave.is_set, generation)
            session.presence.touch(name)
            if memory_limit_bytes is not None and psutil.Process().memory_info().rss > memory_limit_bytes:
                session.presence.leave(name)
                return WorkerEnd.RECYCLED
            continue
        if ledger.generation() != generation:
            break
        counts = session.history.counts(session.given_up)
        if counts.is_over:
            if session.recovery.sweep() == 0:
                session.presence.leave(name)
                if session.history.is_over():  # a cell that was given up may go on in another run
                    session.checkpoints.remove_all()  # those of the dead
                log_event(logger, logging.INFO, "worker_done", seconds=round(time.monotonic() - began, 1))
                return WorkerEnd.DONE
        else:
            _look_for_work(session, counts, leave)
    session.presence.leave(name)
    return WorkerEnd.STOPPED


def _look_for_work(session: Session, counts: CellCounts, leave: LeaveRequest) -> None:
    """Where nothing could be claimed: decide a rung, let cells on ahead, take cells back from the dead, or wait."""
    if counts.waiting > 0:  # another one is just claiming it, or has just given it back
        leave.wait(WAIT_SLICE_SECONDS)
        return
    is_found = counts.parked > 0 and (decide_rung(session) or let_on_ahead(session))
    if not is_found and not session.recovery.requeue_dead():
        session.presence.touch(session.name)
        _wait(session, counts, leave)


def _wait(session: Session, counts: CellCounts, leave: LeaveRequest) -> None:
    """Wait for the next claim; where cells are parked no longer than until there may be work, by reads alone."""
    until = time.monotonic() + session.storage.timing.poll_seconds
    seconds = RUNG_POLL_SECONDS if counts.parked > 0 else math.inf
    while (left := until - time.monotonic()) > 0:
        leave.wait(min(left, seconds))
        if leave.is_set() or _may_have_work(session):
            return


def _may_have_work(session: Session) -> bool:
    """Whether a cell waits, or does so now as its rung was decided, or nothing is left at all."""
    counts = session.history.counts(session.given_up)
    return counts.waiting > 0 or counts.is_over or decide_rung(session) or let_on_ahead(session)
