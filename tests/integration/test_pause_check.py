"""What cannot be paused is found before a study begins, with every choice of its grid."""

import pytest
from users_modules import PLAIN, MakeModule, make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.training.pause_check import check_pause
from fmnist_optuna.training.rehearsal import cells_of_each_choice, few_garments, rehearse
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.user_code import UserCode

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread", "settings_set_back")]

CHECKED = (
    PLAIN
    + """
import tensorflow as tf
count = 0
class Noise(keras.layers.Layer):
    def call(self, x, training=False):
        return x + 0.1 * tf.random.normal(tf.shape(x)) if training else x
class KerasNoise(keras.layers.Layer):
    def call(self, x, training=False):
        return x + 0.1 * keras.random.normal(tf.shape(x)) if training else x
class Module(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        global count
        count += 1
        self.model.trainable_variables[0].assign(self.model.trainable_variables[0].numpy() * (1 + count))
class Opens(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.file = open(__file__)
class Later(keras.callbacks.Callback):
    compare = None
    def __init__(self):
        super().__init__()
        self.chosen = None
    def on_epoch_end(self, epoch, logs=None):
        self.chosen = self.chosen or (lambda a, b: a < b)
nets = {"good": KerasNoise, "noise": Noise}
def net(kind):
    return compiled(nets[kind](), head())
def module(): return Module()
def opens(): return Opens()
def later(): return Later()
"""
)


@pytest.mark.parametrize(
    ("kind", "callbacks", "words"),
    [
        ("noise", (), "is another then; draw random numbers by keras.random"),
        ("good", ("module",), "is another then"),
        (
            "good",
            ("opens",),
            "but file of Opens holds a TextIOWrapper; use the pruner median (--pruner median), which pauses none.",
        ),
        (
            "good",
            ("later",),
            "but its checkpoint is of other callbacks; use the pruner median (--pruner median), which pauses none.",
        ),
    ],
)
def test_what_cannot_be_paused_is_found(
    make_module: MakeModule, kind: str, callbacks: tuple[str, ...], words: str, handful: ResidentData
) -> None:
    """A cell that goes on otherwise than without a pause, or cannot be stored, is refused in one line."""
    code = UserCode(make_spec(make_module("users_paused", CHECKED), callbacks, kind=[kind]), FASHION_MNIST)
    with pytest.raises(SpecError) as error:
        check_pause(code, {"kind": kind}, 1, handful)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_can_be_paused_is_let_through(make_module: MakeModule, handful: ResidentData) -> None:
    """Also where a layer draws from Keras' global generator."""
    code = UserCode(make_spec(make_module("users_paused", CHECKED), kind=["good"]), FASHION_MNIST)
    check_pause(code, {"kind": "good"}, 1, handful)


def test_a_rehearsal_tries_a_pause_where_asked(make_module: MakeModule) -> None:
    """A study that pauses nothing may draw as it likes."""
    code = UserCode(make_spec(make_module("users_paused", CHECKED), kind=["noise"]), FASHION_MNIST)
    code.bind()
    rehearse(code, *few_garments())
    with pytest.raises(SpecError, match=r"use the pruner median \(--pruner median\), which pauses none"):
        rehearse(code, *few_garments(), pauses=True)


def test_a_pause_is_tried_with_every_choice(make_module: MakeModule) -> None:
    """Not only with the first, which may be the one that draws nothing."""
    code = UserCode(make_spec(make_module("users_paused", CHECKED), kind=["good", "noise"]), FASHION_MNIST)
    code.bind()
    with pytest.raises(SpecError, match=r"with kind noise, but .* is another then"):
        rehearse(code, *few_garments(), pauses=True)


def test_each_choice_is_in_one_of_few_cells() -> None:
    """As many as the longest list has; numbers are the smallest, and a choice is missed by none."""
    spec = make_spec("users_paused", kind=["a", "b", "c"], units=[8, 4], flips=[True, False])
    smallest = {"kind": "a", "units": 4, "flips": False}
    assert cells_of_each_choice(spec) == [
        smallest,
        {**smallest, "kind": "b", "flips": True},
        {**smallest, "kind": "c"},
    ]
    assert len(cells_of_each_choice(make_spec("users_paused", units=[8, 4]))) == 1
