"""Whose a source file is: Python's, an installed package's, ours, or the user's. Nothing else decides it."""

import functools
import site
import sysconfig
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED_FOLDERS = frozenset({"site-packages", "dist-packages"})  # of pip and of Debian


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    named = sysconfig.get_paths()
    folders = [named[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple({Path(folder).resolve() for folder in (*folders, *site.getsitepackages())})


def is_installed(path: Path) -> bool:
    """Whether a file or folder belongs to Python's library or to an installed package.

    A package that is installed as links, as uv can do it, counts by where it is found; a link into one as well.
    """
    places = (path.absolute(), path.resolve())
    return any(
        not INSTALLED_FOLDERS.isdisjoint(place.parts) or any(map(place.is_relative_to, _library_folders()))
        for place in places
    )


def is_users(path: Path) -> bool:
    """Whether a file or folder is the user's own; an editable install is."""
    return not path.resolve().is_relative_to(PACKAGE) and not is_installed(path)
