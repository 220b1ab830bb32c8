"""Python values as JSON and arrays, and made from them again: what callbacks have counted and collected.

Nothing that is read is executed, wherever the file comes from: the values that may come are listed here, and an object
of the user's own class is made without its constructor, of a class in a module of the user's that is imported already.
Python's pickle would call whatever a file names.

Three kinds of values are not written down:

- what is *known* to both sides by a name: the model, its layers, the callbacks;
- *configuration*, which fresh callbacks bring themselves: functions, classes, modules, loggers, schedules. What a
  function of the user's encloses is written down, as it may count there;
- whatever is not listed here, such as an open file or a running generator: `NotKeptError`.

An object that is held twice is one object afterwards too.
"""

import datetime
import enum
import logging
import random
import re
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fmnist_optuna.json_value import Json
from fmnist_optuna.training.array_file import Array
from fmnist_optuna.training.own_objects import cells_of, find_class, is_own, is_plain_class

ABSENT = object()  # the fresh counterpart of a value that has none
PLAIN = (bool, int, float, type(None))
DICTS = {kind.__name__: kind for kind in (dict, OrderedDict, Counter, defaultdict)}
FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float, str)}  # of a defaultdict
GENERATORS = {
    kind.__name__: kind for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox)
}
CONFIGURATION = (
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, type, partial),
    *(np.ufunc, np.dtype, tf.DType, re.Pattern, logging.Logger, logging.LoggerAdapter),
    *(keras.optimizers.schedules.LearningRateSchedule, keras.Initializer),
)


class NotKeptError(Exception):
    """A value cannot be written down; the text says what it is."""


class NoCounterpartError(Exception):
    """What a fresh callback should bring itself is not there."""


class StateWriter:
    """Writes values as JSON and arrays.

    Args:
        known: Objects that both sides have, by a name.
        folder: Of the attempt; paths into it are written without it, as another attempt has another.

    Attributes:
        arrays: What JSON refers to, so far.
    """

    def __init__(self, known: Mapping[str, object], folder: Path) -> None:
        self.arrays: list[Array] = []
        self._folder = folder
        self._known = {id(thing): name for name, thing in known.items()}
        self._numbers: dict[int, int] = {}  # of what was written, by identity
        self._written: list[object] = []  # held, so that no other object takes its identity

    def write(self, value: object) -> Json:
        """The value as JSON.

        Raises:
            NotKeptError: It, or something in it, cannot be written down.
        """
        if isinstance(value, PLAIN) and type(value) in PLAIN:
            return value
        if type(value) is str and not self.split(value)[0]:
            return value
        if id(value) in self._known:
            return ["known", self._known[id(value)]]
        if id(value) in self._numbers:
            return ["same", self._numbers[id(value)]]
        write = _WRITERS.get(type(value)) or _find_writer(value)
        self._numbers[id(value)] = number = len(self._written)
        self._written.append(value)
        return [write.__name__.removeprefix("_write_"), number, *write(self, value)]

    def add(self, array: Array) -> int:
        """The index of an array that is written beside.

        Raises:
            NotKeptError: It holds objects, or fields.
        """
        if array.dtype.hasobject or array.dtype.names:
            raise NotKeptError(f"an array of {array.dtype}")
        self.arrays.append(array)
        return len(self.arrays) - 1

    def write_all(self, values: Iterable[object]) -> list[Json]:
        """Several values."""
        return [self.write(value) for value in values]

    def write_pairs(self, pairs: Iterable[tuple[object, object]]) -> list[Json]:
        """Names or keys with their values."""
        return [[self.write(key), self.write(value)] for key, value in pairs]

    def split(self, text: str) -> list[Json]:
        """Whether a text is a path into the folder, and what of it is not the folder."""
        folder = str(self._folder)
        is_inside = text == folder or text.startswith(f"{folder}/")
        return [is_inside, text.removeprefix(folder) if is_inside else text]


def _write_text(writer: StateWriter, value: str) -> list[Json]:
    return writer.split(value)


def _write_path(writer: StateWriter, value: Path) -> list[Json]:
    return writer.split(str(value))


def _write_list(writer: StateWriter, value: list[object]) -> list[Json]:
    return [writer.write_all(value)]


def _write_tuple(writer: StateWriter, value: tuple[object, ...]) -> list[Json]:
    return [writer.write_all(value)]


def _write_set(writer: StateWriter, value: set[object]) -> list[Json]:
    return [writer.write_all(value)]


def _write_frozenset(writer: StateWriter, value: frozenset[object]) -> list[Json]:
    return [writer.write_all(value)]


def _write_deque(writer: StateWriter, value: deque[object]) -> list[Json]:
    return [writer.write_all(value), value.maxlen]


def _write_dict(writer: StateWriter, value: dict[object, object]) -> list[Json]:
    factory = value.default_factory if isinstance(value, defaultdict) else None
    name = getattr(factory, "__name__", "")
    if factory is not None and FACTORIES.get(name) is not factory:
        raise NotKeptError("a defaultdict with a function of its own")
    return [type(value).__name__, name, writer.write_pairs(value.items())]


def _write_bytes(writer: StateWriter, value: bytes) -> list[Json]:
    return [writer.add(np.frombuffer(value, np.uint8))]


def _write_bytearray(writer: StateWriter, value: bytearray) -> list[Json]:
    return [writer.add(np.frombuffer(bytes(value), np.uint8))]


def _write_array(writer: StateWriter, value: Array) -> list[Json]:
    return [writer.add(value)]


def _write_number(writer: StateWriter, value: np.generic) -> list[Json]:
    return [writer.add(np.asarray(value))]


def _write_tensor(writer: StateWriter, value: tf.Tensor) -> list[Json]:
    return [writer.add(np.asarray(value.numpy()))]


def _write_complex(writer: StateWriter, value: complex) -> list[Json]:
    return [value.real, value.imag]


def _write_time(writer: StateWriter, value: datetime.datetime) -> list[Json]:
    return [value.isoformat()]


def _write_duration(writer: StateWriter, value: datetime.timedelta) -> list[Json]:
    return [value.days, value.seconds, value.microseconds]


def _write_random(writer: StateWriter, value: random.Random) -> list[Json]:
    return [writer.write(value.getstate())]


def _write_generator(writer: StateWriter, value: np.random.Generator) -> list[Json]:
    name = type(value.bit_generator).__name__
    if name not in GENERATORS:
        raise NotKeptError(f"a generator of {name}")
    return [name, writer.write(value.bit_generator.state)]


def _write_legacy(writer: StateWriter, value: np.random.RandomState) -> list[Json]:
    return [writer.write(value.get_state(legacy=False))]


def _write_member(writer: StateWriter, value: enum.Enum) -> list[Json]:
    return [type(value).__module__, type(value).__qualname__, value.name]


def _write_object(writer: StateWriter, value: object) -> list[Json]:
    kind = type(value)
    return [kind.__module__, kind.__qualname__, writer.write_pairs(vars(value).items())]


def _write_function(writer: StateWriter, value: types.FunctionType) -> list[Json]:
    return [writer.write_pairs((name, cell.cell_contents) for name, cell in cells_of(value).items())]


def _write_method(writer: StateWriter, value: types.MethodType) -> list[Json]:
    return [writer.write(value.__self__)]


def _write_kept(writer: StateWriter, value: object) -> list[Json]:
    return []


_WRITERS: dict[type, Callable[[StateWriter, Any], list[Json]]] = {
    str: _write_text,
    type(Path()): _write_path,
    list: _write_list,
    tuple: _write_tuple,
    set: _write_set,
    frozenset: _write_frozenset,
    deque: _write_deque,
    **dict.fromkeys(DICTS.values(), _write_dict),
    bytes: _write_bytes,
    bytearray: _write_bytearray,
    np.ndarray: _write_array,
    complex: _write_complex,
    datetime.datetime: _write_time,
    datetime.timedelta: _write_duration,
    random.Random: _write_random,
    np.random.Generator: _write_generator,
    np.random.RandomState: _write_legacy,
}


def _find_writer(value: object) -> Callable[[StateWriter, Any], list[Json]]:
    """How a value is written whose type alone does not say it.

    Raises:
        NotKeptError: In no way.
    """
    kind = type(value)
    if isinstance(value, np.generic):
        return _write_number
    if tf.is_tensor(value) and hasattr(value, "numpy") and not isinstance(value, tf.Variable | keras.Variable):
        return _write_tensor
    if isinstance(value, CONFIGURATION):
        if is_own(value) and isinstance(value, types.FunctionType):
            return _write_function
        return _write_method if is_own(value) and isinstance(value, types.MethodType) else _write_kept
    if isinstance(value, enum.Enum) and find_class(kind.__module__, kind.__qualname__) is not None:
        return _write_member
    if is_plain_class(find_class(kind.__module__, kind.__qualname__)):
        return _write_object
    raise NotKeptError(f"a {kind.__qualname__}")
