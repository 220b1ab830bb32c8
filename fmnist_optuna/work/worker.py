"""One worker: claims cells and trains them until nothing is left, it is told to leave, or it grew too large."""

import enum
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Literal, cast

import psutil

from fmnist_optuna.errors import FmnistOptunaError
from fmnist_optuna.learning.data import load_splits
from fmnist_optuna.learning.training import ResidentData, use_one_thread
from fmnist_optuna.log import configure_logging
from fmnist_optuna.settings import choose_gpu
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.storage import open_storage
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.attempt import Objective, run_attempt
from fmnist_optuna.work.order import EXIT_RECYCLED, WorkerOrder
from fmnist_optuna.work.training_process import watch_parent
from fmnist_optuna.work.trial import KerasObjective

logger = logging.getLogger(__name__)


class WorkerEnd(enum.Enum):
    """Why a worker's loop ended."""

    DONE = "done"  # no cell waits or runs
    STOPPED = "stopped"  # the study was stopped or this process was asked to leave
    RECYCLED = "recycled"  # past the memory limit


def run_worker_process(order: WorkerOrder) -> None:
    """Body of a supervised worker process: log file, signals, parent watch, loop, exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor speaks for it
    leave = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leave.set())
    if order.log_file is not None:
        _redirect_output(order.log_file)
    configure_logging(order.log_format, logging.INFO)
    watch_parent(leave.set)
    choose_gpu(order.slot)
    try:
        end = run_worker(order, leave)
    except FmnistOptunaError as error:
        logger.error("worker_failed %s", error)
        sys.exit(error.exit_status)
    sys.exit(EXIT_RECYCLED if end is WorkerEnd.RECYCLED else 0)


def _redirect_output(log_file: Path) -> None:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def run_worker(order: WorkerOrder, leave: threading.Event) -> WorkerEnd:
    """Work on a study with Keras until nothing is left.

    Args:
        leave: Set from outside: the epoch is finished, the cell given back, and the worker leaves.

    Raises:
        FmnistOptunaError: The study, the data or the storage is not there.
    """
    use_one_thread()
    session = open_session(order)
    spec, record = session.record.spec, session.record
    source = cast(Literal["fashion-mnist", "synthetic"], record.data_source)
    splits = load_splits(source, spec.data.n_validation, spec.data.split_seed, order.data_dir, record.data_fingerprint)
    data = ResidentData.from_arrays(
        splits.train_images, splits.train_labels, splits.validation_images, splits.validation_labels
    )
    del splits
    return work(session, KerasObjective(spec, data), leave, order.generation, order.memory_limit_bytes)


def open_session(order: WorkerOrder) -> Session:
    """Open the storage and the study as a worker and enter the list of workers."""
    storage = open_storage(
        order.storage, patience_seconds=order.patience_seconds, lease_seconds=order.timing.lease_seconds
    )
    session = Session(storage, find_study(storage, order.study_name), order.timing, order.worker_id)
    session.presence.register(order.worker_id, fresh_seconds=order.timing.lease_seconds)
    return session


def work(
    session: Session,
    objective: Objective,
    leave: threading.Event,
    generation: int,
    memory_limit_bytes: int | None = None,
) -> WorkerEnd:
    """Claim cells and run an objective on each, until nothing is left; heal the study while waiting."""
    ledger, name = session.ledger, session.name
    began = time.monotonic()
    while not leave.is_set():
        claim = ledger.claim(name, generation)
        if claim is not None:
            run_attempt(session, claim, objective, leave.is_set, generation)
            session.presence.touch(name)
            if memory_limit_bytes is not None and psutil.Process().memory_info().rss > memory_limit_bytes:
                session.presence.leave(name)
                return WorkerEnd.RECYCLED
            continue
        if ledger.generation() != generation:
            break
        counts = ledger.counts()
        if counts["waiting"] == 0 and counts["running"] == 0:
            if session.recovery.sweep() == 0:
                session.presence.leave(name)
                logger.info("worker_done after %.0f s", time.monotonic() - began)
                return WorkerEnd.DONE
        elif counts["waiting"] == 0 and session.recovery.requeue_dead() == 0:
            session.presence.touch(name)
            leave.wait(session.timing.poll_seconds)
    session.presence.leave(name)
    return WorkerEnd.STOPPED
