"""A training from its beginning to its end, for tests of what happens in between."""

from typing import Any

import keras
import numpy as np

from fmnist_optuna.training.loop import Training, TrainingResult
from fmnist_optuna.training.resident_data import ResidentData

BATCH_SIZE, SEED = 32, 3


def train(model: keras.Model, data: ResidentData, **settings: Any) -> TrainingResult:
    """Train a compiled model; the best epoch's weights stay in it.

    Args:
        settings: What `Training` takes beside model and data.
    """
    training = Training(model, data, **settings)
    training.run()
    return training.finish()


def make_net(
    optimizer: Any = "adam", loss: Any = "sparse_categorical_crossentropy", head: str | None = "softmax"
) -> keras.Model:
    """Small, with batch normalisation and without dropout; the same weights each time."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(12, use_bias=False),  # a bias before a normalisation has no gradient but noise
        keras.layers.BatchNormalization(),
        keras.layers.Dense(10, activation=head),
    ]
    model = keras.Sequential(layers)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def are_equal(first: list[Any], second: list[Any]) -> bool:
    """Whether two lists of weights are the same to the last bit."""
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
