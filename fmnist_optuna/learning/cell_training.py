"""One cell of a study trained from its seed: the same steps for a worker, a rehearsal and a reproduction."""

import gc
from collections.abc import Sequence

import keras

from fmnist_optuna.grid import BATCH_SIZE, Params
from fmnist_optuna.learning.architecture import Architecture, build_model
from fmnist_optuna.learning.callbacks import load_callbacks
from fmnist_optuna.learning.training import ResidentData, TrainingResult, train
from fmnist_optuna.spec import StudySpec


def train_cell(
    architecture: Architecture,
    spec: StudySpec,
    params: Params,
    seed: int,
    data: ResidentData,
    callbacks: Sequence[keras.callbacks.Callback],
) -> tuple[keras.Model, TrainingResult]:
    """Train one cell of a study from its seed: the same curve and weights, bit for bit, on the same machine.

    Args:
        seed: Of weights, dropout and shuffles.
        callbacks: They come before those of the study file.

    Returns:
        The model with the kept weights, and the curve.
    """
    training = spec.training
    keras.utils.set_random_seed(seed)
    model = build_model(architecture, spec, params)
    result = train(
        model,
        data,
        batch_size=int(params.get(BATCH_SIZE, training.batch_size)),
        max_epochs=training.max_epochs,
        patience=training.patience,
        seed=seed,
        callbacks=[*callbacks, *load_callbacks(spec)],
    )
    return model, result


def forget_models() -> None:
    """Clear away what Keras keeps of models that nobody uses any more."""
    keras.backend.clear_session(free_memory=False)  # which would collect as well
    gc.collect()  # graphs hold cycles; left alone they pile up over trials
