"""The user's modules, executed anew for every training, so that what one leaves in a variable never meets the next.

A layer, an optimizer, a random generator or a counter in a variable of a module would otherwise go on from where the
last trial of this process left it, and the numbers would depend on what the worker had trained before.

The user's are the modules that a study file names and all that is imported with them, as far as they lie outside
Python's library and the folders of installed packages: an installed package is imported once, as anywhere. What is
executed is what was first read: a file that is edited while a study runs changes nothing in a process that has it.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from fmnist_optuna import origins


class UserModules:
    """The user's modules of this process. A finder of Python's import, in use while `watching`."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._kept: dict[str, _KeptLoader] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take what is imported in this block for imported by the user's code; blocks may be nested."""
        before = set(sys.modules)
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            self._names |= set(sys.modules) - before

    def add(self, name: str) -> None:
        """Take a module for the user's although it may have been imported before."""
        self._names.add(name)

    def names(self) -> set[str]:
        """Names of the user's modules that are imported now, those of packages included."""
        return {name for name in self._names if is_users(sys.modules.get(name))}

    def imported(self) -> dict[str, ModuleType]:
        """The user's modules that are imported now, by name."""
        return {name: sys.modules[name] for name in self.names()}

    def put_back(self, modules: Mapping[str, ModuleType]) -> None:
        """Let modules that were imported before be the ones that are imported; those there are now are forgotten."""
        self.forget()
        for name, module in modules.items():
            self._names.add(name)
            self._kept.pop(name, None)
            sys.modules[name] = module
        for name, module in modules.items():
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, module)

    def forget(self) -> None:
        """Let Python import the user's modules anew when they are next asked for, from the code that was first read."""
        for name in self.names():
            module = sys.modules.pop(name)
            parent, _, child = name.rpartition(".")
            if vars(sys.modules.get(parent, ModuleType(""))).get(child) is module:
                delattr(sys.modules[parent], child)  # `from parent import child` looks there first
            loader = None if module.__spec__ is None else module.__spec__.loader
            if isinstance(loader, SourceFileLoader | SourcelessFileLoader):
                self._keep(name, loader)

    def _keep(self, name: str, loader: SourceFileLoader | SourcelessFileLoader) -> None:
        with contextlib.suppress(Exception):  # the file may be gone by now: then the import will say so
            code = loader.get_code(name)
            if code is not None:
                self._kept[name] = _KeptLoader(name, loader.path, code)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer Python's import with the code that was first read, unless another file has the name now."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.origin != kept.path:
            return None
        del self._kept[name]
        folders = [str(Path(kept.path).parent)] if kept.is_package(name) else None
        return importlib.util.spec_from_file_location(name, kept.path, loader=kept, submodule_search_locations=folders)


class _KeptLoader(SourceFileLoader):
    """Executes code that was read before."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


def is_users(module: ModuleType | None) -> bool:
    """Whether a module is one of the user's own: a Python file outside Python's library and installed packages."""
    spec = getattr(module, "__spec__", None)
    if not isinstance(spec, ModuleSpec) or not spec.origin:
        return False
    if not isinstance(spec.loader, SourceFileLoader | SourcelessFileLoader):  # an extension is loaded once a process
        return False
    return spec.name != "__main__" and origins.is_users(Path(spec.origin))


USER_MODULES = UserModules()  # of this process, as sys.modules is
