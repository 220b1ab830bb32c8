"""`worker`: one process that trains, for whoever starts it."""

import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import (
    Common,
    DataDir,
    MemoryLimit,
    StudyName,
    loading_tensorflow,
    open_storage_of,
    parse_size,
)
from fmnist_optuna.cli.running import EXIT_FAILED_CELLS
from fmnist_optuna.cli.signals import ENDING, handle_signals
from fmnist_optuna.cli.streams import say
from fmnist_optuna.errors import FmnistOptunaError, InterruptedBySignalError, NotFoundError, StoppedError
from fmnist_optuna.settings import HASH_SEED, prepare_training_environment, set_hash_seed

if TYPE_CHECKING:
    from fmnist_optuna.ledger.storage import Storage
    from fmnist_optuna.study.records import StudyRecord
    from fmnist_optuna.work.loop import LeaveRequest
    from fmnist_optuna.work.order import WorkerOrder

IsRestarted = Annotated[
    bool,
    typer.Option(
        "--restarted-on-failure",
        help="For what starts failed workers again: end with 0 where that is in vain (failed cells, stop, delete).",
    ),
]

group = make_group()


def begin_with_hash_seed() -> None:
    """Begin this process anew if it hashes strings by chance: a model that is built from a set would be another.

    Python reads the variable at its start alone. The workers of `run` are forked from a server that starts with it.
    """
    if not os.environ.get(HASH_SEED):
        set_hash_seed()
        os.execv(sys.executable, [sys.executable, "-P", "-m", "fmnist_optuna", *sys.argv[1:]])


@command(group, "worker", logging.INFO)
def worker(
    common: Common,
    study: StudyName = None,
    data_dir: DataDir = None,
    memory_limit: MemoryLimit = None,
    is_restarted: IsRestarted = False,
) -> None:
    """Be one worker of a study until nothing is left; for clusters and other launchers.

    The first Ctrl-C or SIGTERM finishes the epoch and gives the cell back, the second ends at once.
    """
    # These load TensorFlow, Optuna, SQLAlchemy and multiprocessing.
    from fmnist_optuna.artifacts.bucket import check_place
    from fmnist_optuna.processes.temporary import use_for_all_temporary_files
    from fmnist_optuna.study.studies import find_study

    prepare_training_environment()
    temporary = use_for_all_temporary_files()
    storage = open_storage_of(common)
    record = find_study(storage, study)
    check_place(record.place)
    leave, caught = _leave_on_signal(temporary)
    with loading_tensorflow(common):
        from fmnist_optuna.work.loop import WorkerEnd
        from fmnist_optuna.work.worker import run_worker
    end = run_worker(_make_order(common, record, data_dir, memory_limit), leave)
    _say_how_it_ended(storage, record, caught, is_for_good=is_restarted and end is not WorkerEnd.RECYCLED)


def _make_order(
    common: Common, record: "StudyRecord", data_dir: Path | None, memory_limit: str | None
) -> "WorkerOrder":
    """What this process, as one worker of a study, is to do."""
    # These load hashlib, socket and uuid.
    import socket
    import uuid

    from fmnist_optuna.work.order import WorkerOrder

    return WorkerOrder(
        storage=common.storage,
        study_name=record.name,
        worker_id=f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}-1",
        generation=record.generation,
        data_dir=data_dir,
        memory_limit_bytes=parse_size(memory_limit, "--memory-limit"),
        log_format=common.log_format,
    )


def _say_how_it_ended(storage: "Storage", record: "StudyRecord", caught: list[int], is_for_good: bool) -> None:
    """Say what is left of the study once its worker has ended.

    Args:
        caught: Numbers of the signals that this process was sent.
        is_for_good: Whether only a signal is an error: whatever else there is, another start would not change it.

    Raises:
        NotFoundError: The study was deleted meanwhile.
        InterruptedBySignalError: A signal ended the worker.
        StoppedError: The worker was told to leave.
    """
    # These load SQLAlchemy.
    from fmnist_optuna.ledger.progress import History
    from fmnist_optuna.study.studies import find_study_or_none

    if find_study_or_none(storage, record.name) is None:
        _end_with(NotFoundError(f"study {record.name}: was deleted meanwhile."), is_for_good)
        return
    counts = History(storage, record.study_id).counts()
    left = f"study {record.name}: {counts.done} of {counts.total} cells are done."
    if caught:
        raise InterruptedBySignalError(f"Stopped by {signal.Signals(caught[0]).name}. {left}", caught[0])
    if not counts.is_over:
        _end_with(StoppedError(f"This worker left before all cells were done. {left}"), is_for_good)
        return
    say(f"{left} Next: fmnist-optuna run, which tests the winner, or fmnist-optuna verify {record.name}")
    if counts.failed and not is_for_good:
        sys.exit(EXIT_FAILED_CELLS)


def _end_with(error: FmnistOptunaError, is_for_good: bool) -> None:
    """Raise an error, or only say it."""
    if not is_for_good:
        raise error
    say(str(error), logging.WARNING)


def _leave_on_signal(temporary: Path) -> tuple["LeaveRequest", list[int]]:
    """Let the first signal ask the worker to leave, and the second end this process at once.

    Args:
        temporary: The folder of this process's temporary files, which is removed then.

    Returns:
        The request that the worker heeds, and a list that gets the number of each signal.
    """
    from fmnist_optuna.work.loop import LeaveRequest  # loads Optuna and SQLAlchemy

    leave = LeaveRequest()
    caught: list[int] = []

    def catch(signum: int, _frame: object) -> None:
        caught.append(signum)
        leave.set()
        if len(caught) > 1:
            shutil.rmtree(temporary, ignore_errors=True)
            os._exit(128 + signum)

    handle_signals(catch, signal.SIGINT, *ENDING)
    return leave, caught
