"""`run`, `init` and `worker`: what trains."""

import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fmnist_optuna.cli.options import (
    Common,
    DataDir,
    JsonFlag,
    Mirrors,
    StudyName,
    Workers,
    command,
    loading_tensorflow,
    parse_duration,
    parse_size,
    read_study_file,
    say,
)
from fmnist_optuna.cli.signals import ENDING, handle_signals
from fmnist_optuna.processes.cores import usable_cores
from fmnist_optuna.processes.temporary import use_for_all_temporary_files

if TYPE_CHECKING:
    from fmnist_optuna.work.loop import LeaveRequest

EXIT_FAILED_CELLS = 6

SpecFile = Annotated[
    Path | None,
    typer.Argument(metavar="STUDY.toml", help="Study file; without one, the 27-cell default grid."),
]
Name = Annotated[str | None, typer.Option("--name", help="Another name for the study.")]
Source = Annotated[
    Literal["auto", "fashion-mnist", "synthetic"] | None,
    typer.Option("--data", help="Which data; auto falls back to synthetic garments, loudly."),
]
Pruner = Annotated[
    Literal["median", "none"] | None, typer.Option("--pruner", help="none trains every cell to its end.")
]
AcceptCode = Annotated[
    bool,
    typer.Option("--accept-code", help="Go on with model code that differs from the study's; the diff shows where."),
]
MemoryLimit = Annotated[str | None, typer.Option("--memory-limit", help="Replace a worker that grows larger, e.g. 4g.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    command(app, "run")(run)
    command(app, "init")(init)
    command(app, "worker", logging.INFO)(worker)


def run(
    common: Common,
    study_file: SpecFile = None,
    workers: Workers = None,
    data: Source = None,
    data_dir: DataDir = None,
    mirror: Mirrors = None,
    pruner: Pruner = None,
    name: Name = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Stop after this; a second run goes on.")] = None,
    trial_timeout: Annotated[
        str | None, typer.Option("--trial-timeout", help="Kill an attempt that takes longer.")
    ] = None,
    memory_limit: MemoryLimit = None,
    accept_code: AcceptCode = False,
    is_shown: Annotated[
        bool, typer.Option("--dashboard", help="Show the studies in a browser meanwhile, at 127.0.0.1.")
    ] = False,
    dashboard_port: Annotated[
        int, typer.Option("--dashboard-port", min=0, max=65535, help="Port of --dashboard; 0 takes any free one.")
    ] = 8080,
    as_json: JsonFlag = False,
) -> None:
    """Create or resume a study, run it until every cell is done, test the winner once, and print it.

    Ctrl-C stops cleanly and a second run goes on.
    """
    from fmnist_optuna.cli.live import make_observer
    from fmnist_optuna.ledger.records import Timing
    from fmnist_optuna.running import RunOptions, run_study
    from fmnist_optuna.work.limits import Limits

    options = RunOptions(
        storage=common.storage,
        n_workers=workers or usable_cores(),
        data_dir=data_dir,
        mirrors=tuple(mirror or ()),
        timeout_seconds=None if timeout is None else parse_duration(timeout, "--timeout"),
        limits=Limits(
            trial_seconds=None if trial_timeout is None else parse_duration(trial_timeout, "--trial-timeout"),
            memory_bytes=None if memory_limit is None else parse_size(memory_limit, "--memory-limit"),
        ),
        timing=Timing.for_lease(common.lease_seconds),
        patience_seconds=common.patience_seconds,
        log_format=common.log_format,
        log_level=common.log_level,
        accepts_code=accept_code,
        dashboard_port=dashboard_port if is_shown else None,
    )
    spec = _read_spec(study_file, name, data, pruner)
    with make_observer(common) as observer:
        result = run_study(spec, options, observer)
    _answer(result, as_json)


def _answer(result: Any, as_json: bool) -> None:
    from fmnist_optuna.cli.answers import print_json, winner_answer
    from fmnist_optuna.cli.tables import print_winner, show_params

    record = result.session.record
    if result.winner is not None:
        if as_json:
            print_json(winner_answer(record, result.winner))
        else:
            print_winner(record, result.winner, result.counts)
    elif as_json:
        print_json({"study": record.name, "trial": None})
    if result.counts.failed or result.winner is None:
        for params, error in result.session.history.failed():
            say(f"failed: {show_params(params)}: {error}", logging.ERROR)
        say(f"The workers' logs are in {result.log_folder}.", logging.ERROR)
        say(
            f"Error: study {record.name}: {result.counts.failed} cells failed; after mending the cause: "
            f"fmnist-optuna retry {record.name}",
            logging.ERROR,
        )
        sys.exit(EXIT_FAILED_CELLS)
    say(f"\nNext: fmnist-optuna verify {record.name}   (all attempts: fmnist-optuna trials {record.name})")


def _read_spec(study_file: Path | None, name: str | None, data: str | None, pruner: str | None) -> Any:
    """The study file with what the options say in its place."""
    from fmnist_optuna.spec.study_spec import StudySpec, parse_spec

    spec = StudySpec() if study_file is None else read_study_file(study_file)
    content = spec.model_dump(mode="json", exclude_unset=True)
    if name is not None:
        content["name"] = name
    if data is not None:
        content["data"] = {**content.get("data", {}), "source": data}
    if pruner is not None and pruner != spec.pruner.name:
        content["pruner"] = {"name": pruner}
    return parse_spec(content, "options" if study_file is None else str(study_file))


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
    from fmnist_optuna.cli.answers import print_json, status_answer
    from fmnist_optuna.cli.tables import out, show_counts, title
    from fmnist_optuna.ledger.records import Timing
    from fmnist_optuna.running import RunOptions, decorate_study, prepare_study

    options = RunOptions(
        storage=common.storage,
        data_dir=data_dir,
        mirrors=tuple(mirror or ()),
        timing=Timing.for_lease(common.lease_seconds),
        patience_seconds=common.patience_seconds,
        accepts_code=accept_code,
    )
    prepared = prepare_study(_read_spec(study_file, name, data, pruner), options, has_workers=False)
    session = prepared.session
    decorate_study(session)
    if as_json:
        print_json(status_answer(session))
    else:
        out.print(f"study {title(session.record)}: {show_counts(session.history.counts())}", soft_wrap=True)
        out.print(f"{prepared.n_new_cells} new cells; {prepared.data.reason}", soft_wrap=True)
    say(f"Next: fmnist-optuna worker {session.record.name}   (as many as you like, wherever the storage is reached)")


def worker(
    common: Common,
    study: StudyName = None,
    data_dir: DataDir = None,
    memory_limit: MemoryLimit = None,
) -> None:
    """Be one worker of a study until nothing is left; for clusters and other launchers.

    The first Ctrl-C or SIGTERM finishes the epoch and gives the cell back, the second ends at once.
    """
    import socket
    import uuid

    from fmnist_optuna.errors import InterruptedBySignalError, NotFoundError, StoppedError
    from fmnist_optuna.ledger.progress import History
    from fmnist_optuna.ledger.records import Timing
    from fmnist_optuna.ledger.storage import open_storage
    from fmnist_optuna.settings import prepare_training_environment
    from fmnist_optuna.study.studies import find_study, find_study_or_none
    from fmnist_optuna.work.order import WorkerOrder

    prepare_training_environment()
    temporary = use_for_all_temporary_files()
    storage = open_storage(common.storage, patience_seconds=common.patience_seconds, lease_seconds=common.lease_seconds)
    record = find_study(storage, study)
    leave, caught = _leave_on_signal(temporary)

    with loading_tensorflow(common):
        from fmnist_optuna.work.worker import run_worker

    order = WorkerOrder(
        storage=common.storage,
        study_name=record.name,
        worker_id=f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}-1",
        generation=record.generation,
        data_dir=data_dir,
        timing=Timing.for_lease(common.lease_seconds),
        patience_seconds=common.patience_seconds,
        memory_limit_bytes=None if memory_limit is None else parse_size(memory_limit, "--memory-limit"),
        log_format=common.log_format,
    )
    run_worker(order, leave)
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
    from fmnist_optuna.work.loop import LeaveRequest

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
