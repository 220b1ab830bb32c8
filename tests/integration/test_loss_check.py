"""Losses of the user's own that a study can train by, and those that it refuses with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rehearsing import prepare_spec

from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec

MakeModule = Callable[[str, str], str]

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

SOURCE = """
import keras

L = keras.layers
ops = keras.ops

def net(units, loss, extra=(), head="softmax", start="glorot_uniform"):
    hidden = [L.Rescaling(1 / 255), L.Flatten(), L.Dense(units, activation="relu"), *extra]
    last = L.Dense(10, activation=head, kernel_initializer=start)
    model = keras.Sequential([keras.Input((28, 28), dtype="uint8"), *hidden, last])
    model.compile(keras.optimizers.SGD(0.01), loss)
    return model

class Reconstruction(L.Layer):
    def call(self, x):
        self.add_loss(1e4 * (1.0 + ops.mean(ops.square(x))))
        return x

def penalised(units):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return net(units, loss, [Reconstruction()], head=None)

def squares_penalised(units):
    return net(units, "mean_squared_error", [Reconstruction()])

def mean_of_weights(units):
    return net(units, keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"), start="zeros")

class Weightless(keras.losses.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y_true, y_pred))

def weightless(units):
    return net(units, Weightless())

class Annealed(keras.losses.Loss):
    def __init__(self):
        super().__init__()
        self.gamma = keras.Variable(1.0, trainable=False)
    def call(self, y_true, y_pred):
        return self.gamma * keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

class Advance(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.loss.gamma.assign(0.5)

def advance():
    return Advance()

def annealed(units):
    return net(units, Annealed())

def with_lora(units):
    model = net(units, "sparse_categorical_crossentropy")
    model.layers[-1].enable_lora(2)
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    return model
"""

ADVANCE = {"callbacks": ["losses_brought:advance"]}


@pytest.fixture
def module(make_module: MakeModule) -> str:
    """The user's module."""
    return make_module("losses_brought", SOURCE)


def spec_of(module: str, function: str, metric: str, training: dict[str, Any]) -> StudySpec:
    tables = {"model": {"architecture": f"{module}:{function}"}, "grid": {"units": [4]}}
    return parse_spec(
        {"name": "losses", **tables, "training": {"max_epochs": 1, **training}, "objective": {"metric": metric}}, "test"
    )


@pytest.mark.parametrize(
    ("function", "metric", "training"),
    [
        ("penalised", "val_accuracy", {}),
        ("mean_of_weights", "val_accuracy", {"class_weight": "balanced"}),
        ("annealed", "val_loss", {}),
        ("annealed", "val_accuracy", ADVANCE),
    ],
)
def test_losses_that_train_are_let_through(module: str, function: str, metric: str, training: dict[str, Any]) -> None:
    """With a penalty far above the loss of the answers, with its own mean of weights, with a variable."""
    assert prepare_spec(spec_of(module, function, metric, training)).name == "losses"


@pytest.mark.parametrize(
    ("function", "metric", "training", "words"),
    [
        ("squares_penalised", "val_accuracy", {}, "labels are integers from 0 to 9, not one-hot"),
        ("weightless", "val_accuracy", {"class_weight": "balanced"}, "is the same for any; multiply the losses by it"),
        ("annealed", "val_loss", ADVANCE, "a training changes Annealed.gamma in that of"),
        ("with_lora", "val_accuracy", {}, "its layers load other weights than they store, as those with LoRA do"),
    ],
)
def test_losses_and_weights_that_mislead_are_refused(
    module: str, function: str, metric: str, training: dict[str, Any], words: str
) -> None:
    """Each with its reason: of numbers, without weights, changed by a training, not what is loaded."""
    with pytest.raises(SpecError) as error:
        prepare_spec(spec_of(module, function, metric, training))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
