"""Exported models: written from a study, and loaded again."""

from collections.abc import Sequence
from pathlib import Path

from fmnist_optuna.api.study import Study
from fmnist_optuna.export import folder as exporting
from fmnist_optuna.export.folder import Export
from fmnist_optuna.export.prediction import ExportedModel


def export_model(
    study: Study,
    out: str | Path = "models",
    *,
    trial: int | None = None,
    formats: Sequence[str] = ("savedmodel",),
    version: int | None = None,
    data_dir: str | Path | None = None,
    all_data: bool = False,
    ensemble: int | None = None,
) -> Export:
    """Write the stored weights of the winner as a model that other programs load; nothing is trained.

    It must give the recorded answers on all test images in a fresh process; else nothing is left.

    Args:
        study: Open, with a COMPLETE trial.
        out: Folder of all exports; the model goes to `out/STUDY/VERSION`.
        trial: Number of another trial than the winner.
        formats: "savedmodel", "keras", or both.
        version: >= 1; None for the next.
        data_dir: As `run_study` has it.
        all_data: Whether seeds that `confirm_study` trained on all data are taken: always the first.
        ensemble: How many seeds answer together, by the mean of their probabilities, in a SavedModel alone: the first
            so many of those that were confirmed, at least 2. None for one model.

    Raises:
        NotFoundError: No such trial, none is complete, or the study was not confirmed or trained on all data.
        UsageError: The trial is not COMPLETE, the format, version or number of seeds cannot be, or the study follows
            from another.
        MismatchError: The weights are missing or altered, or the model gives other answers than the recorded ones.
        DataError: The data is missing or corrupt.
        StorageError: The storage cannot be reached, or `out` cannot be written.
        WorkerFailedError: A process that scores or writes the model dies.

    Example:
        model = load_exported(export_model(study).folder)
    """
    place = None if data_dir is None else Path(data_dir)
    return exporting.export_model(study._session, Path(out), trial, formats, version, place, all_data, ensemble)


def load_exported(folder: str | Path) -> ExportedModel:
    """A model that `export_model` or the `export` command wrote, in this process: TensorFlow is imported here.

    Args:
        folder: A version, or the folder of several, of which the newest is taken.

    Raises:
        DataError: The folder holds no such model, or it does not load.

    Example:
        model = load_exported("models/fashion-mnist")
        print(model.info.form)  # uint8 (n, 28, 28)
        model.predict(images)  # ["Ankle boot", ...]
    """
    return ExportedModel(Path(folder)).load()
