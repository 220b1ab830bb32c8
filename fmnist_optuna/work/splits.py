"""Where the images of a study are to be had, whichever source they are from."""

from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.data.sharing import find_shared, map_splits
from fmnist_optuna.data.source import load_splits
from fmnist_optuna.data.split import Splits, with_validation
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.repeats import fold_of
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.work import own_data


@dataclass(frozen=True)
class DataPlace:
    """Where a process finds the images of a recorded study; it travels to children.

    Args:
        data: What the study file says.
        data_dir: Folder with the IDX files, or None for the search order.
        fingerprint: Of the study's data.
        folder: With all of it, as `write_splits` wrote it; None for a built-in source that lies in none.
        is_all_trained_on: Whether the validation images are among those to train on.
        fold: Which validates; None where none does, or not one alone.
    """

    data: DataSpec
    data_dir: Path | None
    fingerprint: str
    folder: Path | None = None
    is_all_trained_on: bool = False
    fold: int | None = None

    def load(self) -> Splits:
        """The splits, compared with the fingerprint.

        Raises:
            DataError: The data is not there.
            MismatchError: It is not that of the study.
        """
        splits = self._load()
        if self.is_all_trained_on:
            return with_validation(splits)
        return splits if self.fold is None else splits.fold(self.fold)

    def _load(self) -> Splits:
        data = self.data
        if self.folder is not None:
            try:
                return map_splits(self.folder)
            except FileNotFoundError:  # somebody may have tidied the temporary folder
                if data.is_own:
                    raise
        how = data.n_validation, data.split_seed, self.data_dir, self.fingerprint, data.folds
        return load_splits(data.source, *how)


def load_described(data: DataSpec, data_dir: Path | None) -> Splits:
    """The splits of a source that somebody looks at; nothing is downloaded.

    Args:
        data: "auto" stands for Fashion-MNIST.
        data_dir: As `find_place` has it.

    Raises:
        FmnistOptunaError: The data is not there, or none.
    """
    if data.is_own:
        return own_data.load_described(data, data_dir)
    source = "fashion-mnist" if data.source == "auto" else data.source
    return load_splits(source, data.n_validation, data.split_seed, data_dir, n_folds=data.folds)


def find_place(record: StudyRecord, data_dir: Path | None, params: Params | None = None) -> DataPlace:
    """Where the images of a study are: in a folder of this process, if it has shared them.

    A function of the user's own is called here, unless it was before, and files of the user's own are read.

    Args:
        data_dir: Folder with the IDX files, or in which files of the user's own are; None for the search order.
        params: Of a cell, which may say which fold validates it; None for no cell.

    Raises:
        FmnistOptunaError: Whatever `load_own` raises.
    """
    data, fingerprint = record.spec.data, record.data_fingerprint
    folder = own_data.load_own(data, fingerprint, data_dir).folder if data.is_own else find_shared(fingerprint)
    return DataPlace(data, data_dir, fingerprint, folder, record.is_on_all_data, fold_of(params or {}))


def load_splits_of(record: StudyRecord, data_dir: Path | None) -> Splits:
    """The splits of a study, compared with its fingerprint.

    Args:
        data_dir: Folder with the IDX files, or None for the search order.

    Raises:
        DataError: The data is not there, or the function of the user's own fails.
        MismatchError: It is not that of the study.
    """
    return find_place(record, data_dir).load()
