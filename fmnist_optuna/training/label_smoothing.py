"""Label smoothing for integer labels: what it adds to the loss of a batch."""

from collections.abc import Callable

import keras
import tensorflow as tf

from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.cross_entropy import logits_of, mean_of

Addend = Callable[[tf.Tensor, tf.Tensor, tf.Tensor | None], tf.Tensor]


def smoothing_of(model: keras.Model, options: Options, weight: float) -> Addend | None:
    """What is added to the loss, from labels (n,), output (n, n_classes) and weights; None without smoothing.

    With a share s spread over all K classes (Szegedy et al. 2016, arXiv:1512.00567, section 7) the cross-entropy of an
    image with label y and logits z grows by s (z_y - mean(z)): its normalisation is the same in both. So labels stay
    integers, the loss of the validation images stays as it is, and so does whatever a model adds to its loss. The
    weight of an image, if it has one, counts for what its loss grows by as well.

    Args:
        weight: Of the labels, 0..1, where others are learnt from as well.

    Raises:
        SpecError: The loss is not the cross-entropy of integer labels.
    """
    share = options.label_smoothing * weight
    if not share:
        return None
    read_logits = logits_of(model, "training.label_smoothing", "smooth the labels there, or leave it out")

    def add(labels: tf.Tensor, output: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
        logits = read_logits(output)
        lead = tf.gather(logits, labels, batch_dims=1) - tf.reduce_mean(logits, axis=-1)
        return share * mean_of(lead, weights)

    return add
