"""Training and validation images that stay in memory as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo, Images, Labels
from fmnist_optuna.data.folds import take_fold
from fmnist_optuna.data.weights import Weights
from fmnist_optuna.errors import MismatchError, SpecError
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.repeats import fold_of


@dataclass(frozen=True)
class ResidentData:
    """Training and validation images as tensors (n, *image_shape), with int32 labels (n,).

    Args:
        info: What they are.
        soft_labels: A teacher's probabilities of the training images, float32 (n, n_classes); None without a teacher.
        train_weights: What the losses of the training images count by, float32 (n,); None where all count alike.
    """

    info: DatasetInfo
    train_images: tf.Tensor
    train_labels: tf.Tensor
    validation_images: tf.Tensor
    validation_labels: tf.Tensor
    soft_labels: tf.Tensor | None = None
    train_weights: tf.Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        info: DatasetInfo,
        train_images: Images,
        train_labels: Labels,
        validation_images: Images,
        validation_labels: Labels,
        train_weights: Weights | None = None,
    ) -> "ResidentData":
        """Take arrays into TensorFlow once: mapped images stay in the pages where they are, others are copied."""
        return cls(
            info,
            _as_tensor(train_images),
            tf.constant(train_labels.astype(np.int32)),
            _as_tensor(validation_images),
            tf.constant(validation_labels.astype(np.int32)),
            train_weights=None if train_weights is None else tf.constant(train_weights.astype(np.float32)),
        )

    def of(self, params: Params) -> "ResidentData":
        """What a cell is trained with: the same for all."""
        return self

    def weighted(self, class_weight: str) -> "ResidentData":
        """The same with the weights that a study asks for.

        Args:
            class_weight: "balanced": a loss counts by n / (n_classes * images of its class), as scikit-learn has it, of
                the images that are trained on; "none" leaves the weights as they are.

        Raises:
            SpecError: The images have weights of their own.
        """
        if class_weight == "none":
            return self
        if self.train_weights is not None:
            raise SpecError(
                'training.class_weight must be "none" where data.source gives weights of its own, but is '
                f'"{class_weight}"; leave the one or the other out.'
            )
        labels = self.train_labels.numpy()
        n_of_class = np.bincount(labels, minlength=self.info.n_classes)
        weights = len(labels) / (self.info.n_classes * np.maximum(n_of_class, 1))
        return replace(self, train_weights=tf.constant(weights[labels].astype(np.float32)))

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


class FoldedData:
    """The images of a study with folds, of which each cell is validated by one; those of the last cell stay in memory.

    Args:
        info: What they are.
        arrays: What `map_arrays` gives: all images to train on, (n, *image_shape), and their folds, (n,).
    """

    def __init__(self, info: DatasetInfo, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.info = info
        self._arrays = arrays
        self._made: tuple[int, ResidentData] | None = None

    def of(self, params: Params) -> ResidentData:
        """What a cell is trained with.

        Raises:
            MismatchError: It names no fold.
        """
        fold = fold_of(params)
        if fold is None:
            raise MismatchError("A cell of a study with folds must say which one validates it, but names none.")
        if self._made is None or self._made[0] != fold:
            self._made = None  # before the next takes memory
            arrays = take_fold(self._arrays, fold)
            arrays.pop("validation_weights", None)
            self._made = fold, ResidentData.from_arrays(self.info, **arrays)
        return self._made[1]


def _as_tensor(images: Images) -> tf.Tensor:
    if isinstance(images, np.memmap):
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return tf.constant(images)
