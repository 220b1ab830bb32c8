"""Images and labels in three roles: the stratified split of a data set, and a fingerprint of the outcome."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.built_in import BUILT_IN
from fmnist_optuna.data.dataset import Dataset, DatasetInfo, Images, Labels
from fmnist_optuna.data.folds import Int64Array, fold_numbers, take_fold
from fmnist_optuna.data.weights import Weights
from fmnist_optuna.errors import DataError, UsageError
from fmnist_optuna.search.cell import canonical_json
from fmnist_optuna.spec.data_spec import FORMS, form_of

Element = TypeVar("Element", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Splits:
    """Images (n, *image_shape) and labels (n,), uint8 or uint16, C-contiguous and read-only, in three roles.

    Attributes:
        info: What the images and labels are.
        source: As a study file names it: "fashion-mnist", "folder:pets", "package.module:function".
        fingerprint: SHA-256, 64 hex digits, over info, images, labels and split; equal only for equal data.
        folder: Where the arrays lie as files, for other processes to map; None where they do not.
        train_weights: What the losses of the training images count by, float32 (n,); None where all count alike.
        validation_weights: The same of the validation images, for when they are trained on too.
        n_skipped: Files that were left out because they could not be read.
        folds: Where they are cross-validated, the fold of each training image, int64 (n,), from 1: then all of them are
            to train on and none to validate, until `fold` is asked for one.
    """

    info: DatasetInfo
    source: str
    fingerprint: str
    train_images: Images
    train_labels: Labels
    validation_images: Images
    validation_labels: Labels
    test_images: Images
    test_labels: Labels
    folder: Path | None = None
    train_weights: Weights | None = None
    validation_weights: Weights | None = None
    n_skipped: int = 0
    folds: Int64Array | None = None

    def fold(self, number: int) -> "Splits":
        """The same data with the images of one fold to validate, and all others to train on, each in their order.

        Args:
            number: Of the fold, from 1.
        """
        if self.folds is None:
            raise ValueError("data without folds has no fold")
        arrays = {name: getattr(self, name) for name in ("train_images", "train_labels", "train_weights", "folds")}
        parts = take_fold({name: array for name, array in arrays.items() if array is not None}, number)
        fingerprint = hashlib.sha256(f"{self.fingerprint} fold {number}".encode()).hexdigest()
        return replace(
            self,
            fingerprint=fingerprint,
            train_images=_read_only(parts["train_images"]),
            train_labels=_read_only(parts["train_labels"]),
            validation_images=_read_only(parts["validation_images"]),
            validation_labels=_read_only(parts["validation_labels"]),
            folder=None,
            train_weights=None if self.train_weights is None else _read_only(parts["train_weights"]),
            validation_weights=None if self.train_weights is None else _read_only(parts["validation_weights"]),
            folds=None,
        )


def split_dataset(dataset: Dataset, source: str, n_validation: int, split_seed: int) -> Splits:
    """Set some of the training images aside for validation, stratified by label.

    Args:
        source: As a study file names it.
        n_validation: Images set aside: from the number of classes to that many less than there are.
        split_seed: Seed of the split, >= 0. The same seed gives the same split.

    Raises:
        UsageError: n_validation or split_seed is out of range, or a class would have no image to validate on.
        DataError: No image that is trained on has a weight above 0.
    """
    images, labels, weights = dataset.train_images, dataset.train_labels, dataset.train_weights
    train, validation = split_indices(labels, dataset.info.class_names, n_validation, split_seed)
    _check_validation(labels, validation, dataset.info)
    if weights is not None and not weights[train].any():
        raise DataError(
            "Dataset.train_weights must not all be 0 for the images that are trained on, but are, as those above 0 are "
            "held out for validation"
        )
    arrays = [images, labels, dataset.test_images, dataset.test_labels, train, validation]
    arrays += [] if weights is None else [weights]
    return Splits(
        info=dataset.info,
        source=source,
        fingerprint=_fingerprint(source, dataset.info, arrays),
        train_images=_read_only(images[train]),
        train_labels=_read_only(labels[train]),
        validation_images=_read_only(images[validation]),
        validation_labels=_read_only(labels[validation]),
        test_images=_read_only(dataset.test_images),
        test_labels=_read_only(dataset.test_labels),
        train_weights=None if weights is None else _read_only(weights[train]),
        validation_weights=None if weights is None else _read_only(weights[validation]),
        n_skipped=dataset.n_skipped,
    )


def split_into_folds(dataset: Dataset, source: str, n_folds: int, split_seed: int) -> Splits:
    """Deal the training images to folds, stratified by label, each of which can validate what the others train.

    Args:
        source: As a study file names it.
        n_folds: From 2 to the number of images of the rarest class.
        split_seed: Seed of the split, >= 0. The same seed gives the same folds.

    Raises:
        UsageError: n_folds or split_seed is out of range.
        DataError: No image that is trained on beside a fold has a weight above 0.
    """
    images, labels, weights = dataset.train_images, dataset.train_labels, dataset.train_weights
    folds = fold_numbers(labels, dataset.info.class_names, n_folds, split_seed)
    if weights is not None and len(np.unique(folds[weights > 0])) < 2:
        raise DataError(
            "Dataset.train_weights must not all be 0 for the images that are trained on, but are beside one fold, as "
            "those above 0 are all in that"
        )
    arrays = [images, labels, dataset.test_images, dataset.test_labels, folds, *([] if weights is None else [weights])]
    return Splits(
        info=dataset.info,
        source=source,
        fingerprint=_fingerprint(source, dataset.info, arrays),
        train_images=_read_only(images),
        train_labels=_read_only(labels),
        validation_images=_read_only(images[:0]),
        validation_labels=_read_only(labels[:0]),
        test_images=_read_only(dataset.test_images),
        test_labels=_read_only(dataset.test_labels),
        train_weights=None if weights is None else _read_only(weights),
        n_skipped=dataset.n_skipped,
        folds=_read_only(folds),
    )


def _check_validation(labels: Labels, validation: Int64Array, info: DatasetInfo) -> None:
    n_held_out = np.bincount(labels[validation], minlength=info.n_classes)
    if n_held_out.min() > 0:
        return
    label = int(n_held_out.argmin())
    raise UsageError(
        f"data.n_validation must hold out images of every class, but {len(validation):,} of {len(labels):,} hold out "
        f"none of the {np.sum(labels == label):,} of class {label} ({info.class_names[label]}); with "
        f"{fewest_to_validate(labels)} there is one of each."
    )


def fewest_to_validate(labels: Labels) -> int:
    """How many images to hold out so that, stratified, there is one of the rarest class.

    Args:
        labels: Of all classes, each at least twice.
    """
    n_of_class = np.bincount(labels)
    return -(-len(labels) // int(n_of_class[n_of_class > 0].min()))


def with_validation(splits: Splits) -> Splits:
    """The same data, whose validation images are trained on too: they come after the others, each in their order.

    With folds all images are trained on in their order, and those of the first fold are what is measured meanwhile.
    """
    if splits.folds is not None:
        is_first, train_weights = np.asarray(splits.folds) == 1, splits.train_weights
        return replace(
            splits,
            fingerprint=_with_validation(splits),
            folder=None,
            validation_images=_read_only(np.asarray(splits.train_images)[is_first]),
            validation_labels=_read_only(np.asarray(splits.train_labels)[is_first]),
            validation_weights=None if train_weights is None else _read_only(np.asarray(train_weights)[is_first]),
            folds=None,
        )
    images = [np.asarray(splits.train_images), np.asarray(splits.validation_images)]  # no longer mapped ones
    labels = [np.asarray(splits.train_labels), np.asarray(splits.validation_labels)]
    weights = [np.asarray(each) for each in (splits.train_weights, splits.validation_weights) if each is not None]
    return replace(
        splits,
        fingerprint=_with_validation(splits),
        folder=None,
        train_images=_read_only(np.concatenate(images)),
        train_labels=_read_only(np.concatenate(labels)),
        train_weights=_read_only(np.concatenate(weights)) if weights else None,
    )


def _with_validation(splits: Splits) -> str:
    return hashlib.sha256(f"{splits.fingerprint} with validation".encode()).hexdigest()


def _read_only(array: npt.NDArray[Element]) -> npt.NDArray[Element]:
    view = array.view()  # the array itself may be somebody else's
    view.flags.writeable = False
    return view


def check_n_validation(n_validation: int, n_images: int, n_classes: int) -> None:
    """Check that each class can have an image of either role.

    Raises:
        UsageError: Too few or too many images would be held out.
    """
    if not n_classes <= n_validation <= n_images - n_classes:
        raise UsageError(
            f"data.n_validation must be {n_classes} to {n_images - n_classes:,} for {n_images:,} training images of "
            f"{n_classes} classes, but got {n_validation}"
        )


def split_indices(
    labels: Labels, class_names: Sequence[str], n_validation: int, split_seed: int
) -> tuple[Int64Array, Int64Array]:
    """Indices of training and validation, each ascending, so that the images keep their order.

    A class gets its exact share of n_validation, rounded so that the sum is n_validation: the largest remainders
    are rounded up, the lower label first among equals.

    Raises:
        UsageError: n_validation or split_seed is out of range, or a class would have no image to train on.
    """
    n_classes, n_images = len(class_names), len(labels)
    check_n_validation(n_validation, n_images, n_classes)
    if split_seed < 0:
        raise UsageError(f"split_seed must be 0 or more, but got {split_seed}")
    n_of_class = np.bincount(labels, minlength=n_classes)
    share, remainder = np.divmod(n_of_class * n_validation, n_images)  # integers: exact
    share[np.argsort(-remainder, kind="stable")[: n_validation - share.sum()]] += 1
    if emptied := np.flatnonzero((share == n_of_class) & (n_of_class > 0)).tolist():
        label = emptied[0]
        raise UsageError(
            f"n_validation must leave images of every class to train on, but {n_validation} would take all "
            f"{n_of_class[label]} of class {label} ({class_names[label]})"
        )
    generator = np.random.Generator(np.random.PCG64(split_seed))
    is_validation = np.zeros(n_images, dtype=np.bool_)
    for label, n_chosen in enumerate(share):
        is_validation[generator.permutation(np.flatnonzero(labels == label))[:n_chosen]] = True
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def _fingerprint(source: str, info: DatasetInfo, arrays: Sequence[npt.NDArray[np.generic]]) -> str:
    """SHA-256 over the name of the data and, of each array, its shape and its bytes.

    The name is that of a built-in source or of a function of the user's own. Of files it says that they are files,
    wherever they lie, or which built-in data they are. But for built-in data the info follows it as JSON.

    The arrays are all training images and labels in their order, the test images and labels, the indices of training
    and of validation or the fold of each image, and the weights of the training images, if there are any. The shapes
    keep neighbours apart. Bytes are little-endian.
    """
    name = source
    if form_of(source) in FORMS:
        name = next((name for name, built_in in BUILT_IN.items() if built_in == info), "files")
    digest = hashlib.sha256(name.encode())
    if BUILT_IN.get(name) != info:
        digest.update(f"\n{canonical_json(info.to_content())}".encode())
    for array in arrays:
        dtype = "<i8" if array.dtype.kind == "i" else array.dtype.newbyteorder("<")
        content = np.ascontiguousarray(array, dtype=dtype)
        digest.update(f"\n{content.shape}\n".encode())
        digest.update(content.data)
    return digest.hexdigest()
