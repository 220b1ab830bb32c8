"""The loss of a model as one function, whatever arguments its `compute_loss` takes."""

import inspect
from collections.abc import Callable

import keras
import tensorflow as tf

from fmnist_optuna.errors import SpecError

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
