"""Data by its source, as a study file names it, and the one line for what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest

from fmnist_optuna.data.dataset import Dataset
from fmnist_optuna.data.readers.forms import read_form
from fmnist_optuna.errors import DataError
from fmnist_optuna.spec.data_spec import DataSpec


def read(source: str, **keys: Any) -> Dataset:
    data = DataSpec.model_validate({"source": source, **keys})
    return read_form(data, Path(data.place))


def fault(source: str, **keys: Any) -> str:
    with pytest.raises(DataError) as error:
        read(source, **keys)
    return str(error.value)
