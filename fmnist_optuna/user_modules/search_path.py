"""Where a user's modules are looked for: the study file's folder, then the current folder, behind everything else.

Behind, so that a user's `types.py` or `keras.py` is never taken for the module of that name which Python, TensorFlow or
we import. A study that names such a module of the user's own is refused, as is one of two readings.
"""

import filecmp
import importlib.util
import os
import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path

from fmnist_optuna.errors import SpecError
from fmnist_optuna.origins import is_installed

_added: list[str] = []  # entries of sys.path


def search_in(*folders: Path) -> None:
    """Look for modules in these folders too, after all others; they replace those of an earlier call.

    Children see the same, as multiprocessing gives them its parent's path.
    """
    sys.path[:] = [entry for entry in sys.path if entry not in _added]
    _added[:] = [entry for entry in dict.fromkeys(map(str, folders)) if entry not in sys.path]
    sys.path.extend(_added)


def describe_places() -> str:
    """Where a user's module is looked for, for people."""
    return " or ".join([*users_folders(), "what is installed"])


def check_name(module: str, key: str) -> None:
    """Check that a module of the user's has its name to itself.

    Args:
        module: As a study file has it: "package.module".
        key: Key of the study file that names it, for errors.

    Raises:
        SpecError: Python or a package has a module of this name, or two folders have one.
    """
    top = module.partition(".")[0]
    files = dict.fromkeys(file for entry in users_folders() if (file := _find(top, entry)) is not None)
    if not files:
        return
    first, *others = files
    if top in sys.stdlib_module_names:
        raise SpecError(f"{key} must name a module of its own name, but {top} is Python's; rename {first}.")
    found = importlib.util.find_spec(top)  # of the module that is loaded already, if there is one
    if found is not None and os.path.realpath(found.origin or "") != first:
        raise SpecError(
            f"{key} must name a module of its own name, but {top} is installed as {found.origin}; rename {first}."
        )
    for other in others:
        if not filecmp.cmp(first, other, shallow=False):
            raise SpecError(f"{key} must name one module, but {top} is {first} as well as {other}; rename one of them.")


def users_folders() -> list[str]:
    """Folders of Python's path that are the user's: no library, and not the one that commands are installed in."""
    folders = (entry for entry in dict.fromkeys(sys.path) if entry and entry != sysconfig.get_path("scripts"))
    return [entry for entry in folders if Path(entry).is_dir() and not is_installed(Path(entry))]


def _find(name: str, entry: str) -> str | None:
    """File of a module or package in one folder."""
    spec = PathFinder.find_spec(name, [entry])
    return None if spec is None or not spec.origin else os.path.realpath(spec.origin)
