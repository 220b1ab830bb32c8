"""The source of the user's modules that a module reaches through its imports.

The user's is what is neither of the standard library nor installed nor this package; an editable install is the
user's. Nothing is imported here: modules that are not loaded yet are found and read.
"""

import ast
import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Protocol, runtime_checkable

from fmnist_optuna.origins import is_users

RECORDED = {"fmnist_optuna", "keras", "tensorflow", "numpy", "optuna"}  # their versions stand with every trial
PYC_HEADER = 16  # bytes in front of the code: magic number, flags, time and size of the source (PEP 552)


def read_sources(names: Iterable[str]) -> dict[str, str]:
    """Read the modules of these names and the user's modules that they import, at whatever place in their code.

    A named module counts as the user's even when it is installed, with its whole package, unless its version is
    recorded anyway.

    Returns:
        Text by module name; "sha256 ..." of its bytes for a module without text.
    """
    return {name: text for name, text, _ in _walk(names)}


def find_files(names: Iterable[str]) -> dict[str, Path]:
    """The files of the same modules, by module name."""
    return {name: Path(origin) for name, _, origin in _walk(names) if origin}


def _walk(names: Iterable[str]) -> Iterator[tuple[str, str, str | None]]:
    """Name, text and file of each."""
    waiting = list(names)
    own = {name.partition(".")[0] for name in waiting} - RECORDED
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        waiting.append(name.rpartition(".")[0])  # a package runs before what is in it
        spec = _find_spec(name)
        if spec is None or not _is_users(spec, own):
            continue
        text = _read_text(spec)
        if text is not None:
            yield name, text, spec.origin
            waiting += _imported_names(text, spec)
        waiting += _referred_names(name)


def _find_spec(name: str) -> ModuleSpec | None:
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if loaded is not None:
        return loaded if isinstance(loaded, ModuleSpec) else None
    parent = name.rpartition(".")[0]
    try:
        if not parent:
            return importlib.util.find_spec(name)
        package = _find_spec(parent)
        if package is None or package.submodule_search_locations is None:
            return None
        return _find_in(list(package.submodule_search_locations), name)
    except (ImportError, ValueError):  # ValueError: made by a program, without a specification
        return None


def _find_in(places: list[str], name: str) -> ModuleSpec | None:
    """A module within the folders of its package."""
    try:
        return PathFinder.find_spec(name, places)
    except KeyError:  # a namespace package in another one, which Python would have imported by now
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(Path(place) / name.rpartition(".")[2]) for place in places]
        return spec


def _is_users(spec: ModuleSpec, own: set[str]) -> bool:
    top = spec.name.partition(".")[0]
    if top in RECORDED or spec.origin in ("built-in", "frozen"):
        return False
    if top in own:
        return True
    # A namespace package has no file, only the folders that make it up.
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return bool(places) and all(is_users(Path(place)) for place in places)


@runtime_checkable
class _HasSource(Protocol):
    """A loader that may know the text of a module."""

    def get_source(self, fullname: str) -> str | None: ...


@runtime_checkable
class _HasData(Protocol):
    """A loader that reads files."""

    def get_data(self, path: str) -> bytes: ...


def _read_text(spec: ModuleSpec) -> str | None:
    """The source; a hash of the bytes where there is none; None for a namespace package or a module out of nothing."""
    loader: object = spec.loader
    if spec.origin is None:  # a namespace package
        return None
    try:
        text = loader.get_source(spec.name) if isinstance(loader, _HasSource) else None
        if text is not None:
            return text
        if not isinstance(loader, _HasData):
            return None
        content = loader.get_data(spec.origin)
    except (OSError, ImportError, SyntaxError):
        return None
    return f"sha256 {hashlib.sha256(content[PYC_HEADER:] if spec.origin.endswith('.pyc') else content).hexdigest()}"


def _imported_names(text: str, spec: ModuleSpec) -> Iterator[str]:
    """Whatever an import statement may mean by its names: a module, or something in one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            written = "." * node.level + (node.module or "")
            try:
                base = importlib.util.resolve_name(written, spec.parent)
            except ImportError:  # beyond the package: it would fail at run time as well
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _referred_names(name: str) -> Iterator[str]:
    """Modules of what stands in a loaded module, by whichever way it came there: `importlib.import_module` too."""
    for value in list(vars(sys.modules[name]).values()) if name in sys.modules else ():
        if isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, type | FunctionType):
            yield str(value.__module__)
        else:
            yield str(type(value).__module__)
