"""The cross-entropy of integer labels, for options that change what is aimed at: whose loss it is, and its logits."""

from collections.abc import Callable

import keras
import tensorflow as tf

from fmnist_optuna.errors import SpecError
from fmnist_optuna.training.contract import has_own_loss
from fmnist_optuna.training.probabilities import takes_logits

CROSS_ENTROPY = "sparse_categorical_crossentropy"
MEANS = ("sum_over_batch_size", "mean")


def logits_of(model: keras.Model, option: str, remedy: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from a model's output (n, n_classes) to its logits, up to a constant an image, float32.

    Args:
        option: What asks for them, such as "training.label_smoothing".
        remedy: What to do where it cannot be had.

    Raises:
        SpecError: The loss is not the mean of the cross-entropy of integer labels.
    """
    came = "a compute_loss of its own" if has_own_loss(model) else _describe_other(model)
    if came is not None:
        raise SpecError(
            f"{option} must go with the mean of the loss {CROSS_ENTROPY}, but the architecture has {came}; {remedy}."
        )
    has_logits = takes_logits(model.loss) is True
    return lambda output: _read_logits(output, has_logits)


def _describe_other(model: keras.Model) -> str | None:
    """What the loss of a model is, if it is not the plain mean of the cross-entropy of integer labels."""
    loss, kind = model.loss, keras.losses.SparseCategoricalCrossentropy
    if getattr(model._compile_loss, "_user_loss_weights", None) is not None:
        return "loss_weights"
    if loss == CROSS_ENTROPY or loss is keras.losses.sparse_categorical_crossentropy:
        return None
    if type(loss) is kind and loss.reduction in MEANS and loss.ignore_class is None:
        return None
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    options = f" with reduction {loss.reduction} and ignore_class {loss.ignore_class}" if type(loss) is kind else ""
    return f"the loss {name}{options}"


def _read_logits(output: tf.Tensor, has_logits: bool) -> tf.Tensor:
    """What the softmax was put on, as Keras' own cross-entropy finds it."""
    if not has_logits:
        is_softmax = not tf.executing_eagerly() and output.op.type == "Softmax"
        output = output.op.inputs[0] if is_softmax else tf.math.log(tf.maximum(output, keras.config.epsilon()))
    return tf.cast(output, tf.float32)


def mean_of(losses: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """The mean over a batch as Keras' losses have it: of losses times weights, over the number of images.

    Args:
        losses: float32 (batch,).
        weights: float32 (batch,); None where all count alike.
    """
    return tf.reduce_mean(losses if weights is None else losses * weights)
