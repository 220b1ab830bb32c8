"""Callbacks of the user's: which the loop can call, and which are refused by the hook that it cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rehearsing import prepare_spec
from users_modules import MakeModule

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.callbacks import CallbackArguments, make_callbacks
from fmnist_optuna.training.user_code import UserCode

pytestmark = pytest.mark.usefixtures("one_thread")


def make_spec(**tables: Any) -> StudySpec:
    return parse_spec({"name": "mine", **tables}, "mine.toml")


USER_CALLBACKS = """
import keras

class Epochs(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        pass

class Batches(Epochs):
    def on_train_batch_end(self, batch, logs=None):
        pass

def one(): return Epochs()
def several(): return [Epochs(), keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)]
def none(): return []
def batches(): return [Epochs(), Batches()]
def lambda_batches(): return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
def nan(): return keras.callbacks.TerminateOnNaN()
def checkpoint(folder): return keras.callbacks.ModelCheckpoint(folder / "weights.keras", save_freq="epoch")
def checkpoint_batches(folder): return keras.callbacks.ModelCheckpoint(folder / "weights.keras", save_freq=100)
def rates(folder):
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    return [keras.callbacks.ReduceLROnPlateau(), rate, keras.callbacks.EarlyStopping(),
            keras.callbacks.CSVLogger(folder / "log.csv")]
def word(): return "early stopping"
def kind(): return Epochs
def raising(): raise KeyError("token")
def demanding(rate, folder): return Epochs()
def nothing(): pass
def keras_list(): return keras.callbacks.CallbackList([Epochs()])
"""


@pytest.fixture
def user_callbacks(make_module: MakeModule) -> Callable[[str], StudySpec]:
    name = make_module("user_callbacks", USER_CALLBACKS)
    return lambda function: make_spec(training={"callbacks": [f"{name}:{function}"]})


@pytest.mark.parametrize(
    ("function", "n_callbacks"), [("one", 1), ("several", 2), ("none", 0), ("checkpoint", 1), ("rates", 4)]
)
def test_callbacks_with_epoch_hooks(
    user_callbacks: Callable[[str], StudySpec], tmp_path: Path, function: str, n_callbacks: int
) -> None:
    """A function may return one callback or a list; Keras' own that act once an epoch are accepted, fresh each time."""
    code = UserCode(user_callbacks(function), FASHION_MNIST)
    first, second = (make_callbacks(code.callbacks, CallbackArguments(0, {}, tmp_path)) for _ in range(2))
    assert len(first) == n_callbacks
    assert not {id(callback) for callback in first} & {id(callback) for callback in second}


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("missing", "must name a function, but module user_callbacks has no function missing."),
        *(
            (
                function,
                "must return keras.callbacks.Callback, or a list of them, empty for none, but "
                f"user_callbacks:{function} returned {kind}.",
            )
            for function, kind in (("word", "str"), ("kind", "type"), ("nothing", "NoneType"))
        ),
        (
            "keras_list",
            "must return callbacks in a list, but user_callbacks:keras_list returned a CallbackList, which Keras makes "
            "itself.",
        ),
        (
            "raising",
            "must return a callback, but user_callbacks:raising raised KeyError: 'token' (user_callbacks.py, line 26).",
        ),
        (
            "demanding",
            "must name functions that take trial, params and folder at most, but user_callbacks:demanding also needs "
            "rate.",
        ),
        *(
            (
                function,
                "must have epoch hooks only, as batches run inside the graph, but "
                f"user_callbacks:{function} returned {name} with {hook}.",
            )
            for function, name, hook in (
                ("batches", "Batches", "on_train_batch_end"),
                ("lambda_batches", "LambdaCallback", "on_train_batch_end"),
                ("nan", "TerminateOnNaN", "on_batch_end"),
                ("checkpoint_batches", "ModelCheckpoint", "on_train_batch_end"),
            )
        ),
    ],
    ids=lambda value: value if len(value) < 20 else "",
)
def test_refused_callbacks(user_callbacks: Callable[[str], StudySpec], function: str, text: str) -> None:
    """A callback that cannot be had, or that has a batch hook, is refused by name before any trial."""
    with pytest.raises(SpecError) as caught:
        prepare_spec(user_callbacks(function))
    assert str(caught.value) == f"training.callbacks {text}"


def test_a_callback_is_named_once(user_callbacks: Callable[[str], StudySpec]) -> None:
    """One that is named twice would be called once, and halve a rate once."""
    content = user_callbacks("one").model_dump()
    content["training"]["callbacks"] *= 2
    with pytest.raises(SpecError, match=r"^training.callbacks must name each function once, but user_callbacks:one is"):
        prepare_spec(StudySpec.model_validate(content))
