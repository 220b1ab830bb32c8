"""What a model's output is: probabilities, or logits that the softmax still has to be put on."""

import keras
import numpy as np
import tensorflow as tf

from fmnist_optuna.learning.model import IMAGE_SHAPE

N_PROBES = 16  # images of noise: logits that are positive for all of them and all classes do not occur


def gives_logits(model: keras.Model) -> bool:
    """Whether a model of ten classes ends without a softmax: its loss says so, or an output is below zero."""
    if getattr(model.loss, "from_logits", False):
        return True
    noise = np.random.default_rng(0).integers(0, 256, (N_PROBES, *IMAGE_SHAPE), dtype=np.uint8)
    return bool(np.min(model(noise, training=False)) < 0)


def compute_probabilities(model: keras.Model, images: tf.Tensor, has_logits: bool) -> tf.Tensor:
    """Probabilities float32 (n, 10) of uint8 images (n, 28, 28).

    Args:
        has_logits: What `gives_logits` said of the model.
    """
    output = tf.cast(model(images, training=False), tf.float32)
    return tf.nn.softmax(output) if has_logits else output
