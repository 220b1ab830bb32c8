"""The images that a recorded study is about."""

from pathlib import Path

from fmnist_optuna.data.source import load_splits
from fmnist_optuna.data.split import Splits
from fmnist_optuna.study.studies import StudyRecord


def load_splits_of(record: StudyRecord, data_dir: Path | None) -> Splits:
    """The splits of a study, compared with its fingerprint.

    Args:
        data_dir: Folder with the IDX files, or None for the search order.

    Raises:
        DataError: The data is not there, or not that of the study.
    """
    data = record.spec.data
    return load_splits(data.source, data.n_validation, data.split_seed, data_dir, record.data_fingerprint)
