"""One training run: compiled epochs and validations, driven by real Keras callbacks in the order of `fit`."""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from fmnist_optuna.search.metric import VAL_ACCURACY, Epoch, Metric
from fmnist_optuna.spec.options import PLAIN, Options
from fmnist_optuna.training.contract import check_averaging, optimizers_of
from fmnist_optuna.training.engine import Score, TrainingPass, ValidationPass
from fmnist_optuna.training.hooks import check_evaluation, check_monitors
from fmnist_optuna.training.kept_weights import BestWeights, LastWeights
from fmnist_optuna.training.metrics import ModelMetrics
from fmnist_optuna.training.optimizer import check_rates
from fmnist_optuna.training.resident_data import ResidentData


@dataclass(frozen=True)
class TrainingResult:
    """How a training run ended.

    Args:
        epochs: One entry for each epoch that ran.
        best_epoch: 0-based epoch with the best value of the metric, or the last one where its weights are kept. The
            model holds its weights, unless a callback of the user's put others there when the training ended.
        val_accuracy: Of the weights that the model holds, 0..1.
        value: Of the metric that epochs are compared by, of the same weights.
        is_diverged: Whether a loss, or a weight that the model holds, became NaN or infinite.
    """

    epochs: tuple[Epoch, ...]
    best_epoch: int
    val_accuracy: float
    value: float
    is_diverged: bool


class Training:
    """One training under way: the passes of an epoch, and the callbacks around them as `fit` calls them.

    It may be paused after any epoch: what has run so far is kept here, and `run` goes on from there.

    Args:
        model: Compiled and built, for such images.
        data: Resident images and labels.
        batch_size: Images a step; the last step of an epoch takes what is left.
        max_epochs: Cap on epochs, >= 1.
        patience: Epochs without a better value of the metric before training stops, >= 1.
        seed: Of the shuffles, and of what is drawn for images; the model's own seeds are set before it is built.
        options: What a step does beside.
        keep_weights: Of the epoch with the best value of the metric, or of the last; then there is no patience.
        callbacks: Keras callbacks without batch hooks. `model.stop_training = True` ends the run after the epoch, and
            before an epoch it ends that one after its first step, validation and all, as in `fit`.
        watchers: Callbacks of the caller's, called before the others. They keep nothing that the training needs: a
            checkpoint leaves them out, and others may take their place when a training goes on.
        metric: By which epochs are compared: one that the model measures.

    Attributes:
        model: The model, with the weights as they are now.
        epochs: What the epochs so far have measured.

    Raises:
        SpecError: The model or a callback needs what the loop does not give; before any step where it can be known.
    """

    def __init__(
        self,
        model: keras.Model,
        data: ResidentData,
        *,
        batch_size: int,
        max_epochs: int,
        patience: int,
        seed: int,
        options: Options = PLAIN,
        keep_weights: Literal["best", "last"] = "best",
        callbacks: Sequence[keras.callbacks.Callback] = (),
        watchers: Sequence[keras.callbacks.Callback] = (),
        metric: Metric = VAL_ACCURACY,
    ) -> None:
        self._metrics, self._metric = ModelMetrics(model, data.info.n_classes), metric
        self._metrics.check_objective(metric, f"the model {type(model).__name__}")
        check_averaging(model, callbacks)
        check_rates(options, callbacks)
        self._best = LastWeights(patience, metric) if keep_weights == "last" else BestWeights(patience, metric)
        self._watchers = list(watchers)
        self._callbacks = keras.callbacks.CallbackList(
            [self._best, *check_monitors([*watchers, *callbacks], self._metrics.names())],
            add_history=True,
            model=model,
            epochs=max_epochs,
            steps=math.ceil(int(data.train_images.shape[0]) / batch_size),
            verbose=0,
        )
        self.model, self.epochs = model, list[Epoch]()
        self._max_epochs, self._seed = max_epochs, seed
        self._train = TrainingPass(model, data, batch_size, options, max_epochs)
        self._averages, self._ema_after = self._train.averages, options.ema_after
        self._validation = ValidationPass(model, data.validation_images, data.validation_labels, self._metrics.update)
        self._logs: dict[str, float] = {}  # of the last epoch
        self._has_begun = False

    @property
    def n_epochs(self) -> int:
        """Epochs that are done."""
        return len(self.epochs)

    @property
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Those whose state belongs to the training, in their order: all but the watchers."""
        return [each for each in self._callbacks.callbacks if not any(each is other for other in self._watchers)]

    @property
    def n_bytes_of_best(self) -> int:
        """Memory of the best weights so far, which are kept beside the variables."""
        return self._best.n_bytes

    @property
    def logs(self) -> dict[str, float]:
        """What the last epoch's logs have, for the end of the training."""
        return self._logs

    @property
    def is_over(self) -> bool:
        """Whether no further epoch will run: the cap, a callback, or an epoch that measured what is no number."""
        if not self.epochs:
            return False
        return self.n_epochs >= self._max_epochs or self.model.stop_training or not self.epochs[-1].is_finite

    def run(self, until: int | None = None) -> None:
        """Train on until so many epochs are done in all, or until it is over.

        Raises:
            SpecError: A callback did what the loop cannot follow.
        """
        if not self._has_begun:
            self._begin()
        while not self.is_over and (until is None or self.n_epochs < until):
            self._run_epoch(self.n_epochs)

    def finish(self) -> TrainingResult:
        """End the training, once: the weights that are kept are put into the model and scored.

        Raises:
            SpecError: The weights of the last epoch are to be kept, and a callback stopped before it or put others in.
        """
        self.end()
        is_diverged = not (self.epochs[-1].is_finite and has_finite_weights(self.model))
        if not is_diverged:
            self._best.check_end(self.n_epochs, self._max_epochs)
        if self._metric.is_compiled:
            self.model.reset_metrics()
        score = self._validation()
        value = self._metrics.read(self._metric, score.accuracy, score.loss)
        return TrainingResult(tuple(self.epochs), self._best.best_epoch, score.accuracy, value, is_diverged)

    def end(self) -> None:
        """End the training as `finish` does, once, and score nothing."""
        self.model.optimizer.finalize_variable_values(self.model.trainable_weights)
        self._callbacks.on_train_end(self._logs)

    def prepare(self) -> None:
        """Bring a fresh training to where one that has run stands, before `put_back`: graphs traced, callbacks begun.

        A graph keeps what callbacks have changed before the first epoch, so their first hooks are called as there.

        Raises:
            SpecError: As in `run`.
        """
        self._begin()
        self._callbacks.on_epoch_begin(0)
        self._train.prepare()
        self._validation.prepare()

    def put_back(self, epochs: Sequence[Epoch], logs: dict[str, float], is_stopped: bool) -> None:
        """Take over what another training has measured, and whether a callback had stopped it.

        Args:
            logs: Of the last epoch.
        """
        self.epochs, self._logs = list(epochs), logs
        self.model.stop_training = is_stopped

    def watch(self, watchers: Sequence[keras.callbacks.Callback]) -> None:
        """Put other watchers in the places of those that there are; as many."""
        called = self._callbacks.callbacks
        for old, new in zip(self._watchers, watchers, strict=True):
            new.set_params(self._callbacks.params)
            new.set_model(self.model)
            new.on_train_begin()
            called[next(i for i, each in enumerate(called) if each is old)] = new
        self._watchers = list(watchers)

    def variables(self) -> list[tf.Variable]:
        """Every variable that a training reads or writes that has run, each once, in an order that another has too.

        Those of the model and of its optimizers, and what the graphs met besides: layers may draw from generators or
        count in variables that Keras does not know.
        """
        optimizers = [variable for part in optimizers_of(self.model.optimizer) for variable in part.variables]
        known = [variable.value for variable in (*self.model.variables, *optimizers)]
        known += [] if self._averages is None else self._averages.variables
        met = (*self._train.variables, *self._validation.variables)
        return list({id(variable): variable for variable in (*known, *met)}.values())

    def _begin(self) -> None:
        self._has_begun = True
        self.model.stop_training = False
        self._callbacks.on_train_begin()
        if self._averages is not None:
            self._averages.start()

    def _run_epoch(self, number: int) -> None:
        self.model.reset_metrics()
        self._callbacks.on_epoch_begin(number)
        began = time.perf_counter()
        trained = self._train(number, self._seed)
        if self._averages is not None and self._ema_after == "epoch":
            self._averages.update()
        self._logs = {"loss": trained.loss, "accuracy": trained.accuracy, **self._metrics.read_own()}
        with contextlib.nullcontext() if self._averages is None else self._averages.in_place():
            validated, val_logs = self._validate()
            seconds = time.perf_counter() - began
            self._logs |= {f"val_{name}": value for name, value in val_logs.items()}
            objective = float(self._logs[self._metric.name]) if self._metric.is_compiled else None
            self._callbacks.on_epoch_end(number, self._logs)
        measured = trained.loss, trained.accuracy, validated.loss, validated.accuracy
        self.epochs.append(Epoch(number, *measured, seconds, objective))

    def _validate(self) -> tuple[Score, dict[str, float]]:
        """The score of the validation images, and what the logs have of it."""
        self.model.stop_evaluating = False
        self._callbacks.on_test_begin()
        check_evaluation(self.model)
        self.model.reset_metrics()
        score = self._validation()
        logs = {"loss": score.loss, "accuracy": score.accuracy, **self._metrics.read_all(score.accuracy)}
        self._callbacks.on_test_end(logs)
        return score, logs


def has_finite_weights(model: keras.Model) -> bool:
    """Whether all are numbers; a loss may hide one that is not, as on some processors relu(NaN) is 0."""
    return all(bool(np.isfinite(weight.numpy()).all()) for weight in model.trainable_weights)
