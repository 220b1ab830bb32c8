"""The running average of a model's weights, which is validated and kept in place of the weights themselves."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from fmnist_optuna.spec.options import Options


class AveragedWeights:
    """An exponential moving average of all weights, the statistics of batch normalisation included.

    After the t-th update, t >= 1, the average keeps min(momentum, t / (t + 9)) of itself: so it forgets the weights of
    the beginning faster than those that come later, as `tf.train.ExponentialMovingAverage` does. Of bfloat16 and
    float16 it is float32, as a share of 0.001 of a difference would be lost in their rounding.

    Args:
        model: Built.
        momentum: What an update keeps of the average, 0 < momentum < 1.

    Attributes:
        variables: The averages and the number of updates: part of the training's state.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self._momentum = momentum
        self._weights = [weight.value for weight in model.weights if weight.value.dtype.is_floating]
        self._averages = [tf.Variable(tf.cast(weight, _precise(weight.dtype))) for weight in self._weights]
        self._n_updates = tf.Variable(0, dtype=tf.int64)
        self.variables = [*self._averages, self._n_updates]

    @classmethod
    def of(cls, model: keras.Model, options: Options) -> "AveragedWeights | None":
        """Those of a training; None for one without."""
        return cls(model, options.ema) if options.ema else None

    def start(self) -> None:
        """Begin with the weights as they are now: callbacks may have loaded some since the model was built."""
        for average, weight in zip(self._averages, self._weights, strict=True):
            average.assign(tf.cast(weight, average.dtype))

    def update(self) -> None:
        """Take the weights as they are now into the average; in a graph, one pass over it beside a difference."""
        count = tf.cast(self._n_updates.assign_add(1), tf.float32)
        taken = 1 - tf.minimum(self._momentum, count / (count + 9))
        for average, weight in zip(self._averages, self._weights, strict=True):
            difference = average - tf.cast(weight, average.dtype)
            tf.raw_ops.ResourceApplyGradientDescent(
                var=average.handle, alpha=tf.cast(taken, average.dtype), delta=difference
            )

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averages for as long as this lasts; what a callback changes in them is theirs."""
        held = [tf.identity(weight) for weight in self._weights]
        for average, weight in zip(self._averages, self._weights, strict=True):
            weight.assign(tf.cast(average, weight.dtype))
        try:
            yield
        finally:
            for average, weight, own in zip(self._averages, self._weights, held, strict=True):
                is_kept = tf.equal(tf.cast(average, weight.dtype), weight)  # its rounding is not taken back into it
                average.assign(tf.where(is_kept, average, tf.cast(weight, average.dtype)))
                weight.assign(own)


def _precise(dtype: tf.DType) -> tf.DType:
    return dtype if dtype.size >= tf.float32.size else tf.float32
