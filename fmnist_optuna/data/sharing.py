"""The arrays of a study as files that several processes map into memory: each page is there once for all.

Owns the files' names and form. Knows no TensorFlow, so that a supervisor may write what its workers map.
"""

import json
import logging
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
OF_TEST = ("test_images", "test_labels")
DESCRIPTION = "splits.json"


def share_arrays(splits: Splits, folder: Path) -> Path | None:
    """Write the arrays that training needs, 47 MB for Fashion-MNIST, to a folder, unless they lie in one already.

    Returns:
        The folder, or None where there is no room: the workers then load the data themselves.
    """
    if splits.folder is not None:
        return splits.folder
    try:
        for name in NAMES:
            np.save(_file(folder, name), getattr(splits, name))
    except OSError as error:
        for name in NAMES:  # what was begun would fill the disk for as long as the run lasts
            _file(folder, name).unlink(missing_ok=True)
        log_event(logger, logging.WARNING, "data_not_shared", folder=folder, error=error.strerror)
        return None
    return folder


def map_arrays(folder: Path) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays by name, mapped copy-on-write: images (n, *image_shape) and labels (n,).

    They outlive their files. None where the files are gone, as a temporary folder may be tidied in a long run.
    """
    try:
        return _map(folder, NAMES)
    except FileNotFoundError:
        return None


def write_splits(splits: Splits, folder: Path) -> None:
    """Write all of a study's data to a folder: what `map_arrays` maps, the arrays of the test, and what they are.

    Raises:
        OSError: There is no room.
    """
    for name in (*NAMES, *OF_TEST):
        np.save(_file(folder, name), getattr(splits, name))
    content = {"info": splits.info.to_content(), "source": splits.source, "fingerprint": splits.fingerprint}
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
        folder=folder,
        **_map(folder, (*NAMES, *OF_TEST)),
    )


def _map(folder: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.load(_file(folder, name), mmap_mode="c") for name in names}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
