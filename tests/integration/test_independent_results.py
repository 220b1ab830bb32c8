"""Results of a trial do not depend on those before it: on what is kept in variables, compiled or handed out again."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from users_modules import PLAIN, MakeModule, make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.processes.children import Call
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.callbacks import CallbackArguments, make_callbacks
from fmnist_optuna.training.cell_training import build_cell, train_cell
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.engine import TrainingPass, ValidationPass
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.user_code import UserCode, forget_models
from fmnist_optuna.training.weights import hash_weights

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread", "settings_set_back")]


def make_data(n_train: int = 70, n_validation: int = 40) -> ResidentData:
    """Few garments of noise, the same in every process."""
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (n_train + n_validation, 28, 28), dtype=np.uint8)
    labels = numbers.integers(0, 10, n_train + n_validation, dtype=np.uint8)
    return ResidentData.from_arrays(
        FASHION_MNIST, images[:n_train], labels[:n_train], images[n_train:], labels[n_train:]
    )


# What a module keeps in variables

KEPT_IN_VARIABLES = (
    PLAIN
    + """
import os
import random
import numpy as np

keras.config.set_dtype_policy("mixed_bfloat16")
hidden = keras.layers.Dense(6, activation="relu")
initializer = keras.initializers.GlorotUniform()
optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
generator = keras.random.SeedGenerator()
numbers = np.random.default_rng(0)
drawn = random.random()
calls = []
stopper = keras.callbacks.EarlyStopping(monitor="val_loss", patience=0)

def net(width):
    calls.append(width)
    os.environ["CALLS"] = str(int(os.environ.get("CALLS", 0)) + 1)
    shift = keras.initializers.Constant(numbers.normal() + drawn + float(keras.random.normal((), seed=generator)))
    noise = keras.layers.GaussianNoise(0.1 * len(calls) * int(os.environ["CALLS"]))
    return compiled(keras.layers.Dense(width, kernel_initializer=initializer, bias_initializer=shift), noise, hidden,
                    keras.layers.BatchNormalization(), head(), optimizer=optimizer)

def stopping():
    return stopper
"""
)


def train_in_order(spec: StudySpec, widths: list[int]) -> list[tuple[str, float]]:
    """Train cells one after another in this process; of each, the hash of its weights and its last training loss."""
    code, results = UserCode(spec, FASHION_MNIST), []
    for width in widths:
        model, result = train_cell(code, {"width": width}, 100 + width, make_data(), [])
        results.append((hash_weights(model), result.epochs[-1].train_loss))
        forget_models()
    return results


def test_results_do_not_depend_on_the_order(make_module: MakeModule) -> None:
    """Layers, optimizers, generators, counters and callbacks in a module's variables begin anew for each cell."""
    spec = make_spec(make_module("user_variables", KEPT_IN_VARIABLES), ("stopping",), width=[3, 5])
    alone = Call(train_in_order, spec, [5], doing="training")  # in a process of its own
    first, second, third = train_in_order(spec, [3, 5, 3])
    assert first == third
    assert alone.result() == [second]
    assert first != second


# What TensorFlow has compiled


@pytest.fixture
def clearings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One item for each time that TensorFlow throws away what it has compiled."""
    made: list[object] = []
    clear = context.pywrap_tfe.TFE_ContextClearCaches

    def count(handle: object) -> None:
        made.append(handle)
        clear(handle)

    monkeypatch.setattr(context.pywrap_tfe, "TFE_ContextClearCaches", count)
    return made


def train_dense(widths: list[int]) -> list[tuple[str, list[str], list[float]]]:
    """Cells of the built-in architecture, one after another; of each, weights' hash, layers' names and losses."""
    data = make_data()
    code, results = UserCode(parse_spec({"name": "dense", "training": {"max_epochs": 2}}, "dense"), FASHION_MNIST), []
    code.bind()
    for width in widths:
        params = {"hidden_size": width, "dropout_rate": 0.3, "learning_rate": 0.01}
        model, result = train_cell(code, params, 100 + width, data, [])
        names = [layer.name for layer in model.layers]
        results.append((hash_weights(model), names, [epoch.train_loss for epoch in result.epochs]))
        del model
        code.end()
    return results


def test_built_in_cells_do_not_depend_on_the_order(clearings: list[object]) -> None:
    """Although what TensorFlow has compiled stays: names, weights and curves are those of a fresh process."""
    alone = Call(train_dense, [5], doing="training")
    train_dense([3])
    of_the_first = len(clearings)
    first, second, third = train_dense([3, 5, 3])
    assert first == third
    assert alone.result() == [second]
    assert len(clearings) == 2 * of_the_first == 2  # as the code of a study is read, and for no cell


def test_users_cells_begin_with_nothing_compiled(make_module: MakeModule, clearings: list[object]) -> None:
    """An initializer's operation, once compiled, would draw on where the last cell's left it."""
    draws = """
import tensorflow as tf
def net(width):
    return compiled(head(kernel_initializer=lambda shape, dtype: tf.random.normal(shape, dtype=dtype)))
"""
    code = UserCode(make_spec(make_module("user_draws", PLAIN + draws), width=[1]), FASHION_MNIST)
    hashes = [hash_weights(build_cell(code, {"width": 1}, 0)) for _ in range(2)]
    assert hashes[0] == hashes[1]
    clearings.clear()
    code.begin(0)
    code.end()
    assert clearings


def seeded_operations(function: tf.types.experimental.ConcreteFunction) -> set[str]:
    """Types of the operations that keep a random state of their own, those in inner functions included."""
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes if "seed2" in node.attr}


def test_built_in_graphs_keep_no_random_state() -> None:
    """Which is why they may stay compiled: what dropout draws comes from a variable."""
    data = make_data()
    model = create_model(8, 0.3, 0.01, n_hidden_layers=2)
    passes = TrainingPass(model, data, 32), ValidationPass(model, data.validation_images, data.validation_labels)
    for each in passes:
        assert seeded_operations(each.prepare()) == set()
    draws = tf.function(lambda: tf.while_loop(lambda x: x < 1, lambda x: (x + tf.random.normal(()),), (0.0,)))
    assert seeded_operations(draws.get_concrete_function()) == {"RandomStandardNormal"}


# What an installed package hands out again

INSTALLED = (
    PLAIN
    + """
layer = keras.layers.Dense(4, activation="relu")
frozen = keras.Sequential([keras.Input((784,)), keras.layers.Dense(6), keras.layers.BatchNormalization()])
frozen.trainable = False
optimizer = keras.optimizers.SGD(0.1)
stopper = keras.callbacks.EarlyStopping(monitor="val_loss")
models = []
def net(part):
    if part == "layer":
        return compiled(layer, head())
    if part == "frozen":
        return compiled(frozen, head())
    if part == "optimizer":
        return compiled(head(), optimizer=optimizer)
    models.extend([] if models else [compiled(keras.layers.BatchNormalization(), head())])
    return models[0]
def stopping():
    return stopper
"""
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in a folder of installed packages, which is imported once in a process."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "user_installed.py").write_text(INSTALLED)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "user_installed", raising=False)
    return "user_installed"


@pytest.mark.parametrize(
    ("part", "variable"), [("layer", "dense/kernel"), ("optimizer", "iteration"), ("model", "batch_normalization")]
)
def test_part_that_an_earlier_trial_changed_is_refused(installed: str, part: str, variable: str) -> None:
    """A layer, an optimizer or a model that goes on where another trial left it is named."""
    code = UserCode(make_spec(installed, part=[part]), FASHION_MNIST)
    train_cell(code, {"part": part}, 0, make_data(), [])
    forget_models()
    with pytest.raises(
        SpecError, match="which an earlier trial changed; make that layer or optimizer inside"
    ) as caught:
        train_cell(code, {"part": part}, 1, make_data(), [])
    assert variable in str(caught.value)


def test_frozen_part_may_be_shared(installed: str) -> None:
    """A pretrained part that no training changes serves one trial after another."""
    code = UserCode(make_spec(installed, part=["frozen"]), FASHION_MNIST)
    frozen = []
    for seed in range(2):
        model, _ = train_cell(code, {"part": "frozen"}, seed, make_data(), [])
        frozen.append(model.layers[2])
        forget_models()
    assert frozen[0] is frozen[1]


def test_callback_that_an_earlier_trial_had_is_refused(installed: str, tmp_path: Path) -> None:
    """The same object twice would go on with what it counted."""
    code = UserCode(make_spec(installed, ("stopping",), part=["frozen"]), FASHION_MNIST)
    make_callbacks(code.callbacks, CallbackArguments(0, {}, tmp_path))
    with pytest.raises(
        SpecError, match="user_installed:stopping returned the same EarlyStopping twice; make it inside"
    ):
        make_callbacks(code.callbacks, CallbackArguments(1, {}, tmp_path))
