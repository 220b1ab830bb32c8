"""Modules as a user writes them, and studies that name them."""

from collections.abc import Callable
from typing import Any

from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec

MakeModule = Callable[[str, str], str]  # the fixture `make_module`
PLAIN = """
import keras
def compiled(*layers, optimizer="sgd"):
    model = keras.Sequential([
        keras.Input((28, 28), dtype="uint8"), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), *layers,
    ])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model
def head(**options):
    return keras.layers.Dense(10, activation="softmax", **options)
"""


def make_spec(module: str, callbacks: tuple[str, ...] = (), **grid: list[Any]) -> StudySpec:
    """A study whose architecture is the module's function `net`."""
    content = {
        "name": "mine",
        "data": {"source": "synthetic", "n_validation": 2_400},
        "model": {"architecture": f"{module}:net"},
        "grid": grid,
        "training": {"max_epochs": 2, "callbacks": [f"{module}:{name}" for name in callbacks]},
        "pruner": {"name": "none"},
    }
    return parse_spec(content, "mine.toml")
