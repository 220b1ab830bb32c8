"""What people bring, trained here and by stock `fit`: the same weights and curves, or refused for the row's reason.

Both sides start from one seed, see the same batches in the same order, and have the same callbacks; 2,000 training and
1,000 validation images, two epochs. A row that is trained is compared after every epoch: all weights, and everything
that both sides have in their logs.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from matrix_rows import IN_EVERY_SUITE, ROWS, TOLERANCE, Row
from one_training import train

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.training.architecture import build_model, load_architecture
from fmnist_optuna.training.hooks import check_hooks
from fmnist_optuna.training.resident_data import ResidentData

pytestmark = [pytest.mark.usefixtures("one_thread")]

N_TRAIN, N_VALIDATION, N_EPOCHS, BATCH_SIZE = 2_000, 1_000, 2, 64  # 31 batches and a rest of 16
SEED = 3
WEIGHTS = np.maximum(0, np.random.default_rng(1).normal(1, 1, N_TRAIN)).astype(np.float32)  # some are 0


@dataclass
class Run:
    """What a training left after each epoch."""

    weights: list[list[np.ndarray]] = field(default_factory=list)
    logs: list[dict[str, float]] = field(default_factory=list)


class Snapshot(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.run = Run()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.run.weights.append(self.model.get_weights())
        self.run.logs.append(dict(logs or {}))


class Batches(keras.utils.PyDataset):
    """The batches of the engine's epochs, for `fit`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, has_weights: bool) -> None:
        super().__init__()
        self.arrays, self.epoch = (images, labels, *([WEIGHTS] if has_weights else [])), 0

    def __len__(self) -> int:
        return -(-N_TRAIN // BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        order = np.random.default_rng([SEED, self.epoch]).permutation(N_TRAIN)
        rows = order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        return tuple(array[rows] for array in self.arrays)


class Turn(keras.callbacks.Callback):
    """Tells the batches which epoch it is."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.epoch = epoch


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def arrays(garments: Splits) -> Arrays:
    return (
        garments.train_images[:N_TRAIN],
        garments.train_labels[:N_TRAIN].astype(np.int32),
        garments.validation_images[:N_VALIDATION],
        garments.validation_labels[:N_VALIDATION].astype(np.int32),
    )


@pytest.fixture(scope="module")
def data(arrays: Arrays) -> ResidentData:
    return ResidentData.from_arrays(FASHION_MNIST, *arrays)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keras.Model, "test_step", keras.Model.test_step)  # which a row replaces
    yield
    keras.backend.clear_session(free_memory=False)


def run_stock(row: Row, arrays: Arrays, folder: Path) -> Run:
    keras.utils.set_random_seed(SEED)
    model, snapshot, batches = (row.like or row.model)(), Snapshot(), Batches(*arrays[:2], row.has_weights)
    model.fit(
        batches,
        validation_data=arrays[2:],
        validation_batch_size=N_VALIDATION,
        epochs=N_EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[Turn(batches), *row.callbacks(folder), snapshot],
    )
    return snapshot.run


def run_engine(row: Row, data: ResidentData, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As a worker does it: `build_model`, hooks, a training."""

    monkeypatch.setattr(sys.modules[__name__], "make_row_model", row.model, raising=False)
    spec = parse_spec(
        {"name": "row", "model": {"architecture": f"{__name__}:make_row_model"}, "grid": {"a": [1]}}, "row"
    )
    keras.utils.set_random_seed(SEED)
    model, snapshot = build_model(load_architecture(spec.model.architecture), spec, {}, FASHION_MNIST), Snapshot()
    callbacks = row.callbacks(folder)
    for made in callbacks:
        check_hooks(made, "row:make")
    result = train(
        model,
        replace(data, train_weights=tf.constant(WEIGHTS)) if row.has_weights else data,
        batch_size=BATCH_SIZE,
        max_epochs=N_EPOCHS,
        patience=N_EPOCHS,
        seed=SEED,
        callbacks=[*callbacks, snapshot],
    )
    answers = model(data.validation_images, training=False).numpy().argmax(axis=1)
    # Of numbers with three digits a fused kernel rounds one step less, which may turn an image that is close.
    n_close = 0 if row.tolerance == TOLERANCE else 2
    hits = float(np.mean(answers == data.validation_labels.numpy()))
    assert result.val_accuracy == (pytest.approx(hits, abs=n_close / len(answers)) if n_close else hits)
    return snapshot.run


def assert_close(found: Any, expected: Any, tolerance: float, name: str) -> None:
    scale = max(1e-3, float(np.max(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in IN_EVERY_SUITE else pytest.mark.matrix) for name in ROWS],
)
def test_training_is_that_of_fit(
    name: str, arrays: Arrays, data: ResidentData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and curves of the row are those of stock `fit`, or the row is refused for its reason."""
    row = ROWS[name]
    folder = tmp_path / "engine"
    folder.mkdir()
    if row.refused:
        with pytest.raises(SpecError, match=row.refused):
            run_engine(row, data, folder, monkeypatch)
        return
    found = run_engine(row, data, folder, monkeypatch)
    stock_folder = tmp_path / "stock"
    stock_folder.mkdir()
    expected = run_stock(row, arrays, stock_folder)
    assert len(found.logs) == len(expected.logs) > 0
    for epoch in range(len(found.logs)):
        for index, (ours, theirs) in enumerate(zip(found.weights[epoch], expected.weights[epoch], strict=True)):
            assert_close(ours, theirs, row.tolerance, f"epoch {epoch}, weight {index}")
        compared = found.logs[epoch].keys() & expected.logs[epoch].keys()
        assert compared >= {"loss", "val_loss", *row.logs}
        for key in sorted(compared):
            few_images = 3 / N_VALIDATION  # that rounding may tip over
            tolerance = few_images if "acc" in key or "top3" in key else row.tolerance
            assert_close(found.logs[epoch][key], expected.logs[epoch][key], tolerance, f"epoch {epoch}, {key}")


def test_matrix_is_large_enough() -> None:
    """At least forty things that people bring are compared with `fit`, and some twenty are refused by name."""
    n_refused = sum(bool(row.refused) for row in ROWS.values())
    assert len(ROWS) - n_refused >= 40
    assert n_refused >= 20
