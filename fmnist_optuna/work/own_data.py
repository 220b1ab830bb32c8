"""Data of the user's own: a function that returns a Dataset, called in a process of its own.

Nothing of the user's runs in a process that goes on. The function has a fresh interpreter to itself, with Python's and
NumPy's random numbers begun anew; what it returned is checked, split, hashed and written to files that others map.
"""

import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from fmnist_optuna.data.dataset import Dataset
from fmnist_optuna.data.sharing import DESCRIPTION, map_splits, write_splits
from fmnist_optuna.data.split import Splits, split_dataset
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import DataError, MismatchError, StorageError, is_ctrl_c
from fmnist_optuna.processes.children import Call
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.spec.study_spec import DataSpec
from fmnist_optuna.user_modules.functions import load_function
from fmnist_optuna.wording import reason_of

KEY = "data.source"
SEED = 0  # of random numbers that the function draws

_LOADED: dict[str, Path] = {}  # folders of this process by fingerprint: equal for equal data, whoever asks


def load_own(data: DataSpec, expected_fingerprint: str | None = None) -> Splits:
    """Call the function, unless this process has the expected data already, and map what it gave.

    Raises:
        SpecError: There is no such module or function, or its import fails.
        UsageError: Too few or too many images would be held out.
        DataError: The function raises, or returns something else than a Dataset.
        MismatchError: It gives other data than expected.
        StorageError: There is no room for the arrays.
    """
    folder = _LOADED.get(expected_fingerprint or "")
    if folder is None or not (folder / DESCRIPTION).exists():  # somebody may have tidied the temporary folder
        folder = _call(data, expected_fingerprint)
    return map_splits(folder)


def load_own_again(data: DataSpec) -> Call[str]:
    """A child that calls the function once more; its result is the fingerprint of what it gives then."""
    return Call(_load, data, None, doing=f"loading {data.source} again", is_warm=False)


def check_same(data: DataSpec, first: str, second: str) -> None:
    """Refuse a function that gives other data each time: no later process could go on with the study.

    Raises:
        DataError: The fingerprints of two calls differ.
    """
    if first != second:
        raise DataError(
            f"{KEY} must give the same data each time, but {data.source} gave other images, labels or info when it was "
            "called a second time; seed whatever it draws, and put into order what it reads."
        )


def _call(data: DataSpec, expected: str | None) -> Path:
    """A folder with what the function gives."""
    folder = Path(tempfile.mkdtemp(prefix="data-", dir=temporary_folder()))
    try:
        found = Call(_load, data, folder, doing=f"loading {data.source}", is_warm=False).result()
        if expected not in (None, found):
            raise MismatchError(
                f"{KEY} must give the data that the study was created with, fingerprint {expected}, but {data.source} "
                f"gives other images, labels or info, fingerprint {found}; bring back the function and what it reads, "
                "or start a study of another name."
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _LOADED[found] = folder
    return folder


def _load(data: DataSpec, folder: Path | None) -> str:
    """In a process of its own: call the function, and write what it gave to a folder, if there is one."""
    splits = read_own(data)
    if folder is not None:
        try:
            write_splits(splits, folder)
        except OSError as error:
            raise StorageError(
                f"Temporary files must have room for the data of {data.source}, but {folder}: {reason_of(error)}; set "
                "TMPDIR to a folder with more."
            ) from error
    return splits.fingerprint


def read_own(data: DataSpec) -> Splits:
    """What the function gives, called in this process.

    Raises:
        SpecError: There is no such module or function, or its import fails.
        UsageError: Too few or too many images would be held out.
        DataError: The function raises, or returns something else than a Dataset.
    """
    random.seed(SEED)
    np.random.seed(SEED)  # what is drawn without a generator of one's own
    function = load_function(data.source, KEY)
    rule = f"{KEY} must return a Dataset, but {data.source}"
    try:
        dataset = function()
        if isinstance(dataset, Dataset):
            dataset = replace(dataset)  # with its arrays as they are by now
    except DataError as error:  # of one of the two classes
        raise DataError(f"{rule} gave another: {describe_error(error).removeprefix('DataError: ')}.") from error
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        raise DataError(f"{rule} raised {describe_error(error)}.") from error
    if not isinstance(dataset, Dataset):
        raise DataError(f"{rule} returned {type(dataset).__name__}.")
    return split_dataset(dataset, data.source, data.n_validation, data.split_seed)
