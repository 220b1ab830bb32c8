"""Label smoothing for integer labels: what it adds to the loss of a batch."""

from collections.abc import Callable

import keras
import tensorflow as tf

from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.contract import has_own_loss
from fmnist_optuna.training.probabilities import takes_logits

CROSS_ENTROPY = "sparse_categorical_crossentropy"
MEANS = ("sum_over_batch_size", "mean")


def smoothing_of(model: keras.Model, options: Options) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """What is added to the loss, from labels (n,) and output (n, n_classes); None without smoothing.

    With a share s spread over all K classes (Szegedy et al. 2016, arXiv:1512.00567, section 7) the cross-entropy of an
    image with label y and logits z grows by s (z_y - mean(z)): its normalisation is the same in both. So labels stay
    integers, the loss of the validation images stays as it is, and so does whatever a model adds to its loss.

    Raises:
        SpecError: The loss is not the cross-entropy of integer labels.
    """
    if not options.label_smoothing:
        return None
    came = "a compute_loss of its own" if has_own_loss(model) else _describe_other(model)
    if came is not None:
        raise SpecError(
            f"training.label_smoothing must go with the mean of the loss {CROSS_ENTROPY}, but the architecture has "
            f"{came}; smooth the labels there, or leave it out."
        )
    has_logits = takes_logits(model.loss) is True

    def add(labels: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        logits = _logits_of(output, has_logits)
        lead = tf.gather(logits, labels, batch_dims=1) - tf.reduce_mean(logits, axis=-1)
        return options.label_smoothing * tf.reduce_mean(lead)

    return add


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


def _logits_of(output: tf.Tensor, has_logits: bool) -> tf.Tensor:
    """What the softmax was put on, up to a constant an image, as Keras' own cross-entropy finds it."""
    if not has_logits:
        is_softmax = not tf.executing_eagerly() and output.op.type == "Softmax"
        output = output.op.inputs[0] if is_softmax else tf.math.log(tf.maximum(output, keras.config.epsilon()))
    return tf.cast(output, tf.float32)
