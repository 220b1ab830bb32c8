"""`worker`: one process that trains, for whoever starts it."""

import logging
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.departure import Departure
from fmnist_optuna.cli.options import (
    DURATION,
    SIZE,
    Common,
    DataDir,
    Events,
    MemoryLimit,
    StudyName,
    loading_tensorflow,
    open_storage_of,
    parse_duration,
    parse_limit,
    parse_modules,
    parse_size,
)
from fmnist_optuna.cli.streams import say
from fmnist_optuna.cli.watching import LOOPBACK, MetricsHost, MetricsPort, check_metrics_host, watched
from fmnist_optuna.described_errors import describe_failure
from fmnist_optuna.log import log_event
from fmnist_optuna.processes.output import take_prints_for_remarks
from fmnist_optuna.settings import ALLOW_MODULE, HASH_SEED, prepare_training_environment, set_hash_seed
from fmnist_optuna.spec.study_names import command_of
from fmnist_optuna.statuses import Status
from fmnist_optuna.wording import count
from fmnist_optuna.work.limits import WorkerLimits

if TYPE_CHECKING:
    from fmnist_optuna.ledger.storage import Storage
    from fmnist_optuna.study.session import Session
    from fmnist_optuna.work.loop import WorkerEnd
    from fmnist_optuna.work.order import WorkerOrder

logger = logging.getLogger(__name__)

LEAVING = "When to leave"
MaxTrials = Annotated[
    int | None,
    typer.Option("--max-trials", min=1, help="Leave after so many attempts.", rich_help_panel=LEAVING),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar=DURATION,
        help="Leave after this, e.g. 2h; its trial goes on elsewhere.",
        rich_help_panel=LEAVING,
    ),
]
IdleTimeout = Annotated[
    str | None,
    typer.Option("--idle-timeout", metavar=DURATION, help="Leave after this without work.", rich_help_panel=LEAVING),
]
Grace = Annotated[
    str,
    typer.Option(
        "--grace",
        metavar=DURATION,
        help="How long it may take to leave when it is asked to.",
        rich_help_panel=LEAVING,
    ),
]
GpuMemory = Annotated[
    str | None,
    typer.Option(
        "--gpu-memory", metavar=SIZE, help="Take no more of the GPU's memory, e.g. 4g, where workers share it."
    ),
]
AllowModule = Annotated[
    list[str] | None,
    typer.Option("--allow-module", envvar=ALLOW_MODULE, help="Import no other module of yours; may be repeated."),
]
IsRestarted = Annotated[
    bool,
    typer.Option(
        "--restarted-on-failure",
        help="For what starts failed workers again: end with 0 where that is in vain (failed cells, stop, delete).",
        rich_help_panel=LEAVING,
    ),
]

# What made a worker leave, by the value of its `WorkerEnd`.
REASONS = {"recycled": "--memory-limit", "max-trials": "--max-trials", "idle": "--idle-timeout"}

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
    gpu_memory: GpuMemory = None,
    allow_module: AllowModule = None,
    max_trials: MaxTrials = None,
    max_time: MaxTime = None,
    idle_timeout: IdleTimeout = None,
    grace: Grace = "10s",
    is_restarted: IsRestarted = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
    events: Events = None,
) -> None:
    """Be one worker of a study until nothing is left; for clusters and other launchers.

    SIGTERM, SIGHUP, SIGUSR1, SIGXCPU or Ctrl-C: it gives its cell back and leaves within --grace.

    A second Ctrl-C ends it at once.

    Exit status 0: every cell of the study has its result. 75: start another worker.
    """
    check_metrics_host(metrics_host, metrics_port)
    size, gpu_size = parse_size(memory_limit, "--memory-limit"), parse_size(gpu_memory, "--gpu-memory")
    idle_seconds = parse_limit(idle_timeout, "--idle-timeout")
    limits, allowed = WorkerLimits(size, max_trials, idle_seconds), parse_modules(allow_module)
    with Departure(parse_duration(grace, "--grace"), parse_limit(max_time, "--max-time")) as departure:
        storage, order = _prepare(common, study, data_dir, departure)
        order = replace(order, limits=limits, allowed_modules=allowed, gpu_memory_bytes=gpu_size)
        watching = watched(order.study_name, metrics_host, metrics_port, events)
        with storage.giving_up_when(departure.is_overdue), watching:
            end = _work(common, order, departure)
            status, text = _describe_end(storage, order, departure, end)
    sys.exit(_tell_end(status, text, is_restarted))


def _tell_end(status: Status, text: str, is_restarted: bool) -> Status:
    """Say how the worker ended; returns the status for whoever starts it again, or does not."""
    is_in_vain = is_restarted and not status.is_healed_by_restart
    if is_in_vain or status in (Status.DONE, Status.HANDED_BACK):
        say(text, logging.WARNING if is_in_vain and status else logging.INFO)
    else:
        say(f"Error: {text}", logging.ERROR)
    return Status.DONE if is_in_vain else status


def _prepare(
    common: Common, study: str | None, data_dir: Path | None, departure: Departure
) -> tuple["Storage", "WorkerOrder"]:
    """The storage, and what this process, as one worker of a study there, is to do."""
    # These load hashlib, multiprocessing, socket, SQLAlchemy and uuid.
    import socket
    import uuid

    from fmnist_optuna.artifacts.bucket import check_place
    from fmnist_optuna.processes.temporary import use_for_all_temporary_files
    from fmnist_optuna.study.studies import find_study
    from fmnist_optuna.work.order import WorkerOrder

    prepare_training_environment()
    take_prints_for_remarks()  # the user's code runs in this process
    departure.temporary = use_for_all_temporary_files()
    storage = open_storage_of(common)
    record = find_study(storage, study)
    check_place(record.place)
    worker_id = f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}-1"
    return storage, WorkerOrder(
        common.storage, record.name, worker_id, record.generation, data_dir, log_format=common.log_format
    )


def _work(common: Common, order: "WorkerOrder", departure: Departure) -> "WorkerEnd":
    """Train until nothing is left, a limit is reached, or the worker was asked to leave."""
    with loading_tensorflow(common):
        # These load TensorFlow.
        from fmnist_optuna.work.loop import LeaveRequest
        from fmnist_optuna.work.worker import run_worker
    leave = LeaveRequest()
    with ExitStack() as stack:

        def hold(session: "Session") -> None:
            stack.enter_context(session.storage.giving_up_when(departure.is_overdue))
            departure.hold(lambda: hand_back(session), leave.set)

        try:
            return run_worker(order, leave, hold)
        except Exception as error:
            if not departure.is_asked:
                _tell_failure(order, error)
            raise


def _tell_failure(order: "WorkerOrder", error: Exception) -> None:
    """Tell who follows the events what broke the worker: on stderr the command says it by itself."""
    from fmnist_optuna.work.order import WORKER_FAILED  # loads hashlib

    ids: dict[str, object] = {"worker": order.worker_id, "study": order.study_name}
    log_event(logger, logging.DEBUG, WORKER_FAILED, **ids, error=describe_failure(error))


def hand_back(session: "Session") -> None:
    """Let the cell of a worker wait again, and take the worker off the list, while it may still be at work."""
    from fmnist_optuna.ledger.records import TrialAttributes  # loads hashlib

    session.recovery.let_go(session.name, TrialAttributes(reason="stopped"))


def _describe_end(
    storage: "Storage", order: "WorkerOrder", departure: Departure, end: "WorkerEnd"
) -> tuple[Status, str]:
    """With which status a worker ends, and what is left of its study."""
    # These load SQLAlchemy.
    from fmnist_optuna.ledger.progress import History
    from fmnist_optuna.study.studies import find_study_or_none

    name = order.study_name
    record = find_study_or_none(storage, name)
    if record is None:
        return Status.NOT_FOUND, f"study {name}: was deleted meanwhile."
    counts = History(storage, record.study_id).counts()
    left = f"study {name}: {counts.done} of {count(counts.total, 'cell')} done"
    if departure.is_of_person:
        return departure.status, f"Stopped by {departure.reason}. {left}."
    if counts.is_over and counts.failed:
        return Status.MISMATCH, f"{left}, {counts.failed} failed; after mending the cause: fmnist-optuna retry {name}"
    if counts.is_over:
        command = command_of(name, record.spec.data.folds)
        again = f"{command} with the study's file" if command == "run" else command
        how = f"fmnist-optuna {again}, which tests the winner, or fmnist-optuna verify {name}"
        return Status.DONE, f"{left}. Next: {how}"
    if record.generation != order.generation:
        return Status.STOPPED, f"This worker was told to leave before all cells were done. {left}."
    reason = departure.reason or REASONS.get(end.value, "the end of its work")
    return Status.HANDED_BACK, f"Left after {reason}. {left}. Start a worker again to go on."
