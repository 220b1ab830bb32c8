"""What a teacher's answers add to the loss of a batch (Hinton, Vinyals, Dean 2015, arXiv:1503.02531)."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.cross_entropy import logits_of, mean_of
from fmnist_optuna.training.resident_data import ResidentData


class Teaching:
    """The teacher's part of a training's loss.

    With weight w and temperature T the loss of an image is 1 - w of its own, label smoothing included, and w T**2 times
    the cross-entropy of the student's answer with the teacher's, both softened: softmax(logits / T). The factor keeps
    the size of the gradients. Mixed images have mixed answers, as they have mixed labels. The weight of an image, if it
    has one, counts for the whole of its loss. What a model adds to its loss, as regularizers do, is neither weighed nor
    known here: the labels' cross-entropy is taken out with its share.

    Args:
        model: Compiled and built.
        soft_labels: The teacher's probabilities of all training images, float32 (n, n_classes).
        options: Of the training.

    Attributes:
        targets: The same, softened.

    Raises:
        SpecError: The model's loss is not the cross-entropy of integer labels.
    """

    def __init__(self, model: keras.Model, soft_labels: tf.Tensor, options: Options) -> None:
        self._weight, self._temperature = options.teacher_weight, options.teacher_temperature
        self._read_logits = logits_of(model, "training.teacher", "compile that loss, or leave the teacher out")
        self.targets = tf.constant(soften(soft_labels.numpy(), self._temperature))

    @classmethod
    def of(cls, model: keras.Model, data: ResidentData, options: Options) -> "Teaching | None":
        """That of a training; None without a teacher, or where it has no weight."""
        if data.soft_labels is None or not options.teacher_weight:
            return None
        return cls(model, data.soft_labels, options)

    def add(
        self, labels: tf.Tensor, targets: tf.Tensor, output: tf.Tensor, weights: tf.Tensor | None = None
    ) -> tf.Tensor:
        """What is added to the plain loss of a batch, float32 scalar.

        Args:
            labels: int32 (batch,).
            targets: Of `targets`, (batch, n_classes).
            output: The model's, (batch, n_classes).
            weights: Of the images, float32 (batch,); None where all count alike.
        """
        logits = self._read_logits(output)
        learnt = tf.nn.softmax_cross_entropy_with_logits(targets, logits / self._temperature)
        plain = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return self._weight * mean_of(self._temperature**2 * learnt - plain, weights)


def soften(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """softmax(log(probabilities) / temperature), (n, n_classes), each row of sum 1."""
    powers = probabilities.astype(np.float64) ** (1 / temperature)
    softened: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return softened
