"""What a model's output is: probabilities, or logits that the softmax still has to be put on."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.learning.batches import largest_image_bytes, trace_scoring
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


def predict_probabilities(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 (n, 10) of uint8 images (n, 28, 28), with a softmax on the output of a model without."""
    has_logits = gives_logits(model)

    def trace(batch: int) -> tuple[Any, float]:
        largest: list[float] = []

        def forward(given: tf.Tensor) -> tf.Tensor:
            probabilities = compute_probabilities(model, given, has_logits)
            largest.append(largest_image_bytes(int(given.shape[0])))
            return probabilities

        traced = tf.function(forward, autograph=False)  # again for a smaller rest
        traced.get_concrete_function(tf.TensorSpec((batch, *IMAGE_SHAPE), tf.uint8))
        return traced, largest[0]

    forward, batch = trace_scoring(len(images), trace)
    parts = [forward(tf.constant(images[begin : begin + batch])) for begin in range(0, len(images), batch)]
    return np.concatenate([part.numpy() for part in parts])
