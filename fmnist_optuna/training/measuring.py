"""A metric of any images, as the validation of a training measures it, or of answers that were averaged."""

import math

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo, Images, Labels
from fmnist_optuna.search.metric import VAL_LOSS, Metric
from fmnist_optuna.training.contract import has_own_loss
from fmnist_optuna.training.engine import ValidationPass
from fmnist_optuna.training.metrics import ModelMetrics
from fmnist_optuna.training.probabilities import gives_logits

BATCH = 500  # answers at once: a metric may keep hundreds of numbers for each probability
TOLERANCE = 1e-3  # relative: rounding may give another class to a few of 10,000 images
LEAST = float(np.finfo(np.float32).tiny)  # a probability that has a logarithm


def measure(model: keras.Model, images: Images, labels: Labels, metric: Metric, info: DatasetInfo) -> float:
    """What `model.evaluate` gives of it, with the weights that the model has now.

    Args:
        images: (n, *image_shape).
        labels: (n,).
        metric: One that the model measures.
        info: What the images are.

    Raises:
        SpecError: It does not measure it.
    """
    metrics = ModelMetrics(model, info.n_classes)
    metrics.check_objective(metric, f"the model {type(model).__name__}")
    model.reset_metrics()
    score = ValidationPass(model, tf.constant(images), tf.constant(labels.astype(np.int32)), metrics.update)()
    return metrics.read(metric, score.accuracy, score.loss)


class Answers:
    """Measures a metric of probabilities, such as are averaged over an image and its mirror image.

    Args:
        model: Compiled and built; it says what the metric is, and is asked about no image.
        labels: (n,).
        info: What the images were.
    """

    def __init__(self, model: keras.Model, labels: Labels, info: DatasetInfo) -> None:
        self._model, self._info = model, info
        self._labels = labels.astype(np.int32)

    def suffice(self, metric: Metric, probabilities: NDArray[np.float32], value: float) -> bool:
        """Whether the metric follows from labels and probabilities: then those of the images give the value of these.

        A penalty on activations, or a `compute_loss` of the user's, takes more than the answers.

        Args:
            probabilities: (n, n_classes), of the model itself.
            value: What `measure` gave of the same images.
        """
        again = self.measure(metric, probabilities)
        return again is not None and math.isclose(again, value, rel_tol=TOLERANCE, abs_tol=1e-6)

    def measure(self, metric: Metric, probabilities: NDArray[np.float32]) -> float | None:
        """The metric of probabilities (n, n_classes); None where the model measures it in code of its own."""
        metrics = ModelMetrics(self._model, self._info.n_classes)
        has_own = has_own_loss(self._model) or self._model._compile_loss is None
        if (metric == VAL_LOSS and has_own) or metric.name_in_logs in metrics.read_own():
            return None
        # A model that ends in logits is measured by logits: the logarithms are some that have these probabilities.
        is_of_logits = gives_logits(self._model, self._info)
        outputs = np.log(np.maximum(probabilities, LEAST)) if is_of_logits else probabilities
        loss = self._sum_up(metrics, outputs, has_loss=metric == VAL_LOSS) / len(outputs) + self._penalty()
        accuracy = float(np.mean(probabilities.argmax(axis=1) == self._labels))
        return metrics.read(metric, accuracy, loss)

    def _sum_up(self, metrics: ModelMetrics, outputs: NDArray[np.float32], has_loss: bool) -> float:
        """Tell the compiled metrics all outputs, in a graph as the validation does; returns the sum of the losses."""

        def step(labels: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
            metrics.update(labels, output)
            return self._model._compile_loss(labels, output) if has_loss else tf.constant(0.0)

        graph, total = tf.function(step, autograph=False), 0.0
        self._model.reset_metrics()
        for begin in range(0, len(outputs), BATCH):
            labels, output = (tf.constant(each[begin : begin + BATCH]) for each in (self._labels, outputs))
            total += float(graph(labels, output)) * len(labels)
        return total

    def _penalty(self) -> float:
        """What the loss has of the weights alone, whatever the images are."""
        penalized = [weight for weight in self._model.trainable_weights if weight.regularizer is not None]
        return sum(float(weight.regularizer(weight)) for weight in penalized)
