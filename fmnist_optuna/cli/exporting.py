"""`export` and `predict`: the winner as a model that other programs load, and its answers for pictures."""

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fmnist_optuna.cli.answers import print_json
from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.model_answers import prediction_answer
from fmnist_optuna.cli.options import Common, DataDir, JsonFlag, StudyName, loading_tensorflow, open_session
from fmnist_optuna.cli.streams import say
from fmnist_optuna.errors import DataError
from fmnist_optuna.settings import prepare_training_environment

group = make_group()


@command(group, "export")
def export(
    common: Common,
    study: StudyName = None,
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Another trial than the winner.")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="savedmodel, keras, or both with a comma between.")
    ] = "savedmodel",
    all_data: Annotated[
        bool, typer.Option("--all-data", help="The first of the seeds that `confirm --all-data` trained.")
    ] = False,
    ensemble: Annotated[
        int | None,
        typer.Option("--ensemble", min=2, metavar="K", help="The first K confirmed seeds, which answer together."),
    ] = None,
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
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.model_tables import print_export
    from fmnist_optuna.export.folder import export_model

    formats = [part.strip() for part in format_.split(",")]
    session = open_session(common, study)
    exported = export_model(session, out, trial, formats, version, data_dir, all_data, ensemble)
    if as_json:
        print_json({"folder": str(exported.folder), **exported.manifest})
    else:
        print_export(exported)
    if "savedmodel" in formats:  # the one that `predict` can ask
        what = "IMAGE" if session.record.info.is_of_pictures else "FILE"
        folder = shlex.quote(str(exported.folder))
        say(f"\nNext: fmnist-optuna predict {folder} {what}...")


@command(group, "predict")
def predict(
    common: Common,
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="What `export` wrote.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="PNG, JPEG, .npy; of features .csv, .npy.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes of each.")] = 3,
    as_json: JsonFlag = False,
) -> None:
    """Let an exported model name what pictures of any size and colour show, or of which class rows of features are."""
    # These load rich.
    from fmnist_optuna.cli.model_tables import print_prediction
    from fmnist_optuna.export.prediction import predict as predict_files

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
