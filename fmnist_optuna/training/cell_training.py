"""One cell of a study built or trained from its seed: the same steps for all who need its model.

A training may be paused after an epoch and go on later: in this process, where it was kept in memory, or in another
from a checkpoint. The numbers are those of one that was never interrupted.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import keras

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.search.cell import BATCH_SIZE, Params
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.architecture import build_model
from fmnist_optuna.training.callbacks import CallbackArguments, make_callbacks
from fmnist_optuna.training.checkpoint import Checkpoint, Identity, Unusable, UnusableError, read_checkpoint
from fmnist_optuna.training.loop import Training, TrainingResult
from fmnist_optuna.training.paused import PausedTrainings
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.running_cell import CellTraining
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.user_modules.execution import USER_MODULES
from fmnist_optuna.user_modules.shared_state import refuse_changed_variables

TemporaryFolder = tempfile.TemporaryDirectory[str]


def build_cell(code: UserCode, params: Params, seed: int) -> keras.Model:
    """Build the model of one cell from its seed, whatever this process did before.

    Raises:
        SpecError: The user's function does not return a compiled model, or one that goes on where another ended.
    """
    code.begin(seed)
    with USER_MODULES.watching():
        model = build_model(code.architecture, code.spec, params, code.info)
    refuse_changed_variables(model, code.architecture.name)
    return model


def make_folder() -> TemporaryFolder:
    """A temporary folder for what the callbacks of one attempt write."""
    return tempfile.TemporaryDirectory(prefix="fmnist-optuna-")


def begin_cell(
    code: UserCode,
    params: Params,
    seed: int,
    data: ResidentData,
    watchers: Sequence[keras.callbacks.Callback],
    trial: int = 0,
    make_folder: Callable[[], TemporaryFolder] = make_folder,
) -> CellTraining:
    """A training of one cell before its first epoch: the same curve and weights, bit for bit, on the same machine.

    Args:
        seed: Of weights, dropout and shuffles.
        watchers: Callbacks of the caller's; they come before those of the study file.
        trial: Number that callbacks of the study file are told.
        make_folder: Makes an empty folder for what those callbacks write.

    Raises:
        SpecError: The cell cannot be trained.
    """
    folder = make_folder()
    try:
        training = _make_training(
            code, params, seed, data, watchers, CallbackArguments(trial, params, Path(folder.name))
        )
    except BaseException:
        folder.cleanup()
        raise
    return CellTraining(training, folder, "start", trial)


def go_on_with_cell(
    code: UserCode,
    params: Params,
    data: ResidentData,
    watchers: Sequence[keras.callbacks.Callback],
    identity: Identity,
    *,
    trial: int = 0,
    n_epochs: int = 0,
    paused: PausedTrainings | None = None,
    checkpoint: Path | Callable[[], Path] | None = None,
    make_folder: Callable[[], TemporaryFolder] = make_folder,
) -> CellTraining:
    """A training of one cell where it was paused: from memory, else from its checkpoint, else from the start.

    Args:
        identity: Of the training; its seed is the one to begin with.
        trial: Number that callbacks of the study file are told where the training begins anew.
        n_epochs: Epochs that are known to be done. A training that was kept in memory with fewer is not used: it went
            on elsewhere. With 0 nothing is known, and the checkpoint says how many there are.
        paused: The trainings of this process.
        checkpoint: Its file, which need not be there, or what brings it where it is needed.
        watchers: As the others, what `begin_cell` takes.

    Returns:
        The training. `origin` says where it came from, `trial` what its callbacks were told, `unusable` why a
        checkpoint was not used, and `n_epochs` how many epochs are done.

    Raises:
        SpecError: The cell cannot be trained.
    """
    if paused is not None and identity.cell_id in paused:
        found = None if n_epochs else _find_checkpoint(checkpoint, identity)
        least = found.n_epochs if isinstance(found, Checkpoint) else n_epochs
        if (cell := paused.take(identity.cell_id, watchers, least)) is not None:
            return cell
    begin = partial(begin_cell, code, params, identity.seed, data, watchers, make_folder=make_folder)
    return _resume(begin, trial, _find_checkpoint(checkpoint, identity))


def _find_checkpoint(file: Path | Callable[[], Path] | None, identity: Identity) -> Checkpoint | Unusable | None:
    """What a file holds, or why it cannot be used; None where none is there."""
    if file is None:
        return None
    try:
        return read_checkpoint(file if isinstance(file, Path) else file(), identity)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unusable(f"cannot be read: {error.strerror or error}")


def _resume(begin: Callable[[int], CellTraining], trial: int, found: Checkpoint | Unusable | None) -> CellTraining:
    """The training that a checkpoint holds, or one from the start that says why it could not be used."""
    if not isinstance(found, Checkpoint):
        cell = begin(trial)
        cell.unusable = None if found is None else found.reason
        return cell
    cell = begin(trial if found.trial is None else found.trial)
    try:
        cell.restore(found)
    except UnusableError as error:  # what was restored so far is of no use either
        cell.close()
        cell = begin(trial)
        cell.unusable = str(error)
    except BaseException:
        cell.close()
        raise
    return cell


def train_cell(
    code: UserCode,
    params: Params,
    seed: int,
    data: ResidentData,
    watchers: Sequence[keras.callbacks.Callback],
    trial: int = 0,
    n_epochs: int | None = None,
) -> tuple[keras.Model, TrainingResult]:
    """Train one cell of a study from its seed, without a pause; what callbacks of the study file write is not kept.

    Args:
        watchers: As the others, what `begin_cell` takes.
        n_epochs: After which it is cut, as a study cuts it, unless it ended before, >= 1; None for no cut.

    Returns:
        The model with the kept weights, and the curve.
    """
    cell = begin_cell(code, params, seed, data, watchers, trial)
    try:
        cell.run(n_epochs)
        return cell.model, cell.finish()
    finally:
        cell.close()


def _make_training(
    code: UserCode,
    params: Params,
    seed: int,
    data: ResidentData,
    watchers: Sequence[keras.callbacks.Callback],
    arguments: CallbackArguments,
) -> Training:
    settings = code.spec.training
    if settings.teacher and data.soft_labels is None:
        raise MismatchError(f"A cell that learns from {settings.teacher} must have its answers, but was given none.")
    data = data.weighted(settings.class_weight)
    model = build_cell(code, params, seed)
    with USER_MODULES.watching():
        code.set_seeds(seed)  # whatever the user's function made of it
        return Training(
            model,
            data,
            batch_size=int(params.get(BATCH_SIZE, settings.batch_size)),
            max_epochs=settings.max_epochs,
            patience=settings.patience,
            seed=seed,
            options=code.spec.options_of(params, code.architecture.parameters),
            keep_weights=settings.keep_weights,
            callbacks=make_callbacks(code.callbacks, arguments),
            watchers=watchers,
            metric=code.spec.metric,
        )


def build_recorded(spec: StudySpec, info: DatasetInfo, params: Params, seed: int) -> keras.Model:
    """The model of a recorded trial as its training began, ready for its stored weights.

    Args:
        info: Of the study's data.

    Raises:
        SpecError: The user's module or function does not give it any more.
    """
    return build_cell(UserCode(spec, info), params, seed)
