"""The loss of a model as one function, whatever arguments its `compute_loss` takes."""

import inspect
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.metric import VAL_LOSS

SAME = 0.01  # relative: half precision rounds a mean otherwise in another batch
Loss = Callable[..., tf.Tensor]  # of images, labels, output, training, and weights (batch,) or None


def bind_loss(model: keras.Model, has_weights: bool = False) -> Loss:
    """The model's `compute_loss` as a function of images, labels, output, training and weights, whatever its signature.

    Keras itself calls it with x, y, y_pred, sample_weight by position and, where it is named, training by name.

    Args:
        has_weights: Whether images have weights.

    Raises:
        SpecError: Its signature takes none of these forms, or no weights where there are some.
    """
    signature = inspect.signature(model.compute_loss)
    positions, training = ("x", "y", "y_pred", "sample_weight"), ("training",)
    ways: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        (positions, training if "training" in signature.parameters else ()),
        ((), (*positions, *training)),
        ((), positions),
        (positions[:3], training),
        (positions[:3], ()),
        ((), (*positions[:3], *training)),
        ((), positions[:3]),
    ]
    for by_position, by_name in ways:
        try:
            signature.bind(*by_position, **dict.fromkeys(by_name))
        except TypeError:
            continue
        if has_weights and "sample_weight" not in (*by_position, *by_name):
            break
        return _loss_function(model, by_position, by_name)
    if has_weights:
        raise SpecError(
            "compute_loss of the model must take sample_weight where images have weights (training.class_weight, or "
            f"those of data.source), but that of {type(model).__name__} takes {signature}."
        )
    raise SpecError(
        "compute_loss of the model must take x, y, y_pred, sample_weight and training, but that of "
        f"{type(model).__name__} takes {signature}."
    )


def _loss_function(model: keras.Model, by_position: tuple[str, ...], by_name: tuple[str, ...]) -> Loss:
    def compute_loss(
        images: tf.Tensor, labels: tf.Tensor, output: tf.Tensor, training: bool, weights: tf.Tensor | None = None
    ) -> tf.Tensor:
        given = {"x": images, "y": labels, "y_pred": output, "sample_weight": weights, "training": training}
        loss = model.compute_loss(*(given[name] for name in by_position), **{name: given[name] for name in by_name})
        shape = getattr(loss, "shape", None)
        if shape is None or tuple(shape) != ():
            came = "no tensor" if shape is None else f"one of shape {tuple(shape)}"
            raise SpecError(
                f"The loss of a model must be one number a batch, but that of {type(model).__name__} is {came}; "
                'take the mean over the batch, as reduction="sum_over_batch_size" does.'
            )
        return loss

    return compute_loss


def check_mean(model: keras.Model, name: str, images: tf.Tensor, labels: tf.Tensor) -> None:
    """Refuse to compare cells by a loss that is no mean over images, such as a sum.

    The same images twice would cost more than once, and how many are validated at once follows from a cell's size.

    Args:
        name: Of the architecture, for the error.
        images: Some, (n, *image_shape).
        labels: int32 (n,).

    Raises:
        SpecError: It is none.
    """
    compute_loss, costs = bind_loss(model), list[float]()
    for n_times in (1, 2):
        some, of = (tf.concat([each] * n_times, axis=0) for each in (images, labels))
        costs.append(float(compute_loss(some, of, model(some, training=False), False)))
    if not math.isclose(*costs, rel_tol=SAME, abs_tol=1e-6):
        raise SpecError(
            f"objective.metric must be of a loss that is a mean over images to be {VAL_LOSS.name}, but that of {name} "
            f"is {costs[0]:.4g} for some images and {costs[1]:.4g} for the same ones twice; take its mean, as "
            'reduction="sum_over_batch_size" does.'
        )
