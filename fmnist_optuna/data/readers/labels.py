"""Labels as files have them, integers or texts, made indices of class names; and a share of them kept out as a test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import (
    CLASSES,
    FEWEST_TO_TEST,
    FEWEST_TO_TRAIN,
    Labels,
    check_classes,
    label_dtype,
)
from fmnist_optuna.errors import DataError
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.wording import reason_of

# What to do with labels of other types, by NumPy's letter.
CONVERSIONS = {
    "f": "; take labels.astype(int)",
    "b": "; take labels.astype(int)",
    "O": "; take numpy.array(labels.tolist())",
}

Found = NDArray[np.generic]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedLabels:
    """Labels as indices of the class names.

    Args:
        train: (n,).
        test: (m,).
        class_names: In the order of the indices.
    """

    train: Labels
    test: Labels
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, train: Found, test: Found, class_names: Sequence[str]) -> "EncodedLabels":
        """Those of indices of any type."""
        dtype = label_dtype(len(class_names))
        return cls(train.astype(dtype), test.astype(dtype), tuple(class_names))


def encode(train: Found, test: Found, place: str, class_names: Sequence[str] = ()) -> EncodedLabels:
    """Indices from labels that are integers from 0 on, or texts.

    Args:
        train: (n,) or (n, 1).
        test: (m,) or (m, 1), of classes that are among those to train on.
        place: Where they are, for errors: "data.npz: y".
        class_names: Names of integers, in their order; else they are called by their number. Texts are names already,
            and are in alphabetical order.

    Raises:
        DataError: They are something else, or a class is missing.
    """
    train, test = flatten(train, place), flatten(test, place)
    is_text = [labels.dtype.kind in "US" for labels in (train, test)]
    if is_text[0] != is_text[1]:
        raise DataError(
            f"{place} must be all integers or all texts, but are {train.dtype} and, of the test, {test.dtype}."
        )
    if is_text[0]:
        if class_names:
            raise DataError(f"Names of classes must be of integers, but {place} are texts, which are names already.")
        encoded = _encode_texts(train, test, place)
    else:
        encoded = _encode_integers(train, test, place, class_names)
    check_classes(f"{place} to train on", encoded.train, encoded.class_names, FEWEST_TO_TRAIN)
    check_classes(f"{place} of the test", encoded.test, encoded.class_names, FEWEST_TO_TEST)
    return encoded


def flatten(labels: Found, place: str) -> Found:
    """Labels as an array of one axis, of integers or texts, of at least one example.

    Raises:
        DataError: They are something else.
    """
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(np.asarray(labels, np.bytes_), "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{place} must be texts in UTF-8, but are not: {reason_of(error)}.") from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        advice = "; of one-hot labels take numpy.argmax(labels, axis=1)" if labels.ndim == 2 else ""
        raise DataError(f"{place} must have the shape (n,), but have {labels.shape}{advice}.")
    if labels.dtype.kind not in "iuU":
        advice = CONVERSIONS.get(labels.dtype.kind, "")
        raise DataError(f"{place} must be integers or texts, but are {labels.dtype}{advice}.")
    if len(labels) == 0:
        raise DataError(f"{place} must be of at least one example, but are of none.")
    return labels


def _encode_texts(train: Found, test: Found, place: str) -> EncodedLabels:
    names, indices = np.unique(train, return_inverse=True)
    fewest, most = CLASSES
    if not fewest <= len(names) <= most:
        came = f"are of {len(names):,}" if len(names) > 1 else f"are all {names[0]!s}"
        raise DataError(f"{place} must be of {fewest} to {most:,} classes, but {came}.")
    if unknown := sorted(set(test.tolist()) - set(names.tolist())):
        raise DataError(f"{place} of the test must be among those to train on, but {unknown[0]!r} is not.")
    return EncodedLabels.of(indices, np.searchsorted(names, test), names.tolist())


def _encode_integers(train: Found, test: Found, place: str, class_names: Sequence[str]) -> EncodedLabels:
    low, high = int(train.min()), int(train.max())
    if low != 0:
        advice = f"; take {low} off each" if low > 0 else ""
        raise DataError(f"{place} must go from 0 on, but go from {low} to {high}{advice}.")
    n_classes = high + 1
    fewest, most = CLASSES
    if not fewest <= n_classes <= most:
        raise DataError(f"{place} must be of {fewest} to {most:,} classes, but go from 0 to {high:,}.")
    if not 0 <= int(test.min()) <= int(test.max()) < n_classes:
        wrong = next(int(label) for label in test if not 0 <= label < n_classes)
        raise DataError(f"{place} of the test must be among those to train on, 0 to {high}, but {wrong} is not.")
    if class_names and len(class_names) != n_classes:
        raise DataError(
            f"The names of the classes must be {n_classes:,}, as {place} go to {high}, but are {len(class_names):,}."
        )
    return EncodedLabels.of(train, test, tuple(class_names) or [str(label) for label in range(n_classes)])


def take_test(labels: Found, data: DataSpec, place: str) -> tuple[Indices, Indices]:
    """Places of the examples to train on and of those kept out as a test, each ascending.

    Of every class a share is kept out, rounded, but at least one example, and two are left to train on.

    Args:
        labels: (n,), integers or texts.
        data: With the share and the seed of the choice.
        place: Where they are, for errors: "data.npz: y".

    Raises:
        DataError: A class has fewer than three examples.
    """
    generator = np.random.Generator(np.random.PCG64(data.split_seed))
    is_test = np.zeros(len(labels), np.bool_)
    for name in np.unique(labels):
        places = np.flatnonzero(labels == name)
        most = len(places) - FEWEST_TO_TRAIN
        if most < FEWEST_TO_TEST:
            raise DataError(
                f"{place} must have every class at least three times, to train on, to validate on and to test with, "
                f"but {name} is there {'once' if len(places) == 1 else 'twice'}."
            )
        n_kept_out = min(most, max(FEWEST_TO_TEST, round(data.test_share * len(places))))
        is_test[generator.permutation(places)[:n_kept_out]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def refuse_share(data: DataSpec, place: str) -> None:
    """Refuse a share to be kept out of data that has a test set.

    Args:
        place: Where that is, for errors.

    Raises:
        DataError: The study file names one.
    """
    if "test_share" in data.model_fields_set:
        raise DataError(f"data.test_share must go with data without a test set, but {place} has one; remove the key.")
