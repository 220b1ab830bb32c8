"""What a model or a callback must not have in common with that of an earlier trial in the same process.

The user's modules are executed anew for each trial, but an installed package or a cache of its own may still hand out
a layer, an optimizer or a callback that an earlier trial has used.
"""

import hashlib
import weakref
from collections.abc import Sequence

import keras
import numpy as np

from fmnist_optuna.errors import SpecError


class _Known:
    """Objects that were seen before, by identity, with a note each; none is kept alive."""

    def __init__(self) -> None:
        self._notes: dict[int, tuple[weakref.ref[object], str]] = {}

    def note_of(self, thing: object) -> str | None:
        reference, note = self._notes.get(id(thing), (None, ""))
        return note if reference is not None and reference() is thing else None

    def add(self, thing: object, note: str = "") -> None:
        identity = id(thing)
        self._notes[identity] = weakref.ref(thing, lambda _: self._notes.pop(identity, None)), note


_VARIABLES = _Known()  # each with the hash of its value when a model was first built with it
_CALLBACKS = _Known()


def refuse_changed_variables(model: keras.Model, name: str) -> None:
    """Refuse a model with a variable that an earlier trial changed; a pretrained part that nobody changes is fine.

    Args:
        model: Just built.
        name: Of the user's function, for the error.

    Raises:
        SpecError: A weight, a moving statistic, a random state or a state of the optimizer goes on where it was left.
    """
    for variable in (*model.variables, *model.optimizer.variables):
        digest = hash_value(variable)
        first = _VARIABLES.note_of(variable)
        if first is None:
            _VARIABLES.add(variable, digest)
        elif first != digest:
            raise SpecError(
                f"model.architecture must return a model of its own for each trial, but {name} returned one with "
                f"{variable.path}, which an earlier trial changed; make that layer or optimizer inside the function, "
                "or freeze it (trainable = False)."
            )


def refuse_used_callbacks(callbacks: Sequence[keras.callbacks.Callback], name: str) -> None:
    """Refuse callbacks that were returned before: they keep what they counted.

    Raises:
        SpecError: One is the same object as before.
    """
    for callback in callbacks:
        if _CALLBACKS.note_of(callback) is not None:
            raise SpecError(
                f"training.callbacks must return a new callback each time, but {name} returned the same "
                f"{type(callback).__name__} twice; make it inside the function."
            )
        _CALLBACKS.add(callback)


def hash_value(variable: keras.Variable) -> str:
    """A hash of the value of a variable: equal for equal numbers of one shape and type."""
    value = np.ascontiguousarray(variable.numpy())
    return hashlib.blake2b(f"{value.shape}{value.dtype}".encode() + value.tobytes(), digest_size=16).hexdigest()
