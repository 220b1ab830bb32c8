"""`confirm`, `reproduce`, `export` and `predict`: what comes after the grid."""

import logging
import sys
from pathlib import Path
from typing import Annotated

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
    say,
)
from fmnist_optuna.cli.reading import open_session
from fmnist_optuna.cli.running import AcceptCode
from fmnist_optuna.errors import DataError, FmnistOptunaError, MismatchError, UsageError
from fmnist_optuna.processes.cores import usable_cores


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    command(app, "confirm")(confirm)
    command(app, "reproduce")(reproduce)
    command(app, "export")(export)
    command(app, "predict")(predict)


def confirm(
    common: Common,
    study: StudyName = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, show_default="study file's, 3", help="How many of the best cells.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=2, show_default="study file's, 5", help="Fresh seeds a cell.")
    ] = None,
    workers: Workers = None,
    data_dir: DataDir = None,
    mirror: Mirrors = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Stop after this; a second call goes on.")] = None,
    accept_code: AcceptCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the best cells again over fresh seeds, and choose the smallest model that is as good as the best.

    Ctrl-C stops cleanly and a second call goes on.
    """
    from fmnist_optuna.cli.answers import confirmation_answer, print_json
    from fmnist_optuna.cli.live import make_observer
    from fmnist_optuna.cli.tables import print_confirmation
    from fmnist_optuna.confirming import confirm_study
    from fmnist_optuna.ledger.records import Timing
    from fmnist_optuna.running import RunOptions

    session = open_session(common, study)
    options = RunOptions(
        storage=common.storage,
        n_workers=workers or usable_cores(),
        data_dir=data_dir,
        mirrors=tuple(mirror or ()),
        timeout_seconds=None if timeout is None else parse_duration(timeout, "--timeout"),
        timing=Timing.for_lease(common.lease_seconds),
        patience_seconds=common.patience_seconds,
        log_format=common.log_format,
        log_level=common.log_level,
        accepts_code=accept_code,
    )
    with make_observer(common) as observer:
        confirmed = confirm_study(session, options, top, seeds, observer)
    if as_json:
        print_json(confirmation_answer(session.record, confirmed))
    else:
        print_confirmation(session.record, confirmed)
    say(f"\nNext: fmnist-optuna export {session.record.name}")


def reproduce(
    common: Common,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="Number of the trial.")],
    study: StudyName = None,
    data_dir: DataDir = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a trial again from its seed, and compare curve and weights to the last bit; exit 6 when they differ."""
    from fmnist_optuna.cli.answers import print_json, reproduction_answer
    from fmnist_optuna.cli.tables import print_reproduction
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


def export(
    common: Common,
    study: StudyName = None,
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Another trial than the winner.")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="savedmodel, keras, or both with a comma between.")
    ] = "savedmodel",
    out: Annotated[Path, typer.Option("--out", help="Folder of all exports.")] = Path("models"),
    version: Annotated[
        int | None, typer.Option("--version", min=1, show_default="the next", help="Number of the version.")
    ] = None,
    data_dir: DataDir = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the winner's stored weights as a model that other programs load; nothing is trained.

    It must give the recorded answers on all test images in a fresh process; else nothing is left, and it exits 6.
    """
    from fmnist_optuna.cli.answers import print_json
    from fmnist_optuna.cli.tables import print_export
    from fmnist_optuna.export.folder import FORMATS, export_model

    formats = tuple(dict.fromkeys(part.strip() for part in format_.split(",")))
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UsageError(f"--format must be of {', '.join(FORMATS)}, but got {unknown[0]!r}.")
    session = open_session(common, study)
    exported = export_model(session, out, trial, formats, version, data_dir)
    if as_json:
        print_json({"folder": str(exported.folder), **exported.manifest})
    else:
        print_export(exported)
    say(f"\nNext: fmnist-optuna predict {exported.folder} IMAGE...")


def predict(
    common: Common,
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="What `export` wrote.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG or .npy.")],
    top: Annotated[int, typer.Option("--top", min=1, max=10, help="How many classes of each.")] = 3,
    as_json: JsonFlag = False,
) -> None:
    """Name what pictures show, by an exported model; any size and colour will do."""
    from fmnist_optuna.cli.answers import prediction_answer, print_json
    from fmnist_optuna.cli.tables import print_prediction
    from fmnist_optuna.export.prediction import predict as predict_files
    from fmnist_optuna.settings import prepare_training_environment

    prepare_training_environment()
    with loading_tensorflow(common):
        prediction = predict_files(model, images)
    if as_json:
        print_json(prediction_answer(prediction, top))
    else:
        print_prediction(prediction, top)
    for _, error in prediction.errors:
        say(f"Error: {error}", logging.ERROR)
    if prediction.errors:
        sys.exit(DataError.exit_status)
