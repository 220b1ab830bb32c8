"""No trial meets what another left: settings, modules, layers and callbacks of the user's."""

import importlib
import py_compile
from pathlib import Path
from typing import Any

import keras
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
from fmnist_optuna.user_modules.execution import USER_MODULES
from fmnist_optuna.user_modules.framework_settings import FrameworkSettings

pytestmark = pytest.mark.usefixtures("one_thread", "settings_set_back")


def make_data(n_train: int = 70, n_validation: int = 40) -> ResidentData:
    """Few garments of noise, the same in every process."""
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (n_train + n_validation, 28, 28), dtype=np.uint8)
    labels = numbers.integers(0, 10, n_train + n_validation, dtype=np.uint8)
    return ResidentData.from_arrays(
        FASHION_MNIST, images[:n_train], labels[:n_train], images[n_train:], labels[n_train:]
    )


# Modules and seeds

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


@pytest.mark.more
def test_results_do_not_depend_on_the_order(make_module: MakeModule) -> None:
    """Layers, optimizers, generators, counters and callbacks in a module's variables begin anew for each cell."""
    spec = make_spec(make_module("user_variables", KEPT_IN_VARIABLES), ("stopping",), width=[3, 5])
    alone = Call(train_in_order, spec, [5], doing="training")  # in a process of its own
    first, second, third = train_in_order(spec, [3, 5, 3])
    assert first == third
    assert alone.result() == [second]
    assert first != second


def test_what_was_read_first_is_executed(make_module: MakeModule) -> None:
    """A module that is edited while a worker has it changes nothing in that worker."""
    source = PLAIN + "SIZE = 3\ndef net(): return compiled(keras.layers.Dense(SIZE), head())\n"
    code = UserCode(make_spec(make_module("user_edited", source), training_seed=[0]), FASHION_MNIST)
    sizes = []
    for size in (4, 5):
        sizes.append(build_cell(code, {}, 0).layers[2].units)
        Path(str(code.architecture.function.__globals__["__file__"])).write_text(source.replace("3", f"{size}  # new"))
        forget_models()
    assert sizes == [3, 3]


def test_module_without_source_begins_anew_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a compiled file alone, Python's import makes a module of another kind."""
    (tmp_path / "text.py").write_text("calls = []")
    py_compile.compile(str(tmp_path / "text.py"), cfile=str(tmp_path / "user_compiled.pyc"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(3):
        with USER_MODULES.watching():
            calls = importlib.import_module("user_compiled").calls
        calls.append(1)
        USER_MODULES.forget()
    assert calls == [1]


def test_module_that_cannot_begin_anew_is_refused(make_module: MakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a second import of the module raises is said, with the reason for it."""
    monkeypatch.setattr(keras, "marks", [], raising=False)
    source = PLAIN + "assert not keras.marks, 'only once'\nkeras.marks.append(1)\ndef net(): return compiled(head())\n"
    code = UserCode(make_spec(make_module("user_once", source), training_seed=[0]), FASHION_MNIST)
    with pytest.raises(SpecError) as caught:
        build_cell(code, {}, 0)
    assert str(caught.value) == (
        "model.architecture must name an importable module, but user_once: AssertionError: only once (user_once.py, "
        "line 11), in its second import; for each trial a study's modules are executed anew, so that no trial meets "
        "what another left in them."
    )


PATCHING = (
    PLAIN
    + """
import functools, os
plain = keras.layers.Dense.call
@functools.wraps(plain)
def doubled(self, inputs, training=None):
    return 2 * plain(self, inputs, training=training)
keras.layers.Dense.call = doubled
os.chdir("inner")

def net(tripled):
    if tripled:
        keras.layers.Dense.get_config = lambda self: None
    return compiled(head(kernel_initializer="ones", name="head"))
"""
)


def test_patch_of_keras_is_made_once(make_module: MakeModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module that wraps a method of Keras, or changes the folder, does so from the same state in each trial."""
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    before = keras.layers.Dense.call, keras.layers.Dense.get_config
    code = UserCode(make_spec(make_module("user_patching", PATCHING), tripled=[False, True]), FASHION_MNIST)
    for tripled in (False, True, False):
        model = build_cell(code, {"tripled": tripled}, 0)
        (dense,) = (layer for layer in model.layers if layer.name == "head")
        dense.activation = keras.activations.linear
        assert float(dense(np.ones((1, 784), np.float32))[0, 0]) == 2 * 784
        assert (keras.layers.Dense.get_config is before[1]) != tripled
        assert Path.cwd() == tmp_path / "inner"
        forget_models()
    monkeypatch.chdir(tmp_path)
    UserCode(
        make_spec(make_module("user_plain", PLAIN + "def net(): return compiled(head())"), training_seed=[0]),
        FASHION_MNIST,
    )
    assert (keras.layers.Dense.call, keras.layers.Dense.get_config) == before


# Settings

SETTINGS = (
    PLAIN
    + """
import numpy as np
import tensorflow as tf

def change():
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_floatx("float64")
    keras.config.set_epsilon(1e-3)
    keras.config.set_image_data_format("channels_first")
    keras.config.disable_flash_attention()
    keras.config.enable_unsafe_deserialization()
    keras.config.disable_traceback_filtering()
    keras.config.disable_interactive_logging()
    keras.utils.get_custom_objects()["mine"] = change
    tf.config.run_functions_eagerly(True)
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.optimizer.set_experimental_options({"constant_folding": False})
    tf.config.set_soft_device_placement(False)
    np.seterr(over="raise")

@keras.saving.register_keras_serializable()
class Mine(keras.layers.Layer):
    pass

@tf.RegisterGradient("GradientOfMine")
def gradient(operation, upstream):
    return upstream

IMPORT

def net(changes):
    if changes:
        change()
    return compiled(head())
"""
)


def read_settings() -> list[Any]:
    return [
        keras.config.dtype_policy().name,
        keras.config.floatx(),
        keras.config.epsilon(),
        keras.config.image_data_format(),
        keras.config.is_flash_attention_enabled(),
        keras.src.saving.serialization_lib.in_safe_mode(),
        keras.config.is_traceback_filtering_enabled(),
        keras.config.is_interactive_logging_enabled(),
        "mine" in keras.utils.get_custom_objects(),
        tf.config.functions_run_eagerly(),
        FrameworkSettings.read().others["op_determinism"],
        tf.config.experimental.tensor_float_32_execution_enabled(),
        tf.config.optimizer.get_experimental_options().get("constant_folding"),
        tf.config.get_soft_device_placement(),
        np.geterr()["over"],
    ]


def test_settings_of_one_trial_do_not_reach_the_next(make_module: MakeModule) -> None:
    """What the function of one cell sets is as it was in the next."""
    source = SETTINGS.replace("IMPORT", "")
    code = UserCode(make_spec(make_module("user_settings", source), changes=[False, True]), FASHION_MNIST)
    found = []
    for changes in (False, True, False):
        build_cell(code, {"changes": changes}, 0)
        found.append(read_settings())
        forget_models()
    assert found[0] == found[2]
    assert all(before != changed for before, changed in zip(*found[:2], strict=True))


def test_settings_of_a_module_hold_in_every_trial(make_module: MakeModule) -> None:
    """What the module sets as it is imported holds in each trial of a process."""
    code = UserCode(
        make_spec(make_module("user_imports", SETTINGS.replace("IMPORT", "change()")), changes=[False]), FASHION_MNIST
    )
    plain, found = FrameworkSettings.read(), []
    for _ in range(2):
        build_cell(code, {"changes": False}, 0)
        found.append(read_settings())
        forget_models()
    assert found[0] == found[1]
    assert (found[0][0], found[0][9]) == ("mixed_bfloat16", True)
    assert FrameworkSettings.read().config == plain.config


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


@pytest.mark.more
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


# Initial weights


@pytest.mark.parametrize(("seconds", "n_warnings"), [pytest.param(1.1, 1, marks=pytest.mark.more), (0.0, 0)])
def test_slow_modules_are_warned_of(make_module: MakeModule, seconds: float, n_warnings: int) -> None:
    """They are executed anew for every trial; what an import costs is measured at the model begun last."""
    source = f"import time\ntime.sleep({seconds})\n{PLAIN}\ndef net(lr):\n    return compiled(head())\n"
    code = UserCode(make_spec(make_module(f"user_slow_{n_warnings}", source), lr=[0.1]), FASHION_MNIST)
    code.begin(0)
    warning = code.describe_slow_import()
    assert (warning is not None) == bool(n_warnings)
    if warning is not None:
        assert warning.startswith("importing user_slow_1 takes 1.")


@pytest.mark.parametrize("limit", ["max_epochs", "max_steps_per_epoch"])
def test_limits_of_fit_alone_are_refused(make_module: MakeModule, limit: str) -> None:
    """Keras cuts `fit` there, for debugging; a study would train on in silence."""
    source = f"{PLAIN}\nkeras.config.set_{limit}(3)\ndef net(lr):\n    return compiled(head())\n"
    code = UserCode(make_spec(make_module(f"user_limits_{limit}", source), lr=[0.1]), FASHION_MNIST)
    with pytest.raises(SpecError, match=f"set_{limit} and KERAS_{limit.upper()} must be left alone.*a limit of 3"):
        build_cell(code, {"lr": 0.1}, 0)


# Callbacks and their files
