"""The arrays of a study as files that several processes map into memory: each page is there once for all.

Owns the files' names and form. Knows no TensorFlow, so that a supervisor may write what its workers map.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.split import Splits
from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)

NAMES = ("train_images", "train_labels", "validation_images", "validation_labels")
TRAIN_WEIGHTS = "train_weights"
OF_WEIGHTS = (TRAIN_WEIGHTS, "validation_weights")  # of a source that gives some
FOLDS = "folds"  # of a study with some
OF_TEST = ("test_images", "test_labels")
DESCRIPTION = "splits.json"

SHARED_AT_MOST = 8  # folders of 55 MB, for Fashion-MNIST
_SHARED: dict[str, Path] = {}  # folders of this process by fingerprint: equal for equal data, whoever asks


def share_arrays(splits: Splits, folder: Path) -> Path | None:
    """Write a study's data, 55 MB for Fashion-MNIST, to a new folder within one, unless it lies in a folder already.

    Returns:
        The folder, or None where there is no room: the children then load the data themselves.
    """
    there = splits.folder or find_shared(splits.fingerprint)
    if there is not None:
        return there
    made = None
    try:
        made = Path(tempfile.mkdtemp(prefix="data-", dir=folder))
        write_splits(splits, made)
    except OSError as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)  # it would fill the disk for as long as the run lasts
        log_event(logger, logging.WARNING, "data_not_shared", folder=folder, error=error.strerror)
        return None
    _SHARED[splits.fingerprint] = made
    while len(_SHARED) > SHARED_AT_MOST:  # of a process that runs one study after another
        shutil.rmtree(_SHARED.pop(next(iter(_SHARED))), ignore_errors=True)
    return made


def find_shared(fingerprint: str) -> Path | None:
    """The folder into which this process wrote data of a fingerprint, if it did and nobody has tidied it away."""
    folder = _SHARED.get(fingerprint)
    return folder if folder is not None and (folder / DESCRIPTION).exists() else None


def map_arrays(folder: Path) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays by name, mapped copy-on-write: images (n, *image_shape), labels (n,), train_weights and folds, if any.

    They outlive their files. None where the files are gone, as a temporary folder may be tidied in a long run.
    """
    try:
        return _map(folder, NAMES) | _map(folder, _those_there(folder, (TRAIN_WEIGHTS, FOLDS)))
    except FileNotFoundError:
        return None


def write_splits(splits: Splits, folder: Path) -> None:
    """Write all of a study's data to a folder: what `map_arrays` maps, the arrays of the test, and what they are.

    Raises:
        OSError: There is no room.
    """
    for name in (*NAMES, *OF_TEST, *OF_WEIGHTS, FOLDS):
        if (array := getattr(splits, name)) is not None:
            np.save(_file(folder, name), array)
    described = {name: getattr(splits, name) for name in ("source", "fingerprint", "n_skipped")}
    content = {"info": splits.info.to_content(), **described}
    (folder / DESCRIPTION).write_text(json.dumps(content), encoding="utf-8")


def map_splits(folder: Path) -> Splits:
    """All of a study's data from a folder that `write_splits` wrote, mapped copy-on-write.

    Raises:
        FileNotFoundError: The files are gone.
    """
    content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return Splits(
        info=DatasetInfo.from_content(content["info"]),
        source=content["source"],
        fingerprint=content["fingerprint"],
        n_skipped=content["n_skipped"],
        folder=folder,
        **_map(folder, (*NAMES, *OF_TEST, *_those_there(folder, (*OF_WEIGHTS, FOLDS)))),
    )


def arrays_of(splits: Splits) -> dict[str, npt.NDArray[Any]]:
    """What `map_arrays` gives, of splits that are at hand."""
    found = {name: getattr(splits, name) for name in (*NAMES, TRAIN_WEIGHTS, FOLDS)}
    return {name: array for name, array in found.items() if array is not None}


def _those_there(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if _file(folder, name).exists()]


def _map(folder: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.load(_file(folder, name), mmap_mode="c") for name in names}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
