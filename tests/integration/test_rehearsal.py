"""What `spec check` proves: whatever would fail every trial fails in a rehearsal of the smallest cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from rehearsing import prepare_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.code import code_differences
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.code import read_code
from fmnist_optuna.training.rehearsal import few_garments, rehearse, smallest_cell
from fmnist_optuna.training.user_code import UserCode

MakeModule = Callable[[str, str], str]

SOURCE = """
import os
import keras
import tensorflow as tf

L = keras.layers
keras.config.set_dtype_policy(os.environ.get("POLICY", "float32"))

def net(units, head="softmax", loss="sparse_categorical_crossentropy", cls=keras.Model, extra=(), flat=True):
    inputs = keras.Input((28, 28), dtype="uint8")
    x = L.Rescaling(1 / 255)(inputs)
    x = L.Dense(units, activation="relu")(L.Flatten()(x))
    for layer in extra:
        x = layer(x)
    model = cls(inputs, L.Dense(10, activation=head)(x))
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=["accuracy"])
    return model

def only_eager_loss(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred) * float(y_pred.numpy().max() > 0)

class OnlyTrained(L.Layer):
    def call(self, x, training=False):
        if training:
            raise KeyError("no statistics")
        return x

@tf.custom_gradient
def broken(x):
    return tf.identity(x), lambda dy: dy * float("nan")

class NotANumberBackwards(L.Layer):
    def call(self, x):
        return broken(x)

class Unsaved(L.Layer):
    def build(self, shape):
        variable = tf.Variable(1.0, trainable=False)
        self.hidden = lambda: variable
    def call(self, x, training=False):
        if training:
            self.hidden().assign_add(1.0)
        return x * self.hidden()

class AlwaysNoise(L.Layer):
    def call(self, x):
        return x + 50.0 * tf.random.normal(tf.shape(x))

class CrashesLater(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        if hasattr(keras, "is_open"):
            raise RuntimeError("already open")
        keras.is_open = True

class CrashesAtTheEnd(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        raise RuntimeError("no such folder")

def good(units): return net(units)
def logits(units): return net(units, head=None, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
def forgotten(units): return net(units, head=None)
def doubled(units): return net(units, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
def softplus(units): return net(units, head="softplus")
def one_hot(units): return net(units, loss="categorical_crossentropy")
def squares(units): return net(units, loss="mean_squared_error")
def squared(units): return net(units, loss="mse")
def binary(units): return net(units, loss=keras.losses.BinaryCrossentropy())
def hinge(units): return net(units, loss="categorical_hinge")
def only_eager(units): return net(units, loss=only_eager_loss)
def only_trained(units): return net(units, extra=[OnlyTrained()])
def backwards(units): return net(units, extra=[NotANumberBackwards()])
def unsaved(units): return net(units, extra=[Unsaved()])
def noise(units): return net(units, extra=[AlwaysNoise()])
def lambdas(units): return net(units, extra=[L.Lambda(lambda x: x * 2)])

def by_environment(units): return net(units, head=os.environ.get("HEAD_OF_THE_NET", "softmax"))
def crashes_later(): return CrashesLater()
def crashes_at_the_end(): return CrashesAtTheEnd()

def adapted(units):
    model = net(units)
    def adapt_to(images):
        assert images.shape[1:] == (28, 28), images.shape
        model.layers[-1].bias.assign(tf.fill([10], tf.reduce_mean(tf.cast(images, tf.float32)) / 255))
    model.adapt_to = adapt_to
    return model

def unadapted(units):
    model = net(units)
    model.adapt_to = lambda images: images.no_such_thing
    return model

def unadaptable(units):
    model = net(units)
    model.adapt_to = lambda: None
    return model

def own_loss(y_true, y_pred):
    return keras.losses.categorical_crossentropy(keras.ops.one_hot(keras.ops.cast(y_true, "int32"), 10), y_pred)

def with_own_loss(units): return net(units, loss=own_loss)

def weighted_loss(y_true, y_pred):
    weights = keras.ops.convert_to_tensor([1.0] * 9 + [40.0])
    losses = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
    return keras.ops.take(weights, keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")) * losses

def with_weighted_loss(units): return net(units, head=None, loss=weighted_loss)
"""

OTHERS = ("logits", "with_own_loss", "with_weighted_loss", "lambdas", "adapted")

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def module(make_module: MakeModule) -> str:
    """The user's module."""
    return make_module("rehearsed", SOURCE)


def spec_of(module: str, function: str, callback: str | None = None, **training: Any) -> StudySpec:
    callbacks = [] if callback is None else [f"{module}:{callback}"]
    return parse_spec(
        {
            "name": "rehearsed",
            "model": {"architecture": f"{module}:{function}"},
            "grid": {"units": [4, 8]},
            "training": {"callbacks": callbacks, **training},
        },
        "test",
    )


@pytest.mark.parametrize(
    ("function", "callback", "words"),
    [
        (
            "forgotten",
            None,
            "while its loss takes them for probabilities; end in a softmax, or give the loss from_logits=True",
        ),
        ("doubled", None, "sum to one, as probabilities do, and its loss takes them for logits"),
        ("softplus", None, "a softplus, are no probabilities"),
        ("one_hot", None, "labels are integers from 0 to 9, not one-hot: use sparse_categorical_crossentropy"),
        ("squared", None, "has mse: labels are integers"),
        ("binary", None, "use sparse_categorical_crossentropy"),
        ("hinge", None, "use sparse_categorical_crossentropy"),
        ("only_eager", None, "with units 4, but raised AttributeError"),
        ("only_trained", None, "with units 4, but raised KeyError"),
        ("backwards", None, "with units 4, but its loss or its weights are not finite after its first steps"),
        ("unsaved", None, "stored weights give other answers when they are loaded again"),
        ("noise", None, "must give the same answers to the same images"),
        ("unadapted", None, "adapt_to of the model must take the training images, but raised AttributeError: "),
        ("unadaptable", None, "adapt_to of the model must take the training images, but raised TypeError: "),
        ("good", "crashes_later", "a second time in one process, as it did a first time"),
        ("good", "crashes_at_the_end", "no such folder"),
    ],
)
def test_what_would_fail_every_trial_fails_here(
    module: str, function: str, callback: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a graph, in training, at the end of it, the second time, or once the weights are loaded."""
    monkeypatch.delattr(keras, "is_open", raising=False)
    with pytest.raises(SpecError) as error:
        prepare_spec(spec_of(module, function, callback))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("function", ["good", *OTHERS])
def test_what_trains_is_let_through(module: str, function: str) -> None:
    """Heads of both kinds, a loss of the user's own, layers that cannot be serialised, and a look at the images."""
    assert prepare_spec(spec_of(module, function, batch_size=1_000, max_epochs=1)).name == "rehearsed"


@pytest.mark.parametrize("function", ["good", "lambdas"])
def test_the_same_code_reads_the_same_each_time(module: str, function: str) -> None:
    """Names that Keras numbers in a process, and what a lambda compiles to, are no part of it."""
    code = UserCode(spec_of(module, function), FASHION_MNIST)
    cell = smallest_cell(code.bind()).params
    first = read_code(code, cell)
    kept = [keras.layers.Dense(3) for _ in range(3)]
    again = read_code(code, cell)
    assert len(kept) == 3
    assert first.fingerprint == again.fingerprint
    assert set(first.sources) == {module}


def test_a_loss_of_one_hot_labels_is_said_of_few_images(module: str) -> None:
    """Ten would validate here, as many as there are classes, so that their labels have the shape of a one-hot one."""
    images, labels = few_garments()
    code = UserCode(spec_of(module, "squares"), FASHION_MNIST)
    code.bind()
    with pytest.raises(SpecError, match="labels are integers from 0 to 9, not one-hot"):
        rehearse(code, images[:20], labels[:20])


def test_the_same_code_with_another_model_differs(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file or a variable of the environment says to the function shows in the model."""
    codes = []
    for head in ("softmax", "sigmoid"):
        monkeypatch.setenv("HEAD_OF_THE_NET", head)
        code = UserCode(spec_of(module, "by_environment"), FASHION_MNIST)
        codes.append(read_code(code, smallest_cell(code.bind()).params))
    assert any("sigmoid" in line for line in code_differences(*codes))


def test_a_dtype_policy_is_part_of_the_code(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets it: here the module, by what the environment says."""
    codes = []
    for policy in ("float32", "mixed_bfloat16"):
        monkeypatch.setenv("POLICY", policy)
        code = UserCode(spec_of(module, "good"), FASHION_MNIST)
        codes.append(read_code(code, smallest_cell(code.bind()).params))
    expected = "Keras' dtype_policy: the study has float32, here it is mixed_bfloat16"
    assert expected in code_differences(codes[0], codes[1])


def test_variables_that_change_numbers_are_recorded_no_secrets() -> None:
    """Terraform's variables begin with TF_ too."""
    from fmnist_optuna.training.numerics import read_numerics

    recorded = {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONHASHSEED": "0"}
    environ = {**recorded, "TF_VAR_password": "x", "TF_TOKEN_a": "y"}
    numerics = read_numerics(environ)
    assert environ.items() & numerics.items() == recorded.items()
    assert (numerics["floatx"], numerics["jit"], numerics["deterministic_ops"]) == ("float32", "off", "False")


IDLE = """
import keras

class Own(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

def net(loss):
    model = keras.Sequential([
        keras.Input((28, 28), dtype="uint8"), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ])
    model.compile("sgd", "sparse_categorical_crossentropy" if loss == "plain" else Own(), metrics=["accuracy"])
    return model
"""


@pytest.mark.parametrize("when", [{"loss": "plain"}, {}])
def test_an_option_is_tried_beside_what_it_goes_with_alone(make_module: MakeModule, when: dict[str, str]) -> None:
    """Smoothing is for one of two losses: as a key of its own it is refused, with that loss alone it is not."""
    space = {"loss": ["plain", "own"], "label_smoothing": {"low": 0.0, "high": 0.2, **({"when": when} if when else {})}}
    content = {"model": {"architecture": f"{make_module('idle', IDLE)}:net"}, "space": space}
    spec = StudySpec.model_validate({**content, "search": {"sampler": "random", "n_trials": 2}})
    if when:
        assert prepare_spec(spec).n_cells == 2
    else:
        with pytest.raises(SpecError, match=r"training\.label_smoothing must go with"):
            prepare_spec(spec)
