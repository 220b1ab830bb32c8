"""`run` and `init`: a study from its file, trained here or by workers elsewhere."""

import gc
import logging
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist_optuna.cli.answers import print_json, status_answer, winner_answer
from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import (
    DURATION,
    AcceptCode,
    Artifacts,
    Common,
    Cpus,
    DashboardPort,
    DataDir,
    Events,
    Gpus,
    IsShown,
    JsonFlag,
    MemoryLimit,
    Mirrors,
    Pruner,
    Ray,
    Source,
    Workers,
    make_run_options,
    parse_limit,
    parse_ray,
    parse_size,
    read_study_file,
    start_server_early,
)
from fmnist_optuna.cli.signals import caught_signals
from fmnist_optuna.cli.streams import say
from fmnist_optuna.cli.watching import give_stdout
from fmnist_optuna.errors import UsageError
from fmnist_optuna.search.repeats import format_cell
from fmnist_optuna.statuses import Status
from fmnist_optuna.wording import count
from fmnist_optuna.work.limits import Limits

if TYPE_CHECKING:
    from fmnist_optuna.ledger.storage import Storage
    from fmnist_optuna.running.options import RunOptions
    from fmnist_optuna.running.study import StudyResult
    from fmnist_optuna.spec.study_spec import StudySpec

SpecFile = Annotated[
    Path | None,
    typer.Argument(metavar="STUDY.toml", help="Study file; without one, the 27-cell default grid."),
]
Name = Annotated[str | None, typer.Option("--name", help="Another name for the study.")]
Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar=DURATION, help="Stop after this, e.g. 10m; a second run goes on.")
]
TrialTimeout = Annotated[
    str | None, typer.Option("--trial-timeout", metavar=DURATION, help="Kill an attempt that trains longer, e.g. 2h.")
]

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
    artifacts: Artifacts = None,
    accept_code: AcceptCode = False,
    is_shown: IsShown = False,
    dashboard_port: DashboardPort = 8080,
    events: Events = None,
    ray: Ray = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    as_json: JsonFlag = False,
) -> None:
    """Create or resume a study, run it until every cell is done, test the winner once, and print it.

    Ctrl-C stops cleanly and a second run goes on.
    """
    give_stdout(events, as_json)
    start_server_early()
    options = replace(
        make_run_options(common, data_dir, mirror, accept_code, artifacts),
        n_workers=workers,
        timeout_seconds=parse_limit(timeout, "--timeout"),
        limits=Limits(parse_limit(trial_timeout, "--trial-timeout"), parse_size(memory_limit, "--memory-limit")),
        dashboard_port=dashboard_port if is_shown else None,
        events_file=None if events is None else Path(events),
        ray=parse_ray(ray, cpus, gpus, common),
    )
    result = _run(choose_spec(study_file, name, data, pruner), options, common, events)
    _answer(result, as_json)


def _run(spec: "StudySpec", options: "RunOptions", common: Common, events: str | None) -> "StudyResult":
    """Run a study, and show how far it is; what happens goes where the events are to go."""
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.live import make_observer
    from fmnist_optuna.events.relay import event_file
    from fmnist_optuna.running.study import run_study

    with event_file(events) as file, make_observer(common) as observer:
        return run_study(spec, replace(options, events_file=file), observer, caught_signals)


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
        sys.exit(Status.MISMATCH)
    say(f"\nNext: fmnist-optuna verify {record.name}   (all attempts: fmnist-optuna trials {record.name})")
    _end_quickly(result.session.storage)


def _say_what_failed(result: "StudyResult") -> None:
    name = result.session.record.name
    for cell in result.session.history.failed():
        say(f"failed: {format_cell(cell.params)}: {cell.error or ''}", logging.ERROR)
    for line in result.given_up:
        say(f"given up: {line}", logging.ERROR)
    say(f"The workers' logs are in {result.log_folder}.", logging.ERROR)
    if result.given_up:
        say(
            f"Error: study {name}: {count(len(result.given_up), 'cell')} without a result; run it again to try again.",
            logging.ERROR,
        )
    if result.counts.failed:
        say(
            f"Error: study {name}: {count(result.counts.failed, 'cell')} failed; after mending the cause: "
            f"fmnist-optuna retry {name}",
            logging.ERROR,
        )
    elif not result.given_up:
        noun = (
            "cell is complete"
            if result.session.record.spec.repeats.n_cells == 1
            else "point has all its cells complete"
        )
        say(
            f"Error: study {name}: no {noun}, so there is no winner; fmnist-optuna trials {name} shows why. What "
            "diverged would do so again: change the study, such as its learning rates.",
            logging.ERROR,
        )


def choose_spec(study_file: Path | None, name: str | None, data: str | None, pruner: str | None) -> "StudySpec":
    """The study file, in which an option's value takes the place of the file's.

    Raises:
        SpecError: There is no such file, or a rule of it is broken.
        UsageError: The source of the data has another form.
    """
    # These load pydantic and hashlib.
    from fmnist_optuna.spec.data_spec import SOURCE_PATTERN
    from fmnist_optuna.spec.reading import parse_spec
    from fmnist_optuna.spec.study_spec import PATTERN_RULES, StudySpec

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
    artifacts: Artifacts = None,
    accept_code: AcceptCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Create schema, study and cells once, and train nothing; start workers wherever you like afterwards."""
    start_server_early()
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.console import describe_study, out
    from fmnist_optuna.cli.live import StudyObserver
    from fmnist_optuna.cli.study_tables import describe_counts
    from fmnist_optuna.running.preparation import prepare_study
    from fmnist_optuna.running.study import decorate_study

    options = make_run_options(common, data_dir, mirror, accept_code, artifacts)
    spec = choose_spec(study_file, name, data, pruner)
    prepared = prepare_study(spec, options, has_workers=False, asking=StudyObserver().asking)
    session = prepared.session
    decorate_study(session)
    if as_json:
        print_json(status_answer(session))
    else:
        counts = describe_counts(session.history.counts())
        out.print(f"study {describe_study(session.record)}: {counts}", soft_wrap=True)
        out.print(f"{count(prepared.n_new_cells, 'new cell')}; {prepared.data.reason}", soft_wrap=True)
    say(f"Next: fmnist-optuna worker {session.record.name}   (as many as you like, wherever the storage is reached)")
