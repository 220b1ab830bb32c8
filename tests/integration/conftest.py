"""What the tests of the Keras side share: one TensorFlow thread, a few garments, small models.

TensorFlow is imported inside the fixtures only, so that the other tests of this folder start without it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from warm_starter import warm_starter

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.source import load_splits
from fmnist_optuna.data.split import Splits
from fmnist_optuna.settings import prepare_training_environment

if TYPE_CHECKING:
    from fmnist_optuna.training.resident_data import ResidentData

N_TRAIN = 1_003  # 31 batches of 32 and a rest of 11
N_VALIDATION = 2_400  # all: what a trial scored is scored again before the test set is opened

prepare_training_environment()  # before anything imports TensorFlow


@pytest.fixture(scope="session", autouse=True)
def _children_start_warm(alembic_read_once: None) -> None:
    """The server of all children is a fork, as in commands of the acceptance tests: none imports TensorFlow anew."""
    warm_starter().fork_children_here()


@pytest.fixture(scope="module", autouse=True)
def _settings_as_they_were() -> Iterator[None]:
    """No file of tests meets the settings of Keras that another has left."""
    yield
    if "keras" in sys.modules:
        import keras

        keras.config.set_dtype_policy("float32")
        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)
        keras.config.set_image_data_format("channels_last")


@pytest.fixture
def settings_set_back() -> Iterator[None]:
    """Whatever a user's module sets in a test is set back for the tests after it."""
    from fmnist_optuna.user_modules.framework_settings import FrameworkSettings

    before = FrameworkSettings.read()
    yield
    before.set_back()
    before.unregister()


@pytest.fixture(scope="session")
def one_thread() -> None:
    """One TensorFlow thread, as every worker has it: sums in one order, so that numbers repeat bit for bit."""
    from fmnist_optuna.training.engine import use_threads

    use_threads()


@pytest.fixture(scope="session")
def garments() -> Splits:
    """All drawn garments: 9,600 for training, 2,400 for validation, 2,000 for testing."""
    return load_splits("synthetic", 2_400, 0)


@pytest.fixture(scope="session")
def few_garments(one_thread: None, garments: Splits) -> ResidentData:
    """N_TRAIN and N_VALIDATION garments as tensors."""
    from fmnist_optuna.training.resident_data import ResidentData

    return ResidentData.from_arrays(
        FASHION_MNIST,
        garments.train_images[:N_TRAIN],
        garments.train_labels[:N_TRAIN],
        garments.validation_images[:N_VALIDATION],
        garments.validation_labels[:N_VALIDATION],
    )


@pytest.fixture(scope="session")
def handful(one_thread: None, garments: Splits) -> ResidentData:
    """300 garments for training and 100 for validation as tensors."""
    from fmnist_optuna.training.resident_data import ResidentData

    return ResidentData.from_arrays(
        FASHION_MNIST,
        garments.train_images[:300],
        garments.train_labels[:300],
        garments.validation_images[:100],
        garments.validation_labels[:100],
    )


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Writes a user's module of a given name and source where Python finds it; returns the name."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def make(name: str, source: str) -> str:
        (folder / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return name

    return make
