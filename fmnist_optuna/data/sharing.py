"""Training and validation arrays as files that several workers map into memory: each page is there once for all.

Owns the files' names and form. Knows no TensorFlow, so that a supervisor may write what its workers map.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.split import Splits
from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)

NAMES = ("train_images", "train_labels", "validation_images", "validation_labels")


def share_arrays(splits: Splits, folder: Path) -> Path | None:
    """Write the arrays that training needs, 47 MB for Fashion-MNIST, to a folder.

    Returns:
        The folder, or None where there is no room: the workers then load the data themselves.
    """
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
        return {name: np.load(_file(folder, name), mmap_mode="c") for name in NAMES}
    except FileNotFoundError:
        return None


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
