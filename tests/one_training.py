"""A training from its beginning to its end, for tests of what happens in between."""

from typing import Any

import keras

from fmnist_optuna.training.loop import Training, TrainingResult
from fmnist_optuna.training.resident_data import ResidentData


def train(model: keras.Model, data: ResidentData, **settings: Any) -> TrainingResult:
    """Train a compiled model; the best epoch's weights stay in it.

    Args:
        settings: What `Training` takes beside model and data.
    """
    training = Training(model, data, **settings)
    training.run()
    return training.finish()
