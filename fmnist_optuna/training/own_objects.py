"""What is the user's own among classes and functions, and what of it is plain data."""

import sys
import types

from fmnist_optuna.user_modules.execution import is_users

# Whatever says itself how it is copied is more than its attributes.
OWN_WAYS = {"__slots__", "__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}


def is_own(value: object) -> bool:
    """Whether something was written in a module of the user's."""
    return is_users(sys.modules.get(getattr(value, "__module__", None) or ""))


def cells_of(function: types.FunctionType) -> dict[str, types.CellType]:
    """What a function encloses, by name; a variable that has no value yet is left out."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell for name, cell in cells if _has_value(cell)}


def _has_value(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def find_class(module: str, name: str) -> type | None:
    """A class by its name, in a module of the user's that is imported; None if there is none."""
    found: object = sys.modules.get(module)
    if not isinstance(found, types.ModuleType) or not is_users(found):
        return None
    for part in name.split("."):
        found = vars(found).get(part) if isinstance(found, types.ModuleType | type) else None
    return found if isinstance(found, type) else None


def is_plain_class(kind: type | None) -> bool:
    """Whether a class is the user's and its objects are their attributes, nothing else."""
    if kind is None:
        return False
    bases = [base for base in kind.__mro__ if base is not object]
    return all(is_own(base) and not OWN_WAYS & vars(base).keys() for base in bases)
