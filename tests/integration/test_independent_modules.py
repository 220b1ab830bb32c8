"""Modules of the user's, and the settings that they make, begin anew for each trial."""

import importlib
import py_compile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from users_modules import PLAIN, MakeModule, make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.training.cell_training import build_cell
from fmnist_optuna.training.user_code import UserCode, forget_models
from fmnist_optuna.user_modules.execution import USER_MODULES
from fmnist_optuna.user_modules.framework_settings import FrameworkSettings

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread", "settings_set_back")]


# Modules


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


@pytest.mark.parametrize(("seconds", "n_warnings"), [(1.1, 1), (0.0, 0)])
def test_slow_modules_are_warned_of(make_module: MakeModule, seconds: float, n_warnings: int) -> None:
    """They are executed anew for every trial; what an import costs is measured at the model begun last."""
    source = f"import time\ntime.sleep({seconds})\n{PLAIN}\ndef net(lr):\n    return compiled(head())\n"
    code = UserCode(make_spec(make_module(f"user_slow_{n_warnings}", source), lr=[0.1]), FASHION_MNIST)
    code.begin(0)
    warning = code.describe_slow_import()
    assert (warning is not None) == bool(n_warnings)
    if warning is not None:
        assert warning.startswith("importing user_slow_1 takes 1.")


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


@pytest.mark.parametrize("limit", ["max_epochs", "max_steps_per_epoch"])
def test_limits_of_fit_alone_are_refused(make_module: MakeModule, limit: str) -> None:
    """Keras cuts `fit` there, for debugging; a study would train on in silence."""
    source = f"{PLAIN}\nkeras.config.set_{limit}(3)\ndef net(lr):\n    return compiled(head())\n"
    code = UserCode(make_spec(make_module(f"user_limits_{limit}", source), lr=[0.1]), FASHION_MNIST)
    with pytest.raises(SpecError, match=f"set_{limit} and KERAS_{limit.upper()} must be left alone.*a limit of 3"):
        build_cell(code, {"lr": 0.1}, 0)
