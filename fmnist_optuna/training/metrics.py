"""The metrics that a model brings: compiled ones, measured on the validation images, and trackers of its own.

Loss and accuracy come from the loop. Compiled metrics would cost every training step; on the validation images they
cost nothing that counts.
"""

from collections.abc import Callable, Mapping
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from keras.src import backend
from numpy.typing import NDArray

from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.metric import ALWAYS_MEASURED, OF_VALIDATION, Metric
from fmnist_optuna.user_modules.functions import as_spec_error

FROM_THE_LOOP = ("loss", "accuracy")

# What a metric gives: a number, or several by names of their own.
Result = float | Mapping[str, float]


class ModelMetrics:
    """What a model measures beyond loss and accuracy.

    Args:
        model: Compiled and built. Its compiled metrics are built here, as `fit` does before any callback.
        n_classes: Outputs of the model.

    Raises:
        SpecError: A metric is called accuracy and is another quantity, is called loss, or does not take integer labels;
            or Keras does not know it.
    """

    def __init__(self, model: keras.Model, n_classes: int) -> None:
        compiled = model._compile_metrics
        if compiled is not None and not compiled.built:
            with as_spec_error(f"The metrics of a model must be ones of Keras, but {type(model).__name__} raised"):
                compiled.build(keras.KerasTensor((None,), "int32"), keras.KerasTensor((None, n_classes)))
        self._compiled, self._n_classes = compiled, n_classes
        metrics = [] if compiled is None else compiled.metrics
        # The loop counts hits anyway, and has the accuracy exactly.
        self._is_counted = all(type(metric) is keras.metrics.SparseCategoricalAccuracy for metric in metrics)
        losses = [] if model._compile_loss is None else model._compile_loss.metrics
        known = [model._loss_tracker, compiled, *losses]
        self._own = [metric for metric in model.metrics if not any(metric is other for other in known)]
        for metric in [*metrics, *self._own]:
            if metric.name == "accuracy" and type(metric) is not keras.metrics.SparseCategoricalAccuracy:
                raise SpecError(
                    "The metric accuracy of a model must be the share of right answers, but that of "
                    f"{type(model).__name__} is {type(metric).__name__}; give it another name."
                )
        if unheard := [metric for metric in metrics if metric.name == "loss"]:  # a tracker of this name is of the loss
            raise SpecError(
                f"The metrics of a model must not be called loss, as that is the loss, but {type(model).__name__} is "
                f"compiled with a {type(unheard[0]).__name__} of this name; give it another."
            )
        if not self._is_counted:
            for metric in metrics:
                _make_state(metric, n_classes)

    @property
    def update(self) -> Callable[[tf.Tensor, tf.Tensor], None]:
        """Tells the compiled metrics labels (n,) and outputs (n, n_classes) of a batch, in the validation's graph."""
        if self._compiled is None or self._is_counted:
            return lambda labels, output: None
        compiled = self._compiled
        return lambda labels, output: compiled.update_state(labels, output)

    def read_own(self) -> dict[str, float]:
        """The model's own trackers now, by name."""
        return _flatten({metric.name: metric.result() for metric in self._own})

    def read_all(self, accuracy: float) -> dict[str, float]:
        """The same with the compiled metrics after a validation, which had this accuracy."""
        compiled = {} if self._compiled is None else self._compiled.result()
        if self._is_counted:
            compiled = dict.fromkeys(compiled, accuracy)
        return {**self.read_own(), **_flatten(compiled)}

    def read(self, metric: Metric, accuracy: float, loss: float) -> float:
        """A metric after a validation, which had this accuracy and this loss.

        Args:
            metric: One that `check_objective` lets pass.
        """
        measured = {"loss": loss, "accuracy": accuracy}
        return float((measured if metric.name in ALWAYS_MEASURED else self.read_all(accuracy))[metric.name_in_logs])

    def check_objective(self, metric: Metric, model: str) -> None:
        """Refuse a metric to compare by that the model does not measure, or that is not one number.

        Args:
            model: What the error calls it.

        Raises:
            SpecError: It does not.
        """
        with as_spec_error(f"The metrics of a model must have results before any image, but {model} raised"):
            measured = {name: np.asarray(value) for name, value in self.read_all(0.0).items()}
        faults = {name: found for name, value in measured.items() if (found := _find_fault(value))}
        if metric.name in ALWAYS_MEASURED or metric.name_in_logs in measured.keys() - faults:
            return
        if metric.name_in_logs in faults:
            fault = faults[metric.name_in_logs]
            raise SpecError(f"objective.metric must be one number, but {metric.name} of {model} {fault}.")
        usable = [*ALWAYS_MEASURED, *(f"{OF_VALIDATION}{name}" for name in measured if name not in faults)]
        raise SpecError(
            f"objective.metric must be what {model} measures ({', '.join(usable)}), but is {metric.name}; name one of "
            "these, or compile the model with it."
        )

    def check_function(self, metric: Metric, model: str) -> None:
        """Refuse to compare by what a function gives of a batch: how many images that has follows from a cell's size.

        Args:
            model: What the error calls it.

        Raises:
            SpecError: The metric is the mean of such numbers.
        """
        metrics = [] if self._compiled is None else self._compiled.metrics
        if any(each.name == metric.name_in_logs and _is_of_batches(each, self._n_classes) for each in metrics):
            raise SpecError(
                f"objective.metric must be measured over all images, but {metric.name} of {model} is a function that "
                "gives one number for a batch; let it give one for each image, or make it a keras.metrics.Metric."
            )

    def names(self) -> list[str]:
        """Every name in the logs of an epoch."""
        validation = [*FROM_THE_LOOP, *self.read_all(0.0)]
        return [*FROM_THE_LOOP, *self.read_own(), *(f"val_{name}" for name in validation)]


def _make_state(metric: keras.metrics.Metric, n_classes: int) -> None:
    """Let a metric make the variables that it has only from its first update on, as `fit` does: nothing is counted."""
    rule = f"A metric must take integer labels (n,) and outputs (n, {n_classes}), but {metric.name}"
    way = "labels are not one-hot: use a metric for sparse labels, or let its update_state make them one-hot."
    if _takes_largest(metric):
        raise SpecError(f"{rule} takes the place of the largest number of several for the label; {way}")
    try:
        backend.compute_output_spec(metric.update_state, *_symbols(n_classes))
    except Exception as error:
        raise SpecError(f"{rule} raised {describe_error(error).rstrip('.')}; {way}") from error


def _symbols(n_classes: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Labels and outputs without values, of one image more than there are classes: of as many, shapes would agree."""
    n_images = n_classes + 1
    return keras.KerasTensor((n_images,), "int32"), keras.KerasTensor((n_images, n_classes))


def _takes_largest(metric: keras.metrics.Metric) -> bool:
    """Whether a metric of Keras' own makes labels of one-hot ones, and of any integers one for all without an error."""
    update = type(metric).update_state
    if isinstance(metric, keras.metrics.IoU):
        return update is keras.metrics.IoU.update_state and not metric.sparse_y_true
    is_stock = (
        isinstance(metric, keras.metrics.MeanMetricWrapper) and update is keras.metrics.MeanMetricWrapper.update_state
    )
    return is_stock and metric._fn is keras.metrics.categorical_accuracy


def _is_of_batches(metric: keras.metrics.Metric, n_classes: int) -> bool:
    """Whether a metric is the mean over batches of what a function gives of each."""
    if not isinstance(metric, keras.metrics.MeanMetricWrapper):
        return False
    try:
        given = backend.compute_output_spec(partial(metric._fn, **metric._fn_kwargs), *_symbols(n_classes))
    except Exception:  # a class around it gives it something else
        return False
    return tuple(getattr(given, "shape", ())) == ()


def _find_fault(result: NDArray[np.generic]) -> str:
    """Why nothing can be compared by a result of a metric; empty where it is one number."""
    if result.shape != ():
        return f'has the shape {result.shape}; let it take the mean over the classes, as average="macro" does'
    return "is complex; let it be the absolute value" if np.iscomplexobj(result) else ""


def _flatten(results: Mapping[str, Result]) -> dict[str, float]:
    """Results by name, without those that the loop has; a metric may give several, by names of their own.

    Of a variable, as some metrics give the one that they count in, it is the value of now.
    """
    flat: dict[str, float] = {}
    for name, result in results.items():
        if isinstance(result, Mapping):
            flat |= _flatten(result)
        else:
            flat[name] = keras.ops.copy(result) if isinstance(result, keras.Variable | tf.Variable) else result
    return {name: result for name, result in flat.items() if name not in FROM_THE_LOOP}
