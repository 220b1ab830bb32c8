"""Training and validation images that stay in memory as tensors."""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo, Images, Labels
from fmnist_optuna.errors import MismatchError


@dataclass(frozen=True)
class ResidentData:
    """Training and validation images as tensors (n, *image_shape), with int32 labels (n,).

    Args:
        info: What they are.
        soft_labels: A teacher's probabilities of the training images, float32 (n, n_classes); None without a teacher.
    """

    info: DatasetInfo
    train_images: tf.Tensor
    train_labels: tf.Tensor
    validation_images: tf.Tensor
    validation_labels: tf.Tensor
    soft_labels: tf.Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        info: DatasetInfo,
        train_images: Images,
        train_labels: Labels,
        validation_images: Images,
        validation_labels: Labels,
    ) -> "ResidentData":
        """Take arrays into TensorFlow once: mapped images stay in the pages where they are, others are copied."""
        return cls(
            info,
            _as_tensor(train_images),
            tf.constant(train_labels.astype(np.int32)),
            _as_tensor(validation_images),
            tf.constant(validation_labels.astype(np.int32)),
        )

    def with_soft_labels(self, soft_labels: NDArray[np.float32]) -> "ResidentData":
        """The same with what a teacher says of the training images.

        Args:
            soft_labels: Probabilities (n, n_classes): of the training images, and of any behind them.

        Raises:
            MismatchError: There are none of some images.
        """
        n_images = int(self.train_images.shape[0])
        if len(soft_labels) < n_images:
            raise MismatchError(
                f"Soft labels must be of all {n_images:,} training images, but are of {len(soft_labels):,}."
            )
        return replace(self, soft_labels=tf.constant(soft_labels[:n_images]))


def _as_tensor(images: Images) -> tf.Tensor:
    if isinstance(images, np.memmap):
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return tf.constant(images)
