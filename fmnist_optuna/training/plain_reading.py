"""Values made again from what `plain_state` has written; what it says of safety holds here."""

import datetime
import random
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fmnist_optuna.training.array_file import Array
from fmnist_optuna.training.own_objects import cells_of, find_class, is_plain_class
from fmnist_optuna.training.plain_state import (
    ABSENT,
    CONFIGURATION,
    FACTORIES,
    GENERATORS,
    NoCounterpartError,
)

Node = Any  # as `json.loads` gives it


class StateReader:
    """Makes values from JSON and arrays.

    Args:
        known: Objects that both sides have, by name.
        folder: Of this attempt.
        arrays: What JSON refers to.
    """

    def __init__(self, known: Mapping[str, object], folder: Path, arrays: Sequence[Array]) -> None:
        self._known, self._folder, self._arrays = known, folder, arrays
        self._made: dict[int, object] = {}

    def read(self, node: Node, fresh: object = ABSENT) -> Any:
        """The value.

        Args:
            fresh: What stands in its place now: configuration is taken from there.

        Raises:
            NoCounterpartError: What should stand there, or a class, does not.
        """
        if not isinstance(node, list):
            return node
        tag, key, *rest = node
        if tag == "known":
            return self._known[key]
        if tag == "same":
            return self._made[key]
        return self.note(key, _READERS[tag](self, key, fresh, *rest))

    def note(self, number: int, value: object) -> object:
        """Remember a value, for where it is held again; one that may hold itself before it is filled."""
        self._made[number] = value
        return value

    def array(self, index: int) -> Array:
        """An array of its own."""
        return np.array(self._arrays[index])

    def read_all(self, nodes: list[Node], fresh: object) -> list[object]:
        """Several values."""
        items = list(fresh) if isinstance(fresh, list | tuple | deque) else []
        return [self.read(node, items[i] if i < len(items) else ABSENT) for i, node in enumerate(nodes)]

    def read_pairs(self, pairs: list[Node], fresh: Mapping[Any, object]) -> list[tuple[Any, object]]:
        """Names or keys with their values."""
        keys = [self.read(key) for key, _ in pairs]
        return [(key, self.read(node, fresh.get(key, ABSENT))) for key, (_, node) in zip(keys, pairs, strict=True)]

    def join(self, is_inside: bool, text: str) -> str:
        """A text, with this attempt's folder in front where it was in the other's."""
        return f"{self._folder}{text}" if is_inside else text


def _read_text(reader: StateReader, key: int, fresh: object, is_inside: bool, text: str) -> str:
    return reader.join(is_inside, text)


def _read_path(reader: StateReader, key: int, fresh: object, is_inside: bool, text: str) -> Path:
    return Path(reader.join(is_inside, text))


def _read_list(reader: StateReader, key: int, fresh: object, nodes: list[Node]) -> list[object]:
    made: list[object] = []
    reader.note(key, made)
    made += reader.read_all(nodes, fresh)
    return made


def _read_tuple(reader: StateReader, key: int, fresh: object, nodes: list[Node]) -> tuple[object, ...]:
    return tuple(reader.read_all(nodes, fresh))


def _read_set(reader: StateReader, key: int, fresh: object, nodes: list[Node]) -> set[object]:
    return set(reader.read_all(nodes, ABSENT))


def _read_frozenset(reader: StateReader, key: int, fresh: object, nodes: list[Node]) -> frozenset[object]:
    return frozenset(reader.read_all(nodes, ABSENT))


def _read_deque(reader: StateReader, key: int, fresh: object, nodes: list[Node], longest: int | None) -> deque[object]:
    made: deque[object] = deque(maxlen=longest)
    reader.note(key, made)
    made.extend(reader.read_all(nodes, fresh))
    return made


def _read_dict(
    reader: StateReader, key: int, fresh: object, kind: str, factory: str, pairs: list[Node]
) -> dict[Any, object]:
    empty: dict[str, Callable[[], dict[Any, Any]]] = {
        "dict": dict,
        "OrderedDict": OrderedDict,
        "Counter": Counter,
        "defaultdict": lambda: defaultdict(FACTORIES[factory] if factory else None),
    }
    made = empty[kind]()
    reader.note(key, made)
    made.update(reader.read_pairs(pairs, fresh if isinstance(fresh, dict) else {}))
    return made


def _read_bytes(reader: StateReader, key: int, fresh: object, index: int) -> bytes:
    return reader.array(index).tobytes()


def _read_bytearray(reader: StateReader, key: int, fresh: object, index: int) -> bytearray:
    return bytearray(reader.array(index).tobytes())


def _read_array(reader: StateReader, key: int, fresh: object, index: int) -> Array:
    return reader.array(index)


def _read_number(reader: StateReader, key: int, fresh: object, index: int) -> object:
    return reader.array(index)[()]


def _read_tensor(reader: StateReader, key: int, fresh: object, index: int) -> tf.Tensor:
    return tf.constant(reader.array(index))


def _read_complex(reader: StateReader, key: int, fresh: object, real: float, imaginary: float) -> complex:
    return complex(real, imaginary)


def _read_time(reader: StateReader, key: int, fresh: object, text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _read_duration(
    reader: StateReader, key: int, fresh: object, days: int, seconds: int, microseconds: int
) -> datetime.timedelta:
    return datetime.timedelta(days, seconds, microseconds)


def _read_random(reader: StateReader, key: int, fresh: object, state: Node) -> random.Random:
    made = random.Random()
    made.setstate(reader.read(state))
    return made


def _read_generator(reader: StateReader, key: int, fresh: object, name: str, state: Node) -> np.random.Generator:
    bits = GENERATORS[name]()
    bits.state = reader.read(state)
    return np.random.Generator(bits)


def _read_legacy(reader: StateReader, key: int, fresh: object, state: Node) -> np.random.RandomState:
    made = np.random.RandomState()
    made.set_state(reader.read(state))
    return made


def _read_member(reader: StateReader, key: int, fresh: object, module: str, name: str, member: str) -> object:
    members: Mapping[str, object] = getattr(_class_of(module, name), "__members__", {})
    return members[member]


def _read_object(reader: StateReader, key: int, fresh: object, module: str, name: str, pairs: list[Node]) -> object:
    kind = _class_of(module, name)
    if not is_plain_class(kind):
        raise NoCounterpartError(f"{module}.{name} is another class")
    made: object = object.__new__(kind)
    reader.note(key, made)
    vars(made).update(reader.read_pairs(pairs, vars(fresh) if type(fresh) is kind else {}))
    return made


def _read_function(reader: StateReader, key: int, fresh: object, pairs: list[Node]) -> object:
    if not isinstance(fresh, types.FunctionType):
        raise NoCounterpartError("a function is not there")
    reader.note(key, fresh)
    cells = cells_of(fresh)
    for name, value in reader.read_pairs(pairs, {name: cell.cell_contents for name, cell in cells.items()}):
        if name not in cells:
            raise NoCounterpartError("a function encloses other variables")
        cells[name].cell_contents = value
    return fresh


def _read_method(reader: StateReader, key: int, fresh: object, node: Node) -> object:
    if not isinstance(fresh, types.MethodType):
        raise NoCounterpartError("a method is not there")
    return types.MethodType(fresh.__func__, reader.read(node, fresh.__self__))


def _read_kept(reader: StateReader, key: int, fresh: object) -> object:
    if not isinstance(fresh, CONFIGURATION):
        raise NoCounterpartError("a function, class or module is not there")
    return fresh


def _class_of(module: str, name: str) -> type:
    kind = find_class(module, name)
    if kind is None:
        raise NoCounterpartError(f"there is no class {module}.{name}")
    return kind


_READERS: dict[str, Callable[..., object]] = {
    "text": _read_text,
    "path": _read_path,
    "list": _read_list,
    "tuple": _read_tuple,
    "set": _read_set,
    "frozenset": _read_frozenset,
    "deque": _read_deque,
    "dict": _read_dict,
    "bytes": _read_bytes,
    "bytearray": _read_bytearray,
    "array": _read_array,
    "number": _read_number,
    "tensor": _read_tensor,
    "complex": _read_complex,
    "time": _read_time,
    "duration": _read_duration,
    "random": _read_random,
    "generator": _read_generator,
    "legacy": _read_legacy,
    "member": _read_member,
    "object": _read_object,
    "function": _read_function,
    "method": _read_method,
    "kept": _read_kept,
}
