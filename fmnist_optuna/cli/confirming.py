"""`confirm` and `reproduce`: the best cells over fresh seeds, and a trial that is trained once more."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist_optuna.cli.answers import confirmation_answer, print_json
from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.model_answers import reproduction_answer
from fmnist_optuna.cli.options import (
    DURATION,
    AcceptCode,
    Common,
    DataDir,
    Events,
    JsonFlag,
    Mirrors,
    StudyName,
    TrialArgument,
    WideFlag,
    Workers,
    make_run_options,
    open_session,
    parse_limit,
)
from fmnist_optuna.cli.signals import caught_signals
from fmnist_optuna.cli.streams import say
from fmnist_optuna.cli.watching import give_stdout
from fmnist_optuna.errors import FmnistOptunaError, MismatchError

if TYPE_CHECKING:
    from fmnist_optuna.confirming import ConfirmedStudy
    from fmnist_optuna.study.session import Session

Top = Annotated[
    int | None, typer.Option("--top", min=1, show_default="study file's, 3", help="How many of the best cells.")
]
Seeds = Annotated[
    int | None, typer.Option("--seeds", min=2, show_default="study file's, 5", help="Fresh seeds a cell.")
]
AllData = Annotated[
    bool, typer.Option("--all-data", help="Then train the chosen cell's seeds on all training images, and test them.")
]
Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar=DURATION, help="Stop after this, e.g. 10m; a second call goes on.")
]

group = make_group()


@command(group, "confirm")
def confirm(
    common: Common,
    study: StudyName = None,
    top: Top = None,
    seeds: Seeds = None,
    all_data: AllData = False,
    workers: Workers = None,
    data_dir: DataDir = None,
    mirror: Mirrors = None,
    timeout: Timeout = None,
    accept_code: AcceptCode = False,
    events: Events = None,
    is_wide: WideFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the best cells again over fresh seeds, and choose the smallest model that is as good as the best.

    With --all-data its seeds are then trained once more, on the validation images too, for a number of epochs that is
    fixed by then; a finished confirmation is left as it is, unless --top or --seeds is given.

    Ctrl-C stops cleanly and a second call goes on.
    """
    give_stdout(events, as_json)
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.live import make_observer
    from fmnist_optuna.confirming import confirm_study
    from fmnist_optuna.events.relay import event_file

    session = open_session(common, study)
    options = replace(
        make_run_options(common, data_dir, mirror, accept_code),
        n_workers=workers,
        timeout_seconds=parse_limit(timeout, "--timeout"),
    )
    with event_file(events) as file, make_observer(common) as observer:
        options = replace(options, events_file=file)
        confirmed = confirm_study(session, options, top, seeds, observer, caught_signals, all_data)
    _answer(session, confirmed, is_wide, as_json)
    say(f"\nNext: fmnist-optuna export {session.record.name}{' --all-data' if all_data else ''}")


def _answer(session: "Session", confirmed: "ConfirmedStudy", is_wide: bool, as_json: bool) -> None:
    if as_json:
        print_json(confirmation_answer(session.record, confirmed))
        return
    # These load rich.
    from fmnist_optuna.cli.parameter_order import make_parameter_order
    from fmnist_optuna.cli.winner_tables import print_confirmation

    print_confirmation(session.record, confirmed, make_parameter_order(session, is_wide))


@command(group, "reproduce")
def reproduce(
    common: Common,
    trial: TrialArgument,
    study: StudyName = None,
    data_dir: DataDir = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a trial again from its seed, and compare curve and weights to the last bit; exit 6 when they differ."""
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.model_tables import print_reproduction
    from fmnist_optuna.results.reproduction import reproduce_trial

    session = open_session(common, study)
    reproduction = reproduce_trial(session, trial, data_dir)
    if as_json:
        print_json(reproduction_answer(session.record, reproduction))
    else:
        print_reproduction(session.record, reproduction)
    if reproduction.matches:
        return
    text = f"trial {trial} of study {session.record.name} must come out the same, but does not"
    if reproduction.code_differences:
        raise MismatchError(f"{text}; the model code is not the one that the trial was trained with.")
    if reproduction.environment_differences:  # which may well be why: a failure, but nothing that contradicts
        raise FmnistOptunaError(f"{text}; it was trained elsewhere: {'; '.join(reproduction.environment_differences)}.")
    raise MismatchError(f"{text}, in the same environment.")
