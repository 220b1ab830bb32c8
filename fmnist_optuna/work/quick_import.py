"""How TensorFlow and Keras are imported sooner: libraries beside Python's modules, and nothing that nobody asks for.

For the server of all children alone; imports neither of them.
"""

import contextlib
import ctypes
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

LIBRARIES = ("libtensorflow_framework.*", "libtensorflow_cc.*")  # the second needs the first
# Keras looks whether scikit-learn is there, for wrappers that give a model its interface, and so imports it and SciPy:
# 0.5 of 3.2 s of processor time and 58 MB (measured 2026-11).
UNWANTED = "sklearn"
WRAPPERS = ("keras.wrappers", "keras.src.wrappers", "keras._tf_keras.keras.wrappers")


@contextlib.contextmanager
def loading_libraries() -> Iterator[None]:
    """Load TensorFlow's libraries in a thread while the block imports something else: 0.4 s (measured 2026-11).

    The thread has ended when the block is left, so that the process may be forked.
    """
    thread = threading.Thread(target=_load_libraries, name="libraries")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _load_libraries() -> None:
    found = importlib.util.find_spec("tensorflow")
    folders = [] if found is None else found.submodule_search_locations or []
    with contextlib.suppress(OSError, AttributeError):  # the import of TensorFlow does it then, or says what is wrong
        # By a call of the C library's own function: ctypes' would hold Python's lock meanwhile.
        load = ctypes.CDLL(None).dlopen
        load.restype, load.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
        for file in (file for folder in folders for name in LIBRARIES for file in sorted(Path(folder).glob(name))):
            load(os.fsencode(file), os.RTLD_NOW | os.RTLD_LOCAL)


class _Absent(MetaPathFinder):
    """Says that scikit-learn is not installed."""

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        """Nothing of any other module."""
        if name == UNWANTED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextlib.contextmanager
def importing_keras() -> Iterator[None]:
    """Let Keras, which the block imports, find no scikit-learn; a later import of its wrappers gets them with it."""
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)
        for name in [name for name in sys.modules if name.startswith(WRAPPERS)]:
            del sys.modules[name]
