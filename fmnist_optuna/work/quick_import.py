"""How TensorFlow is imported sooner: its libraries beside Python's modules.

For the server of all children alone; imports no TensorFlow itself.
"""

import contextlib
import ctypes
import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("libtensorflow_framework.*", "libtensorflow_cc.*")  # the second needs the first


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
