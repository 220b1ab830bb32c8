"""Sources of a study file that are a form and a place: `idx:DIR`, `folder:DIR`, `npz:FILE`, `keras:NAME`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from fmnist_optuna.data.dataset import Dataset
from fmnist_optuna.data.readers.idx_files import read_idx
from fmnist_optuna.data.readers.keras_sets import read_keras
from fmnist_optuna.data.readers.npz_file import read_npz
from fmnist_optuna.data.readers.picture_folders import read_folder
from fmnist_optuna.spec.data_spec import DataSpec

READERS: Mapping[str, Callable[[DataSpec, Path], Dataset]] = {
    "idx": read_idx,
    "folder": read_folder,
    "npz": read_npz,
    "keras": read_keras,
}


def read_form(data: DataSpec, place: Path) -> Dataset:
    """Read a source of one of the forms.

    Args:
        data: With such a source.
        place: Where it is on this machine; of keras: the name of the data set.

    Raises:
        DataError: What is there is not of that form.
    """
    return READERS[data.form](data, place)
