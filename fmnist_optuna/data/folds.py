"""The folds of the training images: which image is in which, and the arrays of one of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.dataset import Labels
from fmnist_optuna.errors import UsageError

Int64Array = npt.NDArray[np.int64]


def fold_numbers(labels: Labels, class_names: Sequence[str], n_folds: int, split_seed: int) -> Int64Array:
    """The fold of each image, (n,), from 1.

    The images of each class are shuffled and dealt out in turn, those of the next class from where the last one ended.
    So the sizes of two folds differ by at most one, and their numbers of images of a class too.

    Raises:
        UsageError: n_folds or split_seed is out of range.
    """
    n_of_class = np.bincount(labels, minlength=len(class_names))
    rarest = int(n_of_class.argmin())
    if not 2 <= n_folds <= n_of_class[rarest]:
        raise UsageError(
            f"data.folds must be 2 to {n_of_class[rarest]:,}, the number of training images of the rarest class "
            f"({class_names[rarest]}), so that every fold has one of each class, but got {n_folds}"
        )
    if split_seed < 0:
        raise UsageError(f"split_seed must be 0 or more, but got {split_seed}")
    generator = np.random.Generator(np.random.PCG64(split_seed))
    in_order = np.concatenate(
        [generator.permutation(np.flatnonzero(labels == label)) for label in range(len(class_names))]
    )
    folds = np.empty(len(labels), dtype=np.int64)
    folds[in_order] = np.arange(len(labels)) % n_folds + 1
    return folds


def take_fold(arrays: Mapping[str, npt.NDArray[Any]], number: int) -> dict[str, npt.NDArray[Any]]:
    """The arrays of one fold, by the names that they have in `Splits`.

    Args:
        arrays: All images to train on, their labels and folds, and their weights, if there are any.
        number: Of the fold, from 1.
    """
    is_held_out = np.asarray(arrays["folds"]) == number
    parts = {}
    for name in ("images", "labels", "weights"):
        if (array := arrays.get(f"train_{name}")) is not None:
            parts[f"train_{name}"] = np.asarray(array)[~is_held_out]
            parts[f"validation_{name}"] = np.asarray(array)[is_held_out]
    return parts
