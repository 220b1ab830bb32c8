"""`run`, `init` and `worker`: what trains."""

import gc
import logging
import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist_optuna.cli.answers import print_json, status_answer, winner_answer
from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import (
    AcceptCode,
    Common,
    DashboardPort,
    DataDir,
    IsShown,
    JsonFlag,
    MemoryLimit,
    Mirrors,
    Pruner,
    Source,
    StudyName,
    Workers,
    loading_tensorflow,
    make_run_options,
    open_storage_of,
    parse_limit,
    parse_size,
    read_study_file,
    start_server_early,
)
from fmnist_optuna.cli.signals import ENDING, caught_signals, handle_signals
from fmnist_optuna.cli.streams import say
from fmnist_optuna.errors import InterruptedBySignalError, NotFoundError, StoppedError, UsageError
from fmnist_optuna.processes.cores import usable_cores
from fmnist_optuna.processes.temporary import use_for_all_temporary_files
from fmnist_optuna.settings import prepare_training_environment
from fmnist_optuna.wording import count, format_params
from fmnist_optuna.work.limits import Limits

if TYPE_CHECKING:
    from fmnist_optuna.ledger.storage import Storage
    from fmnist_optuna.running.study import StudyResult
    from fmnist_optuna.spec.study_spec import StudySpec
    from fmnist_optuna.study.records import StudyRecord
    from fmnist_optuna.work.loop import LeaveRequest
    from fmnist_optuna.work.order import WorkerOrder

EXIT_FAILED_CELLS = 6

SpecFile = Annotated[
    Path | None,
    typer.Argument(metavar="STUDY.toml", help="Study file; without one, the 27-cell default grid."),
]
Name = Annotated[str | None, typer.Option("--name", help="Another name for the study.")]
Timeout = Annotated[str | None, typer.Option("--timeout", help="Stop after this; a second run goes on.")]
TrialTimeout = Annotated[str | None, typer.Option("--trial-timeout", help="Kill an attempt that trains longer.")]

group = make_group()


@command(group, "run")
def run(
    common: Common,
    study_file: SpecFile = None,
    workers: Workers = None,
    data: Source = None,
    data_dir: DataDir = None,
    mirror: Mirrors = None,
    pruner: Pruner = None,
    name: Name = None,
    timeout: Timeout = None,
    trial_timeout: TrialTimeout = None,
    memory_limit: MemoryLimit = None,
    accept_code: AcceptCode = False,
    is_shown: IsShown = False,
    dashboard_port: DashboardPort = 8080,
    as_json: JsonFlag = False,
) -> None:
    """Create or resume a study, run it until every cell is done, test the winner once, and print it.

    Ctrl-C stops cleanly and a second run goes on.
    """
    start_server_early()
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.live import make_observer
    from fmnist_optuna.running.study import run_study

    options = replace(
        make_run_options(common, data_dir, mirror, accept_code),
        n_workers=workers or usable_cores(),
        timeout_seconds=parse_limit(timeout, "--timeout"),
        limits=Limits(parse_limit(trial_timeout, "--trial-timeout"), parse_size(memory_limit, "--memory-limit")),
        dashboard_port=dashboard_port if is_shown else None,
    )
    spec = _read_spec(study_file, name, data, pruner)
    with make_observer(common) as observer:
        result = run_study(spec, options, observer, caught_signals)
    _answer(result, as_json)
    _end_quickly(result.session.storage)


def _end_quickly(storage: "Storage") -> None:
    """Spare Python's end its looks at all that is left, several times: 0.4 s (measured 2026-11).

    The database is closed first, which writes its log into its one file: what is frozen is not closed at the end.
    """
    storage.close()
    gc.freeze()


def _answer(result: "StudyResult", as_json: bool) -> None:
    """Print the winner; where there is none, or cells have failed, say so and exit with 6."""
    from fmnist_optuna.cli.winner_tables import print_winner  # loads rich

    record = result.session.record
    if result.winner is not None:
        if as_json:
            print_json(winner_answer(record, result.winner))
        else:
            print_winner(record, result.winner, result.counts)
    elif as_json:
        print_json({"study": record.name, "trial": None})
    if result.counts.failed or result.given_up or result.winner is None:
        _say_what_failed(result)
        sys.exit(EXIT_FAILED_CELLS)
    say(f"\nNext: fmnist-optuna verify {record.name}   (all attempts: fmnist-optuna trials {record.name})")


def _say_what_failed(result: "StudyResult") -> None:
    name = result.session.record.name
    for cell in result.session.history.failed():
        say(f"failed: {format_params(cell.params)}: {cell.error or ''}", logging.ERROR)
    for line in result.given_up:
        say(f"given up: {line}", logging.ERROR)
    say(f"The workers' logs are in {result.log_folder}.", logging.ERROR)
    if result.given_up:
        say(
            f"Error: study {name}: {count(len(result.given_up), 'cell')} without a result; run it again to try again.",
            logging.ERROR,
        )
    if result.counts.failed or not result.given_up:
        say(
            f"Error: study {name}: {count(result.counts.failed, 'cell')} failed; after mending the cause: "
            f"fmnist-optuna retry {name}",
            logging.ERROR,
        )


def _read_spec(study_file: Path | None, name: str | None, data: str | None, pruner: str | None) -> "StudySpec":
    """The study file, in which an option's value takes the place of the file's."""
    # These load pydantic and hashlib.
    from fmnist_optuna.spec.reading import parse_spec
    from fmnist_optuna.spec.study_spec import PATTERN_RULES, SOURCE_PATTERN, StudySpec

    if data is not None and not re.fullmatch(SOURCE_PATTERN, data):
        raise UsageError(f"--data {PATTERN_RULES[SOURCE_PATTERN]}, but got {data!r}.")
    spec = StudySpec() if study_file is None else read_study_file(study_file)
    content = spec.model_dump(mode="json", exclude_unset=True)
    if name is not None:
        content["name"] = name
    if data is not None:
        content["data"] = {**content.get("data", {}), "source": data}
    if pruner is not None and pruner != spec.pruner.name:
        content["pruner"] = {"name": pruner}
    return parse_spec(content, "options" if study_file is None else str(study_file))


@command(group, "init")
def init(
    common: Common,
    study_file: SpecFile = None,
    data: Source = None,
    data_dir: DataDir = None,
    mirror: Mirrors = None,
    pruner: Pruner = None,
    name: Name = None,
    accept_code: AcceptCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Create schema, study and cells once, and train nothing; start workers wherever you like afterwards."""
    start_server_early()
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.console import describe_study, out
    from fmnist_optuna.cli.study_tables import describe_counts
    from fmnist_optuna.running.preparation import prepare_study
    from fmnist_optuna.running.study import decorate_study

    options = make_run_options(common, data_dir, mirror, accept_code)
    prepared = prepare_study(_read_spec(study_file, name, data, pruner), options, has_workers=False)
    session = prepared.session
    decorate_study(session)
    if as_json:
        print_json(status_answer(session))
    else:
        counts = describe_counts(session.history.counts())
        out.print(f"study {describe_study(session.record)}: {counts}", soft_wrap=True)
        out.print(f"{count(prepared.n_new_cells, 'new cell')}; {prepared.data.reason}", soft_wrap=True)
    say(f"Next: fmnist-optuna worker {session.record.name}   (as many as you like, wherever the storage is reached)")


@command(group, "worker", logging.INFO)
def worker(
    common: Common,
    study: StudyName = None,
    data_dir: DataDir = None,
    memory_limit: MemoryLimit = None,
) -> None:
    """Be one worker of a study until nothing is left; for clusters and other launchers.

    The first Ctrl-C or SIGTERM finishes the epoch and gives the cell back, the second ends at once.
    """
    # These load TensorFlow, Optuna and SQLAlchemy.
    from fmnist_optuna.study.studies import find_study

    prepare_training_environment()
    temporary = use_for_all_temporary_files()
    storage = open_storage_of(common)
    record = find_study(storage, study)
    leave, caught = _leave_on_signal(temporary)
    with loading_tensorflow(common):
        from fmnist_optuna.work.worker import run_worker
    run_worker(_make_order(common, record, data_dir, memory_limit), leave)
    _say_how_it_ended(storage, record, caught)


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


def _say_how_it_ended(storage: "Storage", record: "StudyRecord", caught: list[int]) -> None:
    """Say what is left of the study once its worker has ended.

    Args:
        caught: Numbers of the signals that this process was sent.

    Raises:
        NotFoundError: The study was deleted meanwhile.
        InterruptedBySignalError: A signal ended the worker.
        StoppedError: The worker was told to leave.
    """
    # These load SQLAlchemy.
    from fmnist_optuna.ledger.progress import History
    from fmnist_optuna.study.studies import find_study_or_none

    if find_study_or_none(storage, record.name) is None:
        raise NotFoundError(f"study {record.name}: was deleted meanwhile.")
    counts = History(storage, record.study_id).counts()
    left = f"study {record.name}: {counts.done} of {counts.total} cells are done."
    if caught:
        raise InterruptedBySignalError(f"Stopped by {signal.Signals(caught[0]).name}. {left}", caught[0])
    if not counts.is_over:
        raise StoppedError(f"This worker left before all cells were done. {left}")
    say(f"{left} Next: fmnist-optuna run, which tests the winner, or fmnist-optuna verify {record.name}")
    if counts.failed:
        sys.exit(EXIT_FAILED_CELLS)


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
