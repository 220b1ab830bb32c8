"""A training that was interrupted, stored and resumed ends as the one that was not: to the last bit.

Four epochs on 400 images, interrupted after one or two of them and resumed in a model that was built anew, after other
random numbers were drawn in the process.
"""

import random
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from paused_rows import IN_EVERY_SUITE, ROWS, Holder, Row

from fmnist_optuna import __version__
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import SpecError
from fmnist_optuna.training.array_file import read_arrays
from fmnist_optuna.training.checkpoint import (
    Checkpoint,
    Identity,
    Unusable,
    UnusableError,
    read_checkpoint,
    save_checkpoint,
)
from fmnist_optuna.training.engine import use_threads
from fmnist_optuna.training.loop import Training, TrainingResult
from fmnist_optuna.training.random_states import set_seeds
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.user_modules.framework_settings import clear_session

__all__ = ["use_threads"]  # for the program that trains in another process
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
    return Training(model, data, callbacks=row.callbacks(folder), options=row.options, **options)


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
    epochs = [replace(epoch, seconds=0.0) for epoch in result.epochs]
    return epochs, result.best_epoch, result.val_accuracy, result.value, result.is_diverged


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


FIRST_HALF = """
import sys
from pathlib import Path
import numpy as np
from fmnist_optuna.settings import prepare_training_environment
prepare_training_environment()
import test_checkpoint as test
test.use_threads()
path = Path(sys.argv[1])
with np.load(path / "data.npz", allow_pickle=False) as arrays:
    data = test.ResidentData.from_arrays(test.FASHION_MNIST, *arrays.values())
training = test.begin(test.ROWS["own callback"], data, path / "first")
training.run(2)
test.save_checkpoint(path / "checkpoint", training, test.IDENTITY, path / "first")
"""


@pytest.mark.more
def test_another_process_goes_on(garments: Splits, data: ResidentData, tmp_path: Path) -> None:
    """What one process has stored after two epochs ends here as if all had been here."""
    arrays = (garments.train_images, garments.train_labels, garments.validation_images, garments.validation_labels)
    numbers = (N_TRAIN, N_TRAIN, N_VALIDATION, N_VALIDATION)
    np.savez(tmp_path / "data.npz", *[array[:number] for array, number in zip(arrays, numbers, strict=True)])
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    program = f"import sys; sys.path[:0] = {paths!r}\n{FIRST_HALF}"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    row = ROWS["own callback"]
    there = begin(row, data, tmp_path / "here")
    load(tmp_path / "checkpoint").restore(there, tmp_path / "here")
    assert there.n_epochs == 2
    there.run()
    straight = begin(row, data, tmp_path / "straight")
    straight.run()
    assert_same(there, straight, [tmp_path / "here", tmp_path / "straight"])


def begun(data: ResidentData, folder: Path, callbacks: Any = lambda folder: []) -> Training:
    """The dense net before its first epoch."""
    return begin(Row(ROWS["dense"].model, callbacks), data, folder)


def reason_of(path: Path, **other: Any) -> str:
    """Why the file is not what is asked for."""
    found = read_checkpoint(path, replace(IDENTITY, **other))
    assert isinstance(found, Unusable)
    return str(found.reason)


def test_a_damaged_file_is_named_damaged(data: ResidentData, tmp_path: Path) -> None:
    """Cut anywhere, or with one bit turned anywhere, it is never read as a checkpoint."""
    path = tmp_path / "checkpoint"
    store(begun(data, tmp_path / "folder"), path, tmp_path / "folder")
    content = path.read_bytes()
    for place in [*range(0, len(content), len(content) // 60), *range(80), len(content) - 1]:
        path.write_bytes(content[:place])
        assert reason_of(path) == "is damaged"
        turned = bytes([content[place] ^ 1])
        path.write_bytes(content[:place] + turned + content[place + 1 :])
        assert reason_of(path) == "is damaged"


def test_a_checkpoint_of_something_else_says_so(
    data: ResidentData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another cell, seed, code, environment or version."""
    path = tmp_path / "checkpoint"
    store(begun(data, tmp_path / "folder"), path, tmp_path / "folder")
    assert reason_of(path, cell_id="other") == "is of another cell"
    assert reason_of(path, seed=4) == "is of another seed"
    assert reason_of(path, code="other") == "is of other code, data or settings"
    assert reason_of(path, environment="other") == "is of another environment"
    monkeypatch.setattr("fmnist_optuna.training.checkpoint.__version__", "9.9")
    assert reason_of(path) == f"is of fmnist-optuna {__version__}, and this is 9.9"
    monkeypatch.setattr("fmnist_optuna.training.checkpoint.VERSION", 2)
    assert reason_of(path) == "is of version 1, and this program reads version 2"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROWS["normalized"], "is of another model"),
        (ROWS["nadam"], "is of another model"),
        (ROWS["scheduler"], "is of other callbacks"),
    ],
    ids=["model", "optimizer", "callbacks"],
)
def test_another_training_is_not_restored(row: Row, reason: str, data: ResidentData, tmp_path: Path) -> None:
    """A model, an optimizer or callbacks of another form."""
    checkpoint = store(begun(data, tmp_path / "first"), tmp_path / "checkpoint", tmp_path / "first")
    with pytest.raises(UnusableError, match=reason):
        checkpoint.restore(begin(row, data, tmp_path / "second"), tmp_path / "second")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda folder: (folder / "open.txt").open("w"), "a TextIOWrapper"),
        (lambda folder: iter([1]), "a list_iterator"),
        (lambda folder: keras.metrics.Mean(), "a Mean"),
        (lambda folder: keras.Sequential(), "a Sequential"),
        (lambda folder: np.array([object()]), "an array of object"),
    ],
    ids=["file", "iterator", "metric", "model", "objects"],
)
def test_what_cannot_be_stored_is_refused(make: Any, what: str, data: ResidentData, tmp_path: Path) -> None:
    """With the callback, the attribute and the remedy, in one line; nothing is written."""
    training = begun(data, tmp_path / "folder", lambda folder: [Holder(make(folder))])
    with pytest.raises(SpecError) as error:
        save_checkpoint(tmp_path / "checkpoint", training, IDENTITY, tmp_path / "folder")
    assert str(error.value) == (
        "training.callbacks must keep what can be stored, so that a training may be paused and go on, but held of "
        f"Holder holds {what}; use the pruner median (--pruner median), which pauses none."
    )
    assert not (tmp_path / "checkpoint").exists()


def test_parts_of_the_model_are_held_again(data: ResidentData, tmp_path: Path) -> None:
    """Layers, variables, callbacks and the model itself are those of the new training, and paths are in its folder."""

    def values(folder: Path) -> list[Any]:
        return [folder / "a", f"{folder}/b", str(folder), (1.5, np.float32(2), b"c"), {"d": {None}}, deque([3])]

    def make(folder: Path) -> list[keras.callbacks.Callback]:
        return [Holder(values(folder))]

    first = begun(data, tmp_path / "first", make)
    holder: Any = first.callbacks[1]
    holder.held += [first.model, first.model.layers[0], first.model.variables[0], holder, holder.held]
    second = begin(Row(ROWS["dense"].model, make), data, tmp_path / "second")
    store(first, tmp_path / "checkpoint", tmp_path / "first").restore(second, tmp_path / "second")
    new: Any = second.callbacks[1]
    held, model = new.held, second.model
    assert held[:6] == values(tmp_path / "second")
    expected = [model, model.layers[0], model.variables[0], new, held]
    assert all(ours is theirs for ours, theirs in zip(held[6:], expected, strict=True))


def test_no_file_leaves_the_folder(data: ResidentData, tmp_path: Path) -> None:
    """A checkpoint that names a file elsewhere writes none."""
    training = begun(data, tmp_path / "folder")
    (tmp_path / "folder" / "inside").touch()
    save_checkpoint(tmp_path / "checkpoint", training, IDENTITY, tmp_path / "folder")
    head, arrays = read_arrays(tmp_path / "checkpoint")
    for name in ("../outside", str(tmp_path / "outside")):
        second = begin(ROWS["dense"], data, tmp_path / f"of {len(name)}")
        with pytest.raises(UnusableError, match="is damaged"):
            Checkpoint({**head, "files": {name: 0}}, arrays).restore(second, tmp_path / f"of {len(name)}")
    assert not (tmp_path / "outside").exists()


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
