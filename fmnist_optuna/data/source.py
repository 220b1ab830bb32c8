"""Where a study's data comes from, decided once; and the one function that loads it for whoever needs it.

Leaves files to `fashion_mnist`, mirrors to `download`, drawing to `synthetic` and the split to `split`; knows no Keras,
no Optuna and no environment variable of ours: the caller resolves FMNIST_OPTUNA_DATA into `data_dir`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.data import download, fashion_mnist
from fmnist_optuna.data.built_in import BUILT_IN, expect_info
from fmnist_optuna.data.dataset import Dataset
from fmnist_optuna.data.download import ask_mirrors, fetch
from fmnist_optuna.data.fashion_mnist import find_data_dir, load_fashion_mnist
from fmnist_optuna.data.split import Splits, check_n_validation, split_dataset, split_into_folds
from fmnist_optuna.data.synthetic import N_TRAIN, load_garments
from fmnist_optuna.errors import MismatchError, UsageError
from fmnist_optuna.spec.data_spec import DataSpec

SYNTHETIC_VALIDATION_SHARE = 5  # at most one image in five validates: 2,400 of 12,000, the share of 12,000 in 60,000


@dataclass(frozen=True)
class ResolvedData:
    """The source that a study will use, decided once; `data_dir` is of files alone, `reason` says why.

    `is_fallback` says that the synthetic one was not asked for.
    """

    source: str
    data_dir: Path | None
    reason: str
    is_fallback: bool = False


def resolve_source(
    source: str,
    data_dir: Path | None = None,
    mirrors: Sequence[str] = (),
) -> ResolvedData:
    """Decide where the data comes from, downloading it if that is needed.

    Files found on disk are not read here: `load_splits` verifies each before use, and never falls back.

    Args:
        source: "synthetic" and a function of the user's own look nowhere; "fashion-mnist" never falls back; "auto"
            falls back to synthetic only if no folder was given, no cache is complete and no mirror answers in time.
        data_dir: The only folder looked at, if given.
        mirrors: Base URLs to try after the default ones.

    Raises:
        DataError: The given folder lacks a file, or the download failed although a mirror answered.
    """
    if source not in ("auto", "fashion-mnist"):
        reason = f"{'synthetic garments' if source == 'synthetic' else source}, as asked for"
        return ResolvedData(source, None if source == "synthetic" else data_dir, reason)
    found = find_data_dir(data_dir)
    if found is not None:
        return ResolvedData("fashion-mnist", found, f"Fashion-MNIST found in {found}")
    if source == "auto":
        answered, causes = ask_mirrors([*download.DEFAULT_MIRRORS, *mirrors], fashion_mnist.FASHION_MNIST_FILES)
        if not answered:
            why = "; ".join(f"{mirror} ({cause})" for mirror, cause in causes.items())
            reason = f"synthetic garments, because Fashion-MNIST is neither on disk nor reachable: {why}"
            return ResolvedData("synthetic", None, reason, is_fallback=True)
    fetched = fetch(None, mirrors)
    return ResolvedData("fashion-mnist", fetched, f"Fashion-MNIST downloaded into {fetched}")


def load_splits(
    source: str,
    n_validation: int,
    split_seed: int,
    data_dir: Path | None = None,
    expected_fingerprint: str | None = None,
    n_folds: int = 0,
) -> Splits:
    """Load the images of a built-in source and split the training ones, stratified by label; never downloads.

    Args:
        source: "fashion-mnist" or "synthetic".
        n_validation: Images set aside for validation: from the number of classes to that many less than there are.
            Of the synthetic images, which are fewer, at most a fifth is set aside, whatever is asked for.
        split_seed: Seed of the split, >= 0. The same seed gives the same split.
        data_dir: Folder with the four files of Fashion-MNIST; None looks into the caches. Not used for other sources.
        expected_fingerprint: What the study was created with; None accepts any.
        n_folds: Into which the training images are dealt, in the place of n_validation; 0 for none.

    Raises:
        DataError: A file is missing or corrupt.
        MismatchError: The fingerprint is not the expected one.
        UsageError: n_validation, n_folds or split_seed is out of range.
    """
    dataset, n_validation = _load_dataset(source, data_dir), _count_held_out(source, n_validation)
    if n_folds:
        splits, how = split_into_folds(dataset, source, n_folds, split_seed), f"folds={n_folds}"
    else:
        splits, how = split_dataset(dataset, source, n_validation, split_seed), f"n_validation={n_validation}"
    if expected_fingerprint not in (None, splits.fingerprint):
        raise MismatchError(
            f"the data must have the fingerprint {expected_fingerprint} that the study was created with, but "
            f"{source} ({how}, split_seed={split_seed}) from {data_dir or 'the cache'} has "
            f"{splits.fingerprint}; name the folder of the original files (--data-dir DIR), or start a study "
            "of another name"
        )
    return splits


def check_split(data: DataSpec) -> None:
    """Check how many images of a built-in source are to be held out, before they are read.

    Raises:
        UsageError: Too few or too many.
    """
    if data.folds:  # of which built-in data may have as many as a study file may say
        return
    n_images = fashion_mnist.FASHION_MNIST_FILES[0].shape[0] if data.source in ("auto", "fashion-mnist") else N_TRAIN
    n_validation = _count_held_out(data.source, data.n_validation)
    check_n_validation(n_validation, n_images, expect_info(data.source).n_classes)


def with_source(data: DataSpec, source: str) -> DataSpec:
    """The data of a study whose source is decided, with the number of images that are really held out of it.

    The pruner's margin is counted in it. Of the synthetic images, which are fewer, at most a fifth is held out.
    """
    held_out = {} if data.folds else {"n_validation": _count_held_out(source, data.n_validation)}
    return data.model_copy(update={"source": source, **held_out})


def _count_held_out(source: str, n_validation: int) -> int:
    return min(n_validation, N_TRAIN // SYNTHETIC_VALIDATION_SHARE) if source == "synthetic" else n_validation


def _load_dataset(source: str, data_dir: Path | None) -> Dataset:
    if source == "synthetic":
        return load_garments()
    if source == "fashion-mnist":
        return load_fashion_mnist(data_dir)
    raise UsageError(f"the data source must be {' or '.join(BUILT_IN)} once resolved, but got {source!r}")
