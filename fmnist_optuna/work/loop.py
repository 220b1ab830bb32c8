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
from fmnist_optuna.ledger.records import CellCounts, Claim
from fmnist_optuna.log import log_event
from fmnist_optuna.study.allowed import check_modules
from fmnist_optuna.study.claiming import Claiming
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.attempt import Objective, decide_rung, let_on_ahead, run_attempt
from fmnist_optuna.work.limits import NO_LIMITS, WorkerLimits
from fmnist_optuna.work.order import WorkerOrder

logger = logging.getLogger(__name__)

WAIT_SLICE_SECONDS = 0.1
LEAVE_SLICE_SECONDS = 0.02  # between looks whether this worker was asked to leave: the others wait for it
N_WATCHERS = 8  # so many workers without work look as often as one alone
LONGEST_CROWD = 4.0  # times as long as these waits one behind them, at most: 8 s, and 0.8 s for a rung
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
        """Sleep so long, or until it was asked; a long wait notices that within a hundredth of its length."""
        until, longest = time.monotonic() + seconds, max(LEAVE_SLICE_SECONDS, seconds / 100)
        while not self._is_set and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, longest))


class WorkerEnd(enum.Enum):
    """Why a worker's loop ended."""

    DONE = "done"  # no cell waits or runs
    STOPPED = "stopped"  # the study was stopped or this process was asked to leave
    RECYCLED = "recycled"  # past the memory limit
    MAX_TRIALS = "max-trials"  # it has made as many attempts at cells as it should
    IDLE = "idle"  # for too long there was nothing to claim


def open_session(order: WorkerOrder, device: str | None = None) -> Session:
    """Open the storage and the study as a worker and enter the list of workers.

    Args:
        device: On which it trains.

    Raises:
        UsageError: The study names a module that this worker must not import.
    """
    storage = open_storage(order.storage, is_patient=True)  # an outage at this moment is no reason to give up
    record = find_study(storage, order.study_name)
    check_modules(record, order.allowed_modules)
    session = Session(storage, record, order.worker_id, given_up=order.given_up)
    session.presence.register(order.worker_id, fresh_seconds=storage.timing.lease_seconds, device=device)
    return session


def work(
    session: Session,
    objective: Objective,
    leave: LeaveRequest,
    generation: int,
    limits: WorkerLimits = NO_LIMITS,
    in_memory: Callable[[], Collection[str]] = tuple,
) -> WorkerEnd:
    """Claim cells and run an objective on each, until nothing is left; heal the study while waiting.

    Args:
        in_memory: The cells whose paused trainings this worker has in memory.
    """
    end, claiming, n_trials = WorkerEnd.STOPPED, Claiming(session), 0
    began = worked = time.monotonic()
    while not leave.is_set():
        asked = time.perf_counter()
        claim = claiming.claim(generation, in_memory())
        if claim is not None:
            _log_claim(claim, time.perf_counter() - asked)
            run_attempt(session, claim, objective, leave.is_set, generation)
            session.presence.touch(session.name)
            n_trials, worked = n_trials + 1, time.monotonic()
            reached = _find_reached(limits, n_trials)
        elif session.ledger.generation() != generation:
            reached = WorkerEnd.STOPPED
        else:
            reached = _look_around(session, limits, time.monotonic() - worked, leave)
        if reached is not None:
            end = reached
            break
    session.presence.leave(session.name)
    if end is WorkerEnd.DONE:
        _tidy(session, time.monotonic() - began)
    return end


def _find_reached(limits: WorkerLimits, n_trials: int) -> WorkerEnd | None:
    """Which limit a worker has come to whose attempt at a cell has just ended; None if it goes on."""
    if limits.memory_bytes is not None and psutil.Process().memory_info().rss > limits.memory_bytes:
        return WorkerEnd.RECYCLED
    return WorkerEnd.MAX_TRIALS if n_trials == limits.max_trials else None


def _look_around(session: Session, limits: WorkerLimits, idle_seconds: float, leave: LeaveRequest) -> WorkerEnd | None:
    """Where nothing could be claimed: whether the worker is done or has waited too long; None after another wait.

    Args:
        idle_seconds: Since there was something to claim last.
    """
    counts = session.history.counts(session.given_up, only_unfinished=True)
    if counts.is_over:
        return WorkerEnd.DONE if session.recovery.sweep() == 0 else None
    if limits.idle_seconds is not None and idle_seconds > limits.idle_seconds:
        return WorkerEnd.IDLE
    _look_for_work(session, counts, leave)
    return None


def _tidy(session: Session, seconds: float) -> None:
    """Leave nothing behind of a study in which nothing is left to do."""
    if session.history.is_over():  # a cell that was given up may go on in another run
        session.checkpoints.remove_all()  # those of the dead
    log_event(logger, logging.INFO, "worker_done", seconds=round(seconds, 1))


def _log_claim(claim: Claim, seconds: float) -> None:
    how: dict[str, object] = {"attempt": claim.attempt, "params": claim.params, "rung": claim.rung}
    ids: dict[str, object] = {"cell": claim.cell_id, "trial": claim.trial_number}
    log_event(logger, logging.DEBUG, "cell_claimed", **ids, **how, seconds=round(seconds, 6))


def _look_for_work(session: Session, counts: CellCounts, leave: LeaveRequest) -> None:
    """Where nothing could be claimed: decide a rung, let cells on ahead, take cells back from the dead, or wait."""
    if counts.waiting > 0:  # another one is just claiming it, or has just given it back
        leave.wait(WAIT_SLICE_SECONDS)
        return
    is_found = counts.parked > 0 and (decide_rung(session) or let_on_ahead(session))
    place, place_here = (0, 0) if is_found else session.presence.place_in_crowd(session.name)
    looks_for_dead = place < N_WATCHERS or place_here == 0
    if not is_found and not (looks_for_dead and session.recovery.requeue_dead()):
        session.presence.touch(session.name)
        _wait(session, counts, leave, crowd(place))


def crowd(place: int) -> float:
    """How many times as long as alone a worker waits where so many others without work come before it.

    All of them see the same. Of two hundred that waited 2 s each for the last trial the looks, some seven statements
    each and mostly on a new connection, took ten times as much of the processors as the trials (2026-11).

    The first eight wait no longer. They look for the dead, which reads every running cell and every worker, and so does
    the first one of each host, as a process that has ended is known on its own host alone. Who sees that a lease has
    expired must have looked often, over two renewals at least: it is seen at the next look of one of the eight, 2 s, or
    two renewals after it became one. Eight, as some die or find work; were all of them killed at once, others would be
    first a lease later.
    """
    return min(max(1.0, (place + 1) / N_WATCHERS), LONGEST_CROWD)


def _wait(session: Session, counts: CellCounts, leave: LeaveRequest, times: float) -> None:
    """Wait for the next claim; where cells are parked no longer than until there may be work, by reads alone."""
    until = time.monotonic() + session.storage.timing.poll_seconds * times
    seconds = RUNG_POLL_SECONDS * times if counts.parked > 0 else math.inf
    while (left := until - time.monotonic()) > 0:
        leave.wait(min(left, seconds))
        if leave.is_set() or _may_have_work(session):
            return


def _may_have_work(session: Session) -> bool:
    """Whether a cell waits, or does so now as its rung was decided, or nothing is left at all."""
    counts = session.history.counts(session.given_up, only_unfinished=True)
    return counts.waiting > 0 or counts.is_over or decide_rung(session) or let_on_ahead(session)
