"""One training run: compiled epochs and validations, driven by real Keras callbacks in the order of `fit`."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.training.contract import check_averaging
from fmnist_optuna.training.engine import ResidentData, TrainingPass, ValidationPass, use_one_thread
from fmnist_optuna.training.hooks import check_evaluation, check_monitors
from fmnist_optuna.training.metrics import ModelMetrics

__all__ = ["ResidentData", "TrainingResult", "train", "use_one_thread"]


@dataclass(frozen=True)
class TrainingResult:
    """How a training run ended.

    Args:
        epochs: One entry for each epoch that ran.
        best_epoch: 0-based epoch with the best val_accuracy. The model holds its weights, unless a callback of the
            user's put others there when the training ended.
        val_accuracy: Of the weights that the model holds, 0..1.
        is_diverged: Whether a loss became NaN or infinite.
    """

    epochs: tuple[Epoch, ...]
    best_epoch: int
    val_accuracy: float
    is_diverged: bool


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights with the best val_accuracy, the first among equals, and stops when it no longer rises.

    The weights are taken when the validation ends, first of all callbacks: they are the very ones that were validated,
    also where SwapEMAWeights then puts others back.

    Args:
        patience: Epochs without a better val_accuracy before training stops, >= 1.
    """

    def __init__(self, patience: int) -> None:
        super().__init__()
        self.best_epoch = 0
        self._patience = patience
        self._epoch = 0
        self._best = -math.inf
        self._weights: list[Any] | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keep the weights if they are the best so far."""
        accuracy = (logs or {})["accuracy"]
        if accuracy > self._best:
            self._best, self.best_epoch, self._weights = accuracy, self._epoch, self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop the training when the patience is over."""
        if epoch - self.best_epoch >= self._patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the best weights into the model."""
        if self._weights is not None:
            self.model.set_weights(self._weights)


def train(
    model: keras.Model,
    data: ResidentData,
    *,
    batch_size: int,
    max_epochs: int,
    patience: int,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainingResult:
    """Train a compiled model with early stopping on val_accuracy; the best epoch's weights stay in it.

    Args:
        model: Compiled and built, for such images.
        data: Resident images and labels.
        batch_size: Images a step; the last step of an epoch takes what is left.
        max_epochs: Cap on epochs, >= 1.
        patience: Epochs without a better val_accuracy before training stops, >= 1.
        seed: Of the shuffles; the model's own seeds are set before it is built.
        callbacks: Keras callbacks without batch hooks. `model.stop_training = True` ends the run after the epoch, and
            before an epoch it ends that one after its first step, validation and all, as in `fit`.

    Returns:
        The epochs, which one was kept, and the score of the weights that the model holds in the end.

    Raises:
        SpecError: The model or a callback needs what the loop does not give; before any step where it can be known.
    """
    metrics = ModelMetrics(model, data.info.n_classes)
    check_averaging(model, callbacks)
    best = BestWeights(patience)
    callback_list = keras.callbacks.CallbackList(
        [best, *check_monitors(callbacks, metrics.names())],
        add_history=True,
        model=model,
        epochs=max_epochs,
        steps=math.ceil(int(data.train_images.shape[0]) / batch_size),
        verbose=0,
    )
    run_epoch = TrainingPass(model, data, batch_size)
    validate = ValidationPass(model, data.validation_images, data.validation_labels, metrics.update)
    model.stop_training = False
    epochs: list[Epoch] = []
    logs: dict[str, Any] = {}
    callback_list.on_train_begin()
    for epoch in range(max_epochs):
        model.reset_metrics()
        callback_list.on_epoch_begin(epoch)
        began = time.perf_counter()
        trained = run_epoch(epoch, seed)
        logs = {"loss": trained.loss, "accuracy": trained.accuracy, **metrics.read_own()}
        model.stop_evaluating = False
        callback_list.on_test_begin()
        check_evaluation(model)
        model.reset_metrics()
        validated = validate()
        val_logs = {"loss": validated.loss, "accuracy": validated.accuracy, **metrics.read_all(validated.accuracy)}
        callback_list.on_test_end(val_logs)
        seconds = time.perf_counter() - began
        losses = trained.loss, trained.accuracy, validated.loss, validated.accuracy
        epochs.append(Epoch(epoch, *losses, seconds))
        logs |= {f"val_{name}": value for name, value in val_logs.items()}
        callback_list.on_epoch_end(epoch, logs)
        if model.stop_training or not epochs[-1].is_finite:
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    callback_list.on_train_end(logs)
    return TrainingResult(tuple(epochs), best.best_epoch, validate().accuracy, not epochs[-1].is_finite)
