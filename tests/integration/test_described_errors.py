"""Real errors of Keras and TensorFlow in one line: the innermost text, and the file and line of the user's code."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import one_training
import pytest

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.training.resident_data import ResidentData

# What raises is marked: the mark is the name of the case.
MODULE = """
import keras
import tensorflow as tf

L = keras.layers


class Reshaped(L.Layer):
    def call(self, x, training=False):
        return tf.reshape(x, (7, 13)) if training else x  # reshaped


class Gathered(L.Layer):
    def call(self, x):
        return x + tf.gather(x[0], tf.cast(tf.reduce_sum(x) * 0 + 999_999, tf.int32))  # gathered


class Asserted(L.Layer):
    def call(self, x):
        tf.debugging.assert_less(tf.reduce_max(x), -1.0, message="too big")  # asserted
        return x


class Looked(L.Layer):
    def call(self, x):
        raise KeyError("units")  # looked


class Inner(L.Layer):
    def call(self, x):
        return tf.concat([x, tf.ones((5, 5, 5))], 1)  # nested


class Outer(L.Layer):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def call(self, x):
        return self.inner(x)


class Converted(L.Layer):
    def call(self, x):
        return loop(x)


@tf.function
def loop(x):
    for _ in tf.range(2):
        x = x @ tf.ones((3, 3))  # converted
    return x


class Python(L.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.py_function(refuse, [x], tf.float32), x.shape)


def refuse(x):
    raise ValueError("inside a py_function")  # python


def wrong_loss(labels, output):
    return tf.reduce_mean(output - tf.ones((10, 3)))  # loss


def raising_loss(labels, output):
    raise RuntimeError("the loss\\nis wrong")  # raising


def too_much():
    return tf.zeros((1 << 20, 1 << 20, 1 << 10))  # memory


def eager():
    return Reshaped()(tf.zeros((2, 784)), training=True)


def argument():
    return L.Dense(-1)  # argument


def net(*extra, loss="sparse_categorical_crossentropy"):
    layers = [keras.Input((28, 28), dtype="uint8"), L.Rescaling(1 / 255), L.Flatten(), *extra, L.Dense(10)]
    model = keras.Sequential(layers)
    model.compile("adam", loss, metrics=["accuracy"])
    return model
"""
RESHAPE = "Cannot reshape a tensor with 12544 elements to shape [7,13] (91 elements) for Reshape"
CASES: dict[str, tuple[Callable[[ModuleType], Any], str]] = {
    "reshaped": (lambda m: train(m.net(m.Reshaped())), f"ValueError: {RESHAPE}"),
    "gathered": (lambda m: train(m.net(m.Gathered())), "InvalidArgumentError: indices = 999999 is not in [0, 784)"),
    "asserted": (lambda m: train(m.net(m.Asserted())), "InvalidArgumentError: assertion failed: [too big]"),
    "looked": (lambda m: m.net(m.Looked()), "KeyError: 'units'"),
    "nested": (lambda m: m.net(m.Outer()), "ValueError: Shape must be rank 2 but is rank 3 for ConcatV2"),
    "converted": (lambda m: train(m.net(m.Converted())), "ValueError: Dimensions must be equal, but are 784 and 3 for"),
    "python": (lambda m: train(m.net(m.Python())), "ValueError: inside a py_function"),
    "loss": (lambda m: train(m.net(loss=m.wrong_loss)), "ValueError: Dimensions must be equal, but are 16 and 10 for"),
    "raising": (lambda m: train(m.net(loss=m.raising_loss)), "RuntimeError: the loss is wrong"),
    "memory": (lambda m: m.too_much(), "ResourceExhaustedError: OOM when allocating tensor"),
    "eager": (lambda m: m.eager(), "InvalidArgumentError: Input to reshape is a tensor with 1568 values"),
    "argument": (lambda m: m.argument(), "ValueError: Received an invalid value for `units`"),
}
PLACES = {"eager": "reshaped"}  # where the line is another's
# TensorFlow waits ten seconds for memory before it gives up; "eager" fails in the same way at once.
SLOW = {"memory"}


def train(model: Any) -> None:
    """One epoch of 64 images."""
    images = np.random.default_rng(0).integers(0, 255, (64, 28, 28)).astype(np.uint8)
    labels = np.zeros(64, np.uint8)
    data = ResidentData.from_arrays(FASHION_MNIST, images, labels, images, labels)
    one_training.train(model, data, batch_size=16, max_epochs=1, patience=1, seed=0)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The user's module, as it is found in the current folder."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "my_models.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("my_models")
    sys.path.remove(str(folder))
    del sys.modules["my_models"]


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.more if c in SLOW else ()) for c in CASES])
@pytest.mark.filterwarnings("ignore:Layer 'outer' looks like")
def test_an_error_in_keras_names_the_users_line(module: ModuleType, case: str) -> None:
    """The text of the innermost error without its wrapping, and where it arose; twice the same."""
    act, text = CASES[case]
    described = []
    for _ in range(1 if case in SLOW else 2):
        keras.backend.clear_session(free_memory=False)  # as between two trials
        with pytest.raises(Exception) as info:  # noqa: PT011
            act(module)
        described.append(describe_error(info.value))
    lines = Path(str(module.__file__)).read_text().splitlines()
    mark = f"# {PLACES.get(case, case)}"
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(mark)]
    assert described[0].startswith(text)
    assert described[0].endswith(f"(my_models.py, line {number})")
    assert described[0] == described[-1]
    assert "node" not in described[0]
