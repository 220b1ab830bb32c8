"""One worker with Keras: its process, its data, its loop."""

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable

from fmnist_optuna.artifacts.bucket import check_place
from fmnist_optuna.artifacts.place import Place
from fmnist_optuna.data.sharing import FOLDS, arrays_of, map_arrays
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import ArtifactsAwayError, ArtifactsError, FmnistOptunaError, UsageError
from fmnist_optuna.events.file import recording
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.log import bound_fields, configure_logging, log_event
from fmnist_optuna.processes.output import redirect_output
from fmnist_optuna.processes.parent import watch_parent
from fmnist_optuna.settings import choose_gpu
from fmnist_optuna.statuses import Status
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.session import Session
from fmnist_optuna.training.device import describe_device
from fmnist_optuna.training.engine import use_threads
from fmnist_optuna.training.gpu_memory import limit_gpu_memory
from fmnist_optuna.training.resident_data import FoldedData, ResidentData
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, open_session, work
from fmnist_optuna.work.objective import KerasObjective
from fmnist_optuna.work.order import WORKER_FAILED, WorkerOrder
from fmnist_optuna.work.preparation import join_with_code
from fmnist_optuna.work.splits import load_splits_of

logger = logging.getLogger(__name__)


def run_worker_process(order: WorkerOrder) -> None:
    """Body of a supervised worker process: log file, signals, parent watch, loop, exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor speaks for it
    leave = LeaveRequest()
    signal.signal(signal.SIGTERM, lambda *_: leave.set())
    if order.log_file is not None:
        order.log_file.parent.mkdir(parents=True, exist_ok=True)
        redirect_output(order.log_file, mode=0o644)
    configure_logging(order.log_format, order.log_level)
    watch_parent(leave.set)
    with recording(order.events_file):
        sys.exit(_exit_status(order, leave))


def _exit_status(order: WorkerOrder, leave: LeaveRequest) -> int:
    """Work, and say what broke it: that too is a record."""
    ids: dict[str, object] = {"worker": order.worker_id, "study": order.study_name}
    try:
        end = run_worker(order, leave)
    except FmnistOptunaError as error:
        log_event(logger, logging.ERROR, WORKER_FAILED, **ids, error=str(error))
        return error.exit_status
    except Exception as error:
        log_event(logger, logging.ERROR, WORKER_FAILED, error, **ids, error=describe_error(error))
        return Status.FAILED
    return Status.HANDED_BACK if end is WorkerEnd.RECYCLED else Status.DONE


def run_worker(
    order: WorkerOrder, leave: LeaveRequest, on_list: Callable[[Session], object] = lambda _: None
) -> WorkerEnd:
    """Work on a study with Keras until nothing is left.

    Args:
        leave: Set from outside: the epoch is finished, the cell given back, and the worker leaves.
        on_list: Called once the worker is on the list of workers; from there on it may hold a cell.

    Raises:
        UsageError: The study names a module that this worker must not import, or there is no GPU to limit.
        JoinRefusedError: The user's code here is not that of the study.
        FmnistOptunaError: The study, the data or the storage is not there.
    """
    with bound_fields(worker=order.worker_id, study=order.study_name):
        choose_gpu(order.slot)
        if order.gpu_memory_bytes is not None:
            limit_gpu_memory(order.gpu_memory_bytes)
        session = open_session(order, describe_device())
        if order.checks_bucket:
            _try_bucket(session.storage, session.record.place)
        on_list(session)
        use_threads(session.record.spec.training.threads)
        gc.freeze()  # a collection after each trial need not walk what outlives it: 0.3 s a trial (measured 2026-11)
        session = join_with_code(session, order.code)
        data = load_resident(order, session.record)
        if (soft_labels := session.soft_labels) is not None and isinstance(data, ResidentData):
            data = data.with_soft_labels(soft_labels.load())
        objective = KerasObjective(session, data, order.limits.memory_bytes)
        end = work(session, objective, leave, order.generation, order.limits, objective.in_memory)
        objective.let_go()
        return end


@retrying
def _try_bucket(_storage: Storage, place: Place | None) -> None:
    """Try the bucket from this machine, before anything is trained whose weights it would not take.

    Raises:
        ArtifactsError: It cannot be used from here, or does not answer within the storage's patience.
    """
    try:
        check_place(place)
    except ArtifactsAwayError:
        raise
    except (ArtifactsError, UsageError) as error:
        rule = f"Every node must be able to use the study's bucket, but {socket.gethostname()} is not"
        raise ArtifactsError(f"{rule}: {error}") from error


def load_resident(order: WorkerOrder, record: StudyRecord) -> ResidentData | FoldedData:
    """The images that the supervisor shares, whose fingerprint it compared; else those on disk, compared here."""
    arrays = None if order.shared_data is None else map_arrays(order.shared_data)
    if arrays is None:
        splits = load_splits_of(record, order.data_dir)
        arrays = arrays_of(splits)
    return FoldedData(record.info, arrays) if FOLDS in arrays else ResidentData.from_arrays(record.info, **arrays)
