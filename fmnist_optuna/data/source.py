"""Images and labels in three roles: which source to use, the stratified split, and a fingerprint of the outcome.

Owns `Splits` and the split. Leaves files to `files`, mirrors to `download` and drawing to `synthetic`; knows no Keras,
no Optuna and no environment variable of ours: the caller resolves FMNIST_OPTUNA_DATA into `data_dir`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.download import DEFAULT_MIRRORS, REACH_TIMEOUT, ask_mirrors, fetch
from fmnist_optuna.data.idx import (
    FASHION_MNIST_FILES,
    FileCheck,
    IdxFile,
    find_data_dir,
    keras_cache_dir,
    read_arrays,
    user_cache_dir,
    verify_files,
)
from fmnist_optuna.data.synthetic import draw_garments
from fmnist_optuna.errors import DataError, UsageError

__all__ = [
    "CLASS_NAMES",
    "FileCheck",
    "ResolvedData",
    "Splits",
    "fetch",
    "find_data_dir",
    "load_splits",
    "resolve_source",
    "verify_files",
]

CLASS_NAMES = (  # in the order of the labels 0..9; source: README of github.com/zalandoresearch/fashion-mnist
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

SYNTHETIC_VALIDATION_SHARE = 5  # at most one image in five validates: 2,400 of 12,000, the share of 12,000 in 60,000

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """uint8 images (n, 28, 28) and uint8 labels (n,), C-contiguous and read-only, in three roles.

    Attributes:
        source: "fashion-mnist" or "synthetic".
        fingerprint: SHA-256, 64 hex digits, over source, images, labels and split; equal only for equal data.
        class_names: Ten names; the label is the index.
    """

    source: str
    fingerprint: str
    train_images: UInt8Array
    train_labels: UInt8Array
    validation_images: UInt8Array
    validation_labels: UInt8Array
    test_images: UInt8Array
    test_labels: UInt8Array
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ResolvedData:
    """The source that a study will use, decided once; `data_dir` is None for the synthetic one, `reason` says why.

    `is_fallback` says that the synthetic one was not asked for.
    """

    source: Literal["fashion-mnist", "synthetic"]
    data_dir: Path | None
    reason: str
    is_fallback: bool = False


def resolve_source(
    source: Literal["auto", "fashion-mnist", "synthetic"],
    data_dir: Path | None = None,
    mirrors: Sequence[str] = (),
    *,
    files: Sequence[IdxFile] = FASHION_MNIST_FILES,
    default_mirrors: Sequence[str] = DEFAULT_MIRRORS,
    reach_timeout: float = REACH_TIMEOUT,
) -> ResolvedData:
    """Decide where the data comes from, downloading it if that is needed.

    Files found on disk are not read here: `load_splits` verifies each before use, and never falls back.

    Args:
        source: "synthetic" looks nowhere; "fashion-mnist" never falls back; "auto" falls back to synthetic only
            if no folder was given, no cache is complete and no mirror answers in time.
        data_dir: The only folder looked at, if given.
        mirrors: Base URLs to try after the default ones.
        files: What Fashion-MNIST is; for tests.
        default_mirrors: Base URLs to try first; for tests.
        reach_timeout: Seconds until some mirror must have answered.

    Raises:
        DataError: The given folder lacks a file, or the download failed although a mirror answered.
    """
    if source == "synthetic":
        return ResolvedData("synthetic", None, "synthetic garments, as asked for")
    found = find_data_dir(data_dir, files=files)
    if found is not None:
        return ResolvedData("fashion-mnist", found, f"Fashion-MNIST found in {found}")
    all_mirrors = [*default_mirrors, *mirrors]
    if source == "auto":
        answered, causes = ask_mirrors(all_mirrors, files, reach_timeout)
        if not answered:
            why = "; ".join(f"{mirror} ({cause})" for mirror, cause in causes.items())
            reason = f"synthetic garments, because Fashion-MNIST is neither on disk nor reachable: {why}"
            return ResolvedData("synthetic", None, reason, is_fallback=True)
    fetched = fetch(None, files=files, default_mirrors=all_mirrors, reach_timeout=reach_timeout)
    return ResolvedData("fashion-mnist", fetched, f"Fashion-MNIST downloaded into {fetched}")


def load_splits(
    source: Literal["fashion-mnist", "synthetic"],
    n_validation: int,
    split_seed: int,
    data_dir: Path | None = None,
    expected_fingerprint: str | None = None,
    *,
    files: Sequence[IdxFile] = FASHION_MNIST_FILES,
) -> Splits:
    """Load the images and split the training ones, stratified by label; never downloads.

    Args:
        source: Where the images come from.
        n_validation: Images set aside for validation: from the number of classes to that many less than there are.
            Of the synthetic images, which are fewer, at most a fifth is set aside, whatever is asked for.
        split_seed: Seed of the split, >= 0. The same seed gives the same split.
        data_dir: Folder with the four files; None looks into the caches. Not used for the synthetic source.
        expected_fingerprint: What the study was created with; None accepts any.
        files: What Fashion-MNIST is; for tests.

    Raises:
        DataError: A file is missing or corrupt, or the fingerprint is not the expected one.
        UsageError: n_validation or split_seed is out of range.
    """
    images, labels, test_images, test_labels = _load_arrays(source, data_dir, files)
    if source == "synthetic":
        n_validation = min(n_validation, len(labels) // SYNTHETIC_VALIDATION_SHARE)
    train, validation = _split(labels, n_validation, split_seed)
    fingerprint = _fingerprint(source, [images, labels, test_images, test_labels, train, validation])
    if expected_fingerprint not in (None, fingerprint):
        raise DataError(
            f"the data must have the fingerprint {expected_fingerprint} that the study was created with, but "
            f"{source} (n_validation={n_validation}, split_seed={split_seed}) from {data_dir or 'the cache'} has "
            f"{fingerprint}; name the original files with --data-dir DIR, or start a study of another name"
        )
    train_images, train_labels = images[train], labels[train]
    validation_images, validation_labels = images[validation], labels[validation]
    for array in (train_images, train_labels, validation_images, validation_labels, test_images, test_labels):
        array.flags.writeable = False
    return Splits(
        source=source,
        fingerprint=fingerprint,
        train_images=train_images,
        train_labels=train_labels,
        validation_images=validation_images,
        validation_labels=validation_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=CLASS_NAMES,
    )


def _load_arrays(source: str, data_dir: Path | None, files: Sequence[IdxFile]) -> Sequence[UInt8Array]:
    """Training images, training labels, test images, test labels."""
    if source == "synthetic":
        return draw_garments()
    if source != "fashion-mnist":
        raise UsageError(f'the data source must be "fashion-mnist" or "synthetic" once resolved, but got {source!r}')
    found = find_data_dir(data_dir, files=files)
    if found is None:
        raise DataError(
            f"Fashion-MNIST must be on disk, but neither {user_cache_dir()} nor "
            f"{keras_cache_dir()} holds all {len(files)} files; run: fmnist-optuna data fetch"
        )
    return read_arrays(found, files)


def _split(labels: UInt8Array, n_validation: int, split_seed: int) -> tuple[Int64Array, Int64Array]:
    """Indices of training and validation, each ascending, so that the images keep the order of the files.

    A class gets its exact share of n_validation, rounded so that the sum is n_validation: the largest remainders
    are rounded up, the lower label first among equals.
    """
    n_classes, n_images = len(CLASS_NAMES), len(labels)
    if not n_classes <= n_validation <= n_images - n_classes:
        raise UsageError(
            f"n_validation must be {n_classes} to {n_images - n_classes:,} for {n_images:,} training images of "
            f"{n_classes} classes, but got {n_validation}"
        )
    if split_seed < 0:
        raise UsageError(f"split_seed must be 0 or more, but got {split_seed}")
    n_of_class = np.bincount(labels, minlength=n_classes)
    share, remainder = np.divmod(n_of_class * n_validation, n_images)  # integers: exact
    share[np.argsort(-remainder, kind="stable")[: n_validation - share.sum()]] += 1
    generator = np.random.Generator(np.random.PCG64(split_seed))
    is_validation = np.zeros(n_images, dtype=np.bool_)
    for label, n_chosen in enumerate(share):
        is_validation[generator.permutation(np.flatnonzero(labels == label))[:n_chosen]] = True
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def _fingerprint(source: str, arrays: Sequence[UInt8Array | Int64Array]) -> str:
    """SHA-256 over the source's name and, of each array, its shape and its bytes (indices as little-endian int64).

    The arrays are all training images and labels in the order of the files, the test images and labels, and the
    indices of training and of validation. The shapes keep neighbours apart.
    """
    digest = hashlib.sha256(source.encode())
    for array in arrays:
        portable = np.ascontiguousarray(array, dtype=np.uint8 if array.dtype == np.uint8 else "<i8")
        digest.update(f"\n{portable.shape}\n".encode())
        digest.update(portable.data)
    return digest.hexdigest()
