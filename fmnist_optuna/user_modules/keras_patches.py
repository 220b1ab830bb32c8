"""What the user's code puts in the place of Keras' own functions, methods and classes, taken back.

A module that wraps a method of Keras, and is executed anew for each trial, would wrap its own wrapper the second time.
Patches of other packages are not known here.
"""

import sys
from collections.abc import Collection, Iterator
from types import ModuleType

PACKAGE = "keras"
_ABSENT = object()


class KerasCode:
    """Keras' functions, methods and classes as they are at one moment, by module or class."""

    def __init__(self) -> None:
        self._owners = {id(owner): (owner, _functions_of(owner)) for owner in _owners()}

    def without(self, modules: Collection[str], earlier: "KerasCode") -> "KerasCode":
        """The same, with what comes from these modules replaced by what was there at an earlier moment."""
        for identity, (_, functions) in self._owners.items():
            before = earlier._owners.get(identity, (None, functions))[1]
            for name, value in list(functions.items()):
                if _module_of(value) in modules and before.get(name) is not value:
                    functions[name] = before.get(name, _ABSENT)
        return self

    def set_back(self) -> None:
        """Put everything back that is another thing now; what Keras has imported since stays as it is."""
        for owner, functions in self._owners.values():
            present = _functions_of(owner)
            if present == functions:
                continue
            for name in present.keys() | functions.keys():
                value = functions.get(name, _ABSENT)
                if value is present.get(name, _ABSENT):
                    continue
                if value is not _ABSENT:
                    setattr(owner, name, value)
                elif isinstance(owner, type):
                    delattr(owner, name)


def _owners() -> Iterator[ModuleType | type]:
    """Keras' modules, and the classes that they define."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != PACKAGE or not isinstance(module, ModuleType):
            continue
        yield module
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == name:
                yield value


def _functions_of(owner: ModuleType | type) -> dict[str, object]:
    """What can be called or is a property, as it stands in the namespace."""
    return {
        name: value
        for name, value in list(vars(owner).items())
        if callable(value) or isinstance(value, classmethod | staticmethod | property)
    }


def _module_of(value: object) -> str | None:
    """Where a function, method or class was written; a wrapper may have taken the name of what it wraps."""
    plain = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    written = getattr(plain, "__globals__", {}).get("__name__")
    return written or getattr(plain, "__module__", None)
