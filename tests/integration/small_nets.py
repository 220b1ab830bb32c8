"""Small nets and short trainings of them: what the tests of the training engine share."""

from typing import Any

import keras
from one_training import train

from fmnist_optuna.training.loop import TrainingResult
from fmnist_optuna.training.resident_data import ResidentData

LOSS = "sparse_categorical_crossentropy"


def make_net(
    *hidden: keras.layers.Layer,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: Any = LOSS,
    activation: str | None = "softmax",
) -> keras.Model:
    """784 - hidden layers - 10, from the same seed each time unless the layers bring their own."""
    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            keras.layers.Flatten(),
            keras.layers.Rescaling(1 / 255),
            *hidden,
            keras.layers.Dense(10, activation=activation),
        ]
    )
    model.compile(optimizer=optimizer or keras.optimizers.Adam(0.001), loss=loss)
    return model


def run(model: keras.Model, data: ResidentData, **options: Any) -> TrainingResult:
    """Three epochs at most unless the options say otherwise; too few for early stopping."""
    return train(model, data, **{"batch_size": 32, "max_epochs": 3, "patience": 9, "seed": 0, **options})


def evaluate(model: keras.Model, data: ResidentData) -> tuple[float, float]:
    """Validation loss and accuracy as stock Keras has them; the accuracy as the exact share of images."""
    model.compile(optimizer="sgd", loss=model.loss, metrics=["accuracy"])
    loss, accuracy = model.evaluate(data.validation_images, data.validation_labels, verbose=0)
    n_images = len(data.validation_labels)
    return loss, round(accuracy * n_images) / n_images  # Keras reports a float32


class Recorder(keras.callbacks.Callback):
    """Notes every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int | None, dict[str, float]]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append(("train_begin", None, dict(logs or {})))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch_begin", epoch, dict(logs or {})))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch_end", epoch, dict(logs or {})))

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append(("train_end", None, dict(logs or {})))
