"""A training that was interrupted, stored and resumed ends as the one that was not: to the last bit.

Four epochs on 400 images, interrupted after one or two of them and resumed in a model that was built anew, after other
random numbers were drawn in the process.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from paused_rows import IN_EVERY_SUITE, ROWS, Row

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.training.checkpoint import (
    Checkpoint,
    Identity,
    read_checkpoint,
    save_checkpoint,
)
from fmnist_optuna.training.engine import ResidentData
from fmnist_optuna.training.loop import Training, TrainingResult
from fmnist_optuna.training.random_states import set_seeds
from fmnist_optuna.user_modules.framework_settings import clear_session

pytestmark = pytest.mark.usefixtures("one_thread")

N_TRAIN, N_VALIDATION, N_EPOCHS, BATCH_SIZE, SEED = 400, 200, 4, 64, 3
IDENTITY = Identity("cell", SEED, "code", "environment")


@pytest.fixture(scope="module")
def data(garments: Splits) -> ResidentData:
    return ResidentData.from_arrays(
        FASHION_MNIST,
        garments.train_images[:N_TRAIN],
        garments.train_labels[:N_TRAIN],
        garments.validation_images[:N_VALIDATION],
        garments.validation_labels[:N_VALIDATION],
    )


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    keras.backend.clear_session(free_memory=False)


def begin(row: Row, data: ResidentData, folder: Path) -> Training:
    """A training from its seed, whatever was drawn before."""
    clear_session()
    set_seeds(SEED)
    model = row.model()
    set_seeds(SEED)
    folder.mkdir()
    options: dict[str, Any] = {"batch_size": BATCH_SIZE, "max_epochs": N_EPOCHS, "patience": N_EPOCHS, "seed": SEED}
    return Training(model, data, callbacks=row.callbacks(folder), **options)


def store(training: Training, path: Path, folder: Path) -> Checkpoint:
    save_checkpoint(path, training, IDENTITY, folder)
    return load(path)


def load(path: Path) -> Checkpoint:
    found = read_checkpoint(path, IDENTITY)
    assert isinstance(found, Checkpoint)
    return found


def disturb() -> None:
    """Whatever another cell may draw and count in between."""
    set_seeds(77)
    random.random()
    np.random.normal()
    tf.random.normal(())
    keras.random.normal(())


def measured(result: TrainingResult) -> tuple[Any, ...]:
    """Everything but the seconds."""
    return [astuple(epoch)[:-1] for epoch in result.epochs], result.best_epoch, result.val_accuracy, result.is_diverged


def assert_same(found: Training, expected: Training, folders: Sequence[Path]) -> None:
    """Results, every variable, what History has, and the files."""
    assert measured(found.finish()) == measured(expected.finish())
    for ours, theirs in zip(found.variables(), expected.variables(), strict=True):
        assert ours.numpy().tobytes() == theirs.numpy().tobytes(), ours.name
    assert found.callbacks[-1].history == expected.callbacks[-1].history
    texts = [
        {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".csv", ".txt")}
        for folder in folders
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("name", "after"),
    [
        pytest.param(name, after, marks=() if name in IN_EVERY_SUITE and after == 2 else pytest.mark.matrix)
        for name in ROWS
        for after in (1, 2)
    ],
)
def test_resumed_is_uninterrupted(name: str, after: int, data: ResidentData, tmp_path: Path) -> None:
    """Weights, optimizer, curves, best epoch, final value, history and files, bit for bit."""
    row = ROWS[name]
    first = begin(row, data, tmp_path / "first")
    first.run(after)
    checkpoint = store(first, tmp_path / "checkpoint", tmp_path / "first")
    disturb()
    second = begin(row, data, tmp_path / "second")
    checkpoint.restore(second, tmp_path / "second")
    assert second.n_epochs == after
    second.run()
    straight = begin(row, data, tmp_path / "straight")
    straight.run()
    assert straight.n_epochs > after
    assert_same(second, straight, [tmp_path / "second", tmp_path / "straight"])
