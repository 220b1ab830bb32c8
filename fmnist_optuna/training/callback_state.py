"""What callbacks have counted and collected: written down at a pause, and put over fresh callbacks that go on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fmnist_optuna.errors import SpecError
from fmnist_optuna.json_value import Json
from fmnist_optuna.training.contract import optimizers_of
from fmnist_optuna.training.plain_reading import StateReader
from fmnist_optuna.training.plain_state import ABSENT, NoCounterpartError, NotKeptError, StateWriter

PARAMS = "params"  # Keras gives the same to every callback
OF_ITS_FILE = {"csv_file", "writer", "append_header"}  # of a CSVLogger, which opens its file anew
# What callbacks compare with. Those of Keras choose one at their first epoch, and change more by it.
COMPARISONS = {
    "keras.ops.less": keras.ops.less,
    "keras.ops.greater": keras.ops.greater,
    "np.less": np.less,
    "np.greater": np.greater,
}


def known_objects(model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, object]:
    """What a fresh training has as well, by name: callbacks may hold on to the model and its parts."""
    optimizers = list(optimizers_of(model.optimizer))
    variables = [*model.variables, *(variable for part in optimizers for variable in part.variables)]
    groups = {
        "layer": model._flatten_layers(),
        "optimizer": optimizers,
        "variable": variables,
        "callback": callbacks,
    }
    numbered = {f"{name} {i}": thing for name, group in groups.items() for i, thing in enumerate(group)}
    return {"model": model, **numbered, **COMPARISONS}


def write_callbacks(callbacks: Sequence[keras.callbacks.Callback], writer: StateWriter) -> list[Json]:
    """The class and the attributes of each.

    Raises:
        SpecError: One holds what cannot be written down.
    """
    return [[_name_class(callback), _write_attributes(callback, writer)] for callback in callbacks]


def _write_attributes(callback: keras.callbacks.Callback, writer: StateWriter) -> dict[str, Json]:
    attributes: dict[str, Json] = {}
    for name, value in _attributes_of(callback).items():
        try:
            attributes[name] = writer.write(value)
        except NotKeptError as error:
            raise SpecError(
                "training.callbacks must keep what can be stored, so that a training may be paused and go on, but "
                f"{name} of {type(callback).__name__} holds {error}; use the pruner median "
                "(--pruner median), which pauses none."
            ) from error
    return attributes


def read_callbacks(stored: list[Any], callbacks: Sequence[keras.callbacks.Callback], reader: StateReader) -> None:
    """Put the attributes over those of fresh callbacks, which have begun.

    Args:
        stored: What `write_callbacks` gave.

    Raises:
        NoCounterpartError: They are others.
    """
    if [name for name, _ in stored] != [_name_class(callback) for callback in callbacks]:
        raise NoCounterpartError("callbacks are others")
    read = []
    for (_, attributes), callback in zip(stored, callbacks, strict=True):
        fresh = _attributes_of(callback)
        read.append({name: reader.read(node, fresh.get(name, ABSENT)) for name, node in attributes.items()})
    for callback, values in zip(callbacks, read, strict=True):
        for name in _attributes_of(callback).keys() - values.keys():
            del vars(callback)[name]
        vars(callback).update(values)


def reopen_files(callbacks: Sequence[keras.callbacks.Callback], folder: Path) -> None:
    """Let those of Keras' callbacks that keep a file open go on at its end, once the folder's files are there again."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and Path(callback.filename).is_relative_to(folder):
            appends, callback.append = callback.append, True
            keras.callbacks.CSVLogger.on_train_begin(callback)
            callback.append = appends


def _attributes_of(callback: keras.callbacks.Callback) -> Mapping[str, object]:
    left_out = {PARAMS, *(OF_ITS_FILE if isinstance(callback, keras.callbacks.CSVLogger) else ())}
    return {name: value for name, value in vars(callback).items() if name not in left_out}


def _name_class(callback: keras.callbacks.Callback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"
