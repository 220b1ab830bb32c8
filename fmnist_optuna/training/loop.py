"""One training run: compiled epochs and validations, driven by real Keras callbacks in the order of `fit`."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.training.contract import check_averaging
from fmnist_optuna.training.engine import ResidentData, Score, TrainingPass, ValidationPass, use_one_thread
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
        is_diverged: Whether a loss, or a weight that the model holds, became NaN or infinite.
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
        self._weights: list[NDArray[np.generic]] | None = None

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Keep the weights if they are the best so far."""
        accuracy = (logs or {})["accuracy"]
        if accuracy > self._best:
            self._best, self.best_epoch, self._weights = accuracy, self._epoch, self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop the training when the patience is over."""
        if epoch - self.best_epoch >= self._patience:
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
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
    watched = [best, *check_monitors(callbacks, metrics.names())]
    loop = _Loop(model, data, metrics, watched, batch_size=batch_size, max_epochs=max_epochs, seed=seed)
    epochs = loop.run()
    is_diverged = not (epochs[-1].is_finite and _has_finite_weights(model))
    return TrainingResult(tuple(epochs), best.best_epoch, loop.validate().accuracy, is_diverged)


def _has_finite_weights(model: keras.Model) -> bool:
    """Whether all are numbers; a loss may hide one that is not, as on some processors relu(NaN) is 0."""
    return all(bool(np.isfinite(weight.numpy()).all()) for weight in model.trainable_weights)


class _Loop:
    """One training under way: the passes of an epoch, and the callbacks around them as `fit` calls them.

    Args:
        metrics: What the model measures beyond loss and accuracy.
        callbacks: In the order in which they are called.
    """

    def __init__(
        self,
        model: keras.Model,
        data: ResidentData,
        metrics: ModelMetrics,
        callbacks: list[keras.callbacks.Callback],
        *,
        batch_size: int,
        max_epochs: int,
        seed: int,
    ) -> None:
        self._model, self._metrics, self._max_epochs, self._seed = model, metrics, max_epochs, seed
        self._callbacks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            model=model,
            epochs=max_epochs,
            steps=math.ceil(int(data.train_images.shape[0]) / batch_size),
            verbose=0,
        )
        self._train = TrainingPass(model, data, batch_size)
        self.validate = ValidationPass(model, data.validation_images, data.validation_labels, metrics.update)
        self._logs: dict[str, float] = {}  # of the last epoch

    def run(self) -> list[Epoch]:
        """Train until the cap, until a callback stops it, or until an epoch measures what is no number."""
        self._model.stop_training = False
        epochs: list[Epoch] = []
        self._callbacks.on_train_begin()
        for number in range(self._max_epochs):
            epochs.append(self._run_epoch(number))
            if self._model.stop_training or not epochs[-1].is_finite:
                break
        self._model.optimizer.finalize_variable_values(self._model.trainable_weights)
        self._callbacks.on_train_end(self._logs)
        return epochs

    def _run_epoch(self, number: int) -> Epoch:
        self._model.reset_metrics()
        self._callbacks.on_epoch_begin(number)
        began = time.perf_counter()
        trained = self._train(number, self._seed)
        self._logs = {"loss": trained.loss, "accuracy": trained.accuracy, **self._metrics.read_own()}
        validated, val_logs = self._validate()
        seconds = time.perf_counter() - began
        self._logs |= {f"val_{name}": value for name, value in val_logs.items()}
        self._callbacks.on_epoch_end(number, self._logs)
        return Epoch(number, trained.loss, trained.accuracy, validated.loss, validated.accuracy, seconds)

    def _validate(self) -> tuple[Score, dict[str, float]]:
        """The score of the validation images, and what the logs have of it."""
        self._model.stop_evaluating = False
        self._callbacks.on_test_begin()
        check_evaluation(self._model)
        self._model.reset_metrics()
        score = self.validate()
        logs = {"loss": score.loss, "accuracy": score.accuracy, **self._metrics.read_all(score.accuracy)}
        self._callbacks.on_test_end(logs)
        return score, logs
