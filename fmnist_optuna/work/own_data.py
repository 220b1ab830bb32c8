"""Data of the user's own: files of some form, or what a function returns, read in a process of its own.

Nothing of the user's runs in a process that goes on. A function has a fresh interpreter to itself, with Python's and
NumPy's random numbers begun anew; what it returned is checked, split, hashed and written to files that others map.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fmnist_optuna.data.dataset import Dataset
from fmnist_optuna.data.readers.arrays import RULE, make_dataset
from fmnist_optuna.data.readers.labels import refuse_share
from fmnist_optuna.data.sharing import DESCRIPTION, map_splits, write_splits
from fmnist_optuna.data.split import Splits, fewest_to_validate, split_dataset, split_into_folds
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import DataError, MismatchError, StorageError, is_ctrl_c
from fmnist_optuna.processes.children import Call
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.user_modules.functions import load_function
from fmnist_optuna.user_modules.search_path import users_folders
from fmnist_optuna.wording import end_sentence, reason_of

KEY = "data.source"
SEED = 0  # of random numbers that the function draws

_LOADED: dict[str, Path] = {}  # folders of this process by fingerprint: equal for equal data, whoever asks


def load_own(data: DataSpec, expected_fingerprint: str | None = None, data_dir: Path | None = None) -> Splits:
    """Read the files or call the function, unless this process has the expected data already, and map what it gave.

    Args:
        data_dir: As `find_files` has it.

    Raises:
        SpecError: There is no such module or function, or its import fails.
        UsageError: Too few or too many images would be held out.
        DataError: The files are not of their form; or the function raises, or returns something else.
        MismatchError: It gives other data than expected.
        StorageError: There is no room for the arrays.
    """
    folder = _LOADED.get(expected_fingerprint or "")
    if folder is None or not (folder / DESCRIPTION).exists():  # somebody may have tidied the temporary folder
        folder = _call(data, expected_fingerprint, find_files(data, data_dir))
    return map_splits(folder)


def load_described(data: DataSpec, data_dir: Path | None) -> Splits:
    """The same for who only looks at it: where no study file says how many validate, one in five does.

    Args:
        data_dir: As `find_files` has it.

    Raises:
        FmnistOptunaError: As `load_own`.
    """
    return map_splits(
        _call(data, None, find_files(data, data_dir), is_split_given="n_validation" in data.model_fields_set)
    )


def load_own_again(data: DataSpec) -> Call[str]:
    """A child that calls the function once more; its result is the fingerprint of what it gives then."""
    return Call(_load, data, None, Path(), doing=f"loading {data.source} again", is_warm=False)


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


def find_files(data: DataSpec, data_dir: Path | None) -> Path:
    """Where the files of a study are on this machine.

    Args:
        data: What the study file says. A relative place is looked for where the user's modules are: in the folder of
            the study file, then in the current folder.
        data_dir: Looked at first, for the place within it and for what the place is called.

    Returns:
        The place as it is, where it names no files.

    Raises:
        DataError: It is nowhere, or `data_dir` is no folder.
    """
    place = Path(data.place)
    if data.is_function or data.form == "keras":
        return place
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(
            f"--data-dir, or FMNIST_OPTUNA_DATA, must name a folder, but {data_dir} is none; name another, or none for "
            "the folders of the study file and of the command."
        )
    place = Path(os.path.expanduser(place))  # noqa: PTH111 - which leaves `~name` as it is where there is no such home
    found = [] if data_dir is None else [data_dir / place, data_dir / place.name]
    found += [Path(folder) / place for folder in users_folders()]
    found.append(Path.cwd() / place)
    for candidate in found:
        if _is_there(candidate, may_begin_names=data.form == "idx"):
            return candidate
    places = " nor ".join(dict.fromkeys(map(str, found)))
    raise DataError(
        f"{KEY} must name files that are there, but of {data.source} there is neither {places}; say in which folder it "
        "is (--data-dir DIR)."
    )


def _is_there(place: Path, may_begin_names: bool) -> bool:
    """Whether there is such a file or folder, or one whose name begins so."""
    try:
        begun = place.parent.iterdir() if may_begin_names and place.parent.is_dir() else ()
        return place.exists() or any(file.name.startswith(place.name) for file in begun)
    except OSError:  # a name that is too long, a folder that nobody may look into
        return False


def _call(data: DataSpec, expected: str | None, place: Path, is_split_given: bool = True) -> Path:
    """A folder with what the files or the function give."""
    folder = Path(tempfile.mkdtemp(prefix="data-", dir=temporary_folder()))
    try:
        found = Call(_load, data, folder, place, is_split_given, doing=f"loading {data.source}", is_warm=False).result()
        if expected not in (None, found):
            raise MismatchError(
                f"{KEY} must give the data that the study was created with, fingerprint {expected}, but {data.source} "
                f"gives other images, labels or info, fingerprint {found}; bring back what was read, or the function, "
                "or start a study of another name."
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _LOADED[found] = folder
    return folder


def _load(data: DataSpec, folder: Path | None, place: Path, is_split_given: bool = True) -> str:
    """In a process of its own: read or call, and write what came to a folder, if there is one."""
    splits = read_own(data, place, is_split_given)
    if folder is not None:
        try:
            write_splits(splits, folder)
        except OSError as error:
            raise StorageError(
                f"Temporary files must have room for the data of {data.source}, but {folder}: {reason_of(error)}; set "
                "TMPDIR to a folder with more."
            ) from error
    return splits.fingerprint


def read_own(data: DataSpec, place: Path, is_split_given: bool = True) -> Splits:
    """What the files or the function give, read or called in this process.

    Args:
        place: Of the files.
        is_split_given: Whether as many images are held out as the data says; else one in five, or as many as it takes
            to hold out one of the rarest class.

    Raises:
        SpecError: There is no such module or function, or its import fails.
        UsageError: Too few or too many images would be held out, or there are too many folds.
        DataError: The files are not of their form; or the function raises, or returns something else.
    """
    try:
        dataset = _call_function(data) if data.is_function else _read_files(data, place)
        return _split(dataset, data, is_split_given)
    except DataError as error:
        if not str(error).startswith(Dataset.__name__):  # what is said of our classes does not say where it is from
            raise
        raise DataError(f"{data.source}: {error}") from error


def _split(dataset: Dataset, data: DataSpec, is_split_given: bool) -> Splits:
    if data.folds:
        return split_into_folds(dataset, data.source, data.folds, data.split_seed)
    n_fifth = max(fewest_to_validate(dataset.train_labels), len(dataset.train_labels) // 5)
    return split_dataset(dataset, data.source, data.n_validation if is_split_given else n_fifth, data.split_seed)


def _read_files(data: DataSpec, place: Path) -> Dataset:
    from fmnist_optuna.data.readers.forms import read_form  # loads Pillow and psutil

    try:
        return read_form(data, place)
    except OSError as error:
        raise DataError(f"{KEY} must name files that can be read, but {data.source}: {reason_of(error)}.") from error


def _call_function(data: DataSpec) -> Dataset:
    random.seed(SEED)
    np.random.seed(SEED)  # what is drawn without a generator of one's own
    function = load_function(data.source, KEY)
    rule = f"{KEY} must return a Dataset, or a dictionary of arrays {RULE}, but {data.source}"
    try:
        found = function()
        if isinstance(found, Dataset):
            found = replace(found)  # with its arrays as they are by now
    except DataError as error:  # of one of the two classes
        reason = describe_error(error).removeprefix("DataError: ")
        raise DataError(end_sentence(f"{rule} gave another: {reason}")) from error
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        raise DataError(end_sentence(f"{rule} raised {describe_error(error)}")) from error
    if isinstance(found, Dataset):
        refuse_share(data, f"the Dataset of {data.source}")
        return found
    if not isinstance(found, Mapping):
        length = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise DataError(f"{rule} returned a {type(found).__name__}{length}.")
    return make_dataset(found, data, data.source, data.place)
