"""One cell of a study built or trained from its seed: the same steps for all who need its model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.search.cell import BATCH_SIZE, Params
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.architecture import build_model
from fmnist_optuna.training.callbacks import CallbackArguments, make_callbacks
from fmnist_optuna.training.engine import ResidentData
from fmnist_optuna.training.loop import TrainingResult, train
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.user_modules.execution import USER_MODULES
from fmnist_optuna.user_modules.shared_state import refuse_changed_variables


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


def train_cell(
    code: UserCode,
    params: Params,
    seed: int,
    data: ResidentData,
    callbacks: Sequence[keras.callbacks.Callback],
    trial: int = 0,
    folder: Path | None = None,
) -> tuple[keras.Model, TrainingResult]:
    """Train one cell of a study from its seed: the same curve and weights, bit for bit, on the same machine.

    Args:
        seed: Of weights, dropout and shuffles.
        callbacks: They come before those of the study file.
        trial: Number that callbacks of the study file are told.
        folder: Empty, for what those callbacks write; by default a temporary one.

    Returns:
        The model with the kept weights, and the curve.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as temporary:
            return train_cell(code, params, seed, data, callbacks, trial, Path(temporary))
    training = code.spec.training
    model = build_cell(code, params, seed)
    with USER_MODULES.watching():
        keras.utils.set_random_seed(seed)  # whatever the user's function made of it
        result = train(
            model,
            data,
            batch_size=int(params.get(BATCH_SIZE, training.batch_size)),
            max_epochs=training.max_epochs,
            patience=training.patience,
            seed=seed,
            callbacks=[*callbacks, *make_callbacks(code.callbacks, CallbackArguments(trial, params, folder))],
        )
    return model, result


def build_recorded(spec: StudySpec, info: DatasetInfo, params: Params, seed: int) -> keras.Model:
    """The model of a recorded trial as its training began, ready for its stored weights.

    Args:
        info: Of the study's data.

    Raises:
        SpecError: The user's module or function does not give it any more.
    """
    return build_cell(UserCode(spec, info), params, seed)
