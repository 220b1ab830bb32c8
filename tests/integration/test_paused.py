"""Cells that wait in memory or in a file while others train, and go on as if nothing had been in between."""

import gc
import weakref
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pytest
from users_modules import PLAIN, MakeModule, make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.training.cell_training import begin_cell, go_on_with_cell, train_cell
from fmnist_optuna.training.checkpoint import Identity
from fmnist_optuna.training.loop import TrainingResult
from fmnist_optuna.training.paused import BYTES_OF_GRAPHS, PausedTrainings
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.running_cell import CellTraining
from fmnist_optuna.training.user_code import UserCode

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread", "settings_set_back")]

STATEFUL = (
    PLAIN
    + """
import os
import random
import numpy as np
import tensorflow as tf

count = 0
stock = keras.layers.Dense.call
def counted(self, inputs, **options):
    global traced
    traced += 1
    return stock(self, inputs, **options)
traced = 0
keras.layers.Dense.call = counted
keras.config.set_dtype_policy("mixed_bfloat16")

class Draws(keras.layers.Layer):
    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x), dtype=x.dtype) * 0.1 if training else x

class Counts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        global count
        count += 1
        os.environ["COUNTED"] = str(count + int(os.environ.get("COUNTED", "0")))
        np.seterr(over="ignore")
        shift = count + traced + int(os.environ["COUNTED"]) + random.random() + np.random.normal()
        shift += float(keras.random.normal(())) + float(tf.random.normal(()))
        kernel = self.model.trainable_variables[0]
        kernel.assign(kernel.numpy() + 0.001 * shift)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        import users_state
        assert users_state.count == count

def net(width):
    return compiled(keras.layers.Dense(width, "relu"), Draws(), head(), optimizer="adam")
def counts():
    return Counts()
"""
)


DENSE = {
    "name": "dense",
    "grid": {"hidden_size": [8], "dropout_rate": [0.3], "learning_rate": [0.01]},
    "training": {"max_epochs": 4, "patience": 4},
}
PARAMS = {"hidden_size": 8, "dropout_rate": 0.3, "learning_rate": 0.01}


class Watcher(keras.callbacks.Callback):
    """Sees epochs, as a worker does."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float]] = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.seen.append((epoch, (logs or {})["val_accuracy"]))


@pytest.fixture
def dense() -> UserCode:
    code = UserCode(parse_spec(DENSE, "dense"), FASHION_MNIST)
    code.bind()
    return code


def identity(cell_id: str, seed: int = 1) -> Identity:
    return Identity(cell_id, seed, "code", "environment")


def ended(cell: CellTraining) -> tuple[list[bytes], list[tuple[float, ...]]]:
    cell.run()
    result = cell.finish()
    cell.close()
    return outcome(cell.model, result)


def outcome(model: keras.Model, result: TrainingResult) -> tuple[list[bytes], list[tuple[float, ...]]]:
    """Weights and curve, bit for bit."""
    weights = [np.asarray(weight).tobytes() for weight in model.get_weights()]
    return weights, [(e.epoch, e.train_loss, e.val_loss, e.val_accuracy) for e in result.epochs]


def test_users_code_goes_on_as_uninterrupted(make_module: MakeModule, handful: ResidentData) -> None:
    """After others began, with its own modules, settings, patches of Keras, environment and random states."""
    spec = make_spec(make_module("users_state", STATEFUL), ("counts",), width=[4, 5])
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"max_epochs": 4})})
    code = UserCode(spec, FASHION_MNIST)
    expected = {width: outcome(*train_cell(code, {"width": width}, width, handful, [])) for width in (4, 5)}
    paused = PausedTrainings(code)
    for until in (1, 2):
        for width in (4, 5):
            cell = go_on_with_cell(code, {"width": width}, handful, [], identity(str(width), width), paused=paused)
            cell.run(until)
            paused.keep(str(width), cell)
            code.end()
    found = {width: ended(paused.take(str(width), []) or pytest.fail("it is gone")) for width in (5, 4)}
    assert found == expected


@pytest.mark.parametrize("way", ["memory", "checkpoint", "start"])
def test_a_cell_goes_on_from_where_it_is_kept(way: str, dense: UserCode, handful: ResidentData, tmp_path: Path) -> None:
    """From memory, else from its checkpoint, else from the start: the same result, seen by the new watcher."""
    expected = outcome(*train_cell(dense, PARAMS, 1, handful, []))
    paused, checkpoint = PausedTrainings(dense), tmp_path / "checkpoint"
    first = begin_cell(dense, PARAMS, 1, handful, [Watcher()])
    first.run(2)
    if way == "checkpoint":
        first.save(checkpoint, identity("a"))
    if way == "memory":
        paused.keep("a", first)
    else:
        first.close()
    train_cell(dense, PARAMS, 2, handful, [])
    watcher = Watcher()
    cell = go_on_with_cell(
        dense, PARAMS, handful, [watcher], identity("a"), n_epochs=2, paused=paused, checkpoint=checkpoint
    )
    assert (cell.origin, cell.unusable, cell.n_epochs) == (way, None, 0 if way == "start" else 2)
    assert ended(cell) == expected
    assert [epoch for epoch, _ in watcher.seen] == list(range(0 if way == "start" else 2, 4))


@pytest.mark.parametrize("damage", ["damaged", "another model"])
def test_a_useless_checkpoint_means_from_the_start(
    damage: str, dense: UserCode, handful: ResidentData, tmp_path: Path
) -> None:
    """With the reason; the result is that of a training without a pause."""
    checkpoint = tmp_path / "checkpoint"
    first = begin_cell(dense, {**PARAMS, "hidden_size": 9}, 1, handful, [])
    first.run(1)
    first.save(checkpoint, identity("a"))
    first.close()
    if damage == "damaged":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    cell = go_on_with_cell(dense, PARAMS, handful, [], identity("a"), checkpoint=checkpoint)
    assert cell.origin == "start"
    assert cell.unusable in ("is damaged", "is of another model")
    assert damage in cell.unusable
    assert ended(cell) == outcome(*train_cell(dense, PARAMS, 1, handful, []))


def test_memory_keeps_a_bounded_number(dense: UserCode, handful: ResidentData) -> None:
    """The least recently kept goes first, by number and by bytes; its model and its folder are gone."""
    paused = PausedTrainings(dense, n_at_most=2)
    models, folders = {}, {}
    for name in ("a", "b", "a", "c"):
        cell = paused.take(name, []) or begin_cell(dense, PARAMS, 1, handful, [])
        cell.run(1)
        models[name], folders[name] = weakref.ref(cell.model), cell.folder
        n_bytes = cell.n_bytes
        paused.keep(name, cell)
    del cell
    gc.collect()
    assert {name for name in "abc" if name in paused} == {"a", "c"}
    assert [name for name, model in models.items() if model() is None] == ["b"]
    assert [name for name, folder in folders.items() if not folder.exists()] == ["b"]
    small = PausedTrainings(dense, bytes_at_most=n_bytes + BYTES_OF_GRAPHS)
    for name in "ac":
        small.keep(name, paused.take(name, []) or pytest.fail("it is gone"))
    assert [name for name in "ac" if name in small] == ["c"]
    small.drop_all()
    assert len(small) == 0


@pytest.mark.parametrize(("in_memory", "in_file"), [(1, 3), (3, 1)])
def test_the_further_of_memory_and_checkpoint_goes_on(
    in_memory: int, in_file: int, dense: UserCode, handful: ResidentData, tmp_path: Path
) -> None:
    """Where nothing else says how far the cell is: another process may have gone on with it, and have been killed."""
    expected = outcome(*train_cell(dense, PARAMS, 1, handful, []))
    paused, checkpoint = PausedTrainings(dense), tmp_path / "checkpoint"
    for n_epochs in (in_memory, in_file):
        cell = begin_cell(dense, PARAMS, 1, handful, [])
        cell.run(n_epochs)
        if n_epochs == in_memory:
            paused.keep("a", cell)
        else:
            cell.save(checkpoint, identity("a"))
            cell.close()
    cell = go_on_with_cell(dense, PARAMS, handful, [], identity("a"), paused=paused, checkpoint=checkpoint)
    assert (cell.origin, cell.n_epochs) == ("memory" if in_memory > in_file else "checkpoint", 3)
    assert "a" not in paused
    assert ended(cell) == expected


def test_a_checkpoint_that_cannot_be_read_costs_only_time(
    dense: UserCode, handful: ResidentData, tmp_path: Path
) -> None:
    """The training begins at its start and says what the system said; root may read any file, but no folder as one."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "file").touch()
    reasons = {"checkpoint": "cannot be read: Is a directory", "file/checkpoint": "cannot be read: Not a directory"}
    for name, reason in reasons.items():
        cell = go_on_with_cell(dense, PARAMS, handful, [], identity("a"), checkpoint=tmp_path / name)
        cell.close()
        assert (cell.origin, cell.n_epochs, cell.unusable) == ("start", 0, reason)


def test_the_best_weights_count_as_memory(dense: UserCode, handful: ResidentData) -> None:
    """A training has its weights, Adam's two values for each, and those of its best epoch."""
    cell = begin_cell(dense, PARAMS, 1, handful, [])
    cell.run(1)
    n_bytes = sum(weights.nbytes for weights in cell.model.get_weights())
    assert 4 * n_bytes <= cell.n_bytes < 5 * n_bytes
    cell.close()


def test_memory_is_not_used_when_others_went_on(dense: UserCode, handful: ResidentData) -> None:
    """A training that another process has taken further is dropped."""
    paused = PausedTrainings(dense)
    cell = begin_cell(dense, PARAMS, 1, handful, [])
    cell.run(1)
    paused.keep("a", cell)
    assert paused.take("a", [], n_epochs=2) is None
    assert "a" not in paused


ENDING = (
    PLAIN
    + """
ends = []
keras.config.set_dtype_policy("mixed_bfloat16")
class Ends(keras.callbacks.Callback):
    def __init__(self, params, folder):
        super().__init__()
        self.width, self.file = params["width"], folder / "log"
    def on_epoch_end(self, epoch, logs=None):
        ends.append(f"epoch {epoch}")
    def on_train_end(self, logs=None):
        with open("ends", "a") as file:
            policy = keras.config.dtype_policy().name
            print(self.width, ends, policy, self.file.parent.exists(), sorted(logs), file=file)
        if self.width == 5:
            raise SystemExit("no luck")
def net(width):
    return compiled(keras.layers.Dense(width, "relu"), head())
def callbacks(params, folder):
    return Ends(params, folder)
"""
)


def test_a_training_that_was_cut_is_ended(
    make_module: MakeModule, handful: ResidentData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Once, in its own surroundings, whatever its callback raises; not where it went on elsewhere, or may go on."""
    monkeypatch.chdir(tmp_path)
    code = UserCode(make_spec(make_module("users_ends", ENDING), ("callbacks",), width=[4, 5, 6, 7]), FASHION_MNIST)
    paused, folders = PausedTrainings(code), []
    for width in (4, 5, 6, 7):
        cell = begin_cell(code, {"width": width}, width, handful, [])
        cell.run(1)
        folders.append(cell.folder)
        paused.keep(str(width), cell)
        code.end(keep_models=True)
    for _ in range(2):
        paused.end({"4": 1, "5": 1, "6": 2, "8": 1})
    names = ["accuracy", "loss", "val_accuracy", "val_loss"]
    expected = [f"{width} ['epoch 0'] mixed_bfloat16 True {names}" for width in (4, 5)]
    assert (tmp_path / "ends").read_text().splitlines() == expected
    assert paused.cells() == ["6", "7"]
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    assert [record.message for record in caplog.records if "no luck" in record.message] != []
    assert keras.config.dtype_policy().name == "mixed_bfloat16"  # of the module that was imported, not a trial's
    paused.drop_all()
