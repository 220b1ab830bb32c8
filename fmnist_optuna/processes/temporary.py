"""The temporary folder of this process and its children: it goes when this process ends, however it ends.

A process that ends in order removes its folder. One that is killed leaves it, with 47 MB of images, and the next one of
ours removes what such processes left. It knows them by a lock that the system takes from a process at its end: a pid
may belong to another container that shares the folder, or to a later process.
"""

import contextlib
import fcntl
import functools
import multiprocessing.util
import os
import shutil
import tempfile
from pathlib import Path

from fmnist_optuna.errors import StorageError

PREFIX = "fmnist-optuna-"
LOCK = ".lock"
LONGEST_SOCKET = 103  # bytes of a path: 104 with the NUL at its end on macOS, 108 on Linux
SOCKET_ENDING = len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # what multiprocessing adds
AFTER_SOCKETS = -101  # multiprocessing removes its sockets with priority -100
SHORT_FOLDERS = ("/tmp", "/var/tmp")


def temporary_folder() -> Path:
    """A folder for this process and its children; it goes when this process ends.

    Raises:
        StorageError: No folder for temporary files can be written to.
    """
    try:
        root = tempfile.gettempdir()
    except OSError as error:
        raise StorageError(f"Temporary files must have a folder that can be written, but {error.strerror}.") from error
    return _make(root) if _is_text(root) else _short_folder(Path(root))


def use_for_all_temporary_files() -> Path:
    """Let all that this process and its libraries write into temporary files be in a folder that goes with it.

    Returns:
        The folder, for a process that ends without coming to its exit functions: it has to remove it by itself.
    """
    folder = temporary_folder()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def use_short_sockets() -> None:
    """Let multiprocessing make its sockets where their paths are short enough for the system.

    Raises:
        StorageError: No folder with a short path can be written to.
    """
    folder = temporary_folder()
    if len(os.fsencode(folder)) + SOCKET_ENDING > LONGEST_SOCKET:
        folder = _short_folder(folder)
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        multiprocessing.util.get_temp_dir()  # which it keeps for this process and its children
    finally:
        tempfile.tempdir = before


def _is_text(path: str) -> bool:
    """Whether a path is text: TensorFlow fails at one that the locale's encoding cannot read."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short_folder(folder: Path) -> Path:
    for root in (*SHORT_FOLDERS, os.environ.get("XDG_RUNTIME_DIR")):  # the last one lies in memory
        is_short = root and len(os.fsencode(root)) + len(f"/{PREFIX}") + 20 + SOCKET_ENDING <= LONGEST_SOCKET
        if root and is_short and Path(root).is_absolute() and os.access(root, os.W_OK | os.X_OK):
            with contextlib.suppress(StorageError):  # full, or read-only
                return _make(root)
    raise StorageError(
        f"A folder for sockets must have a path of text and at most {LONGEST_SOCKET - SOCKET_ENDING} bytes, but has "
        f"{str(folder)!r}, and {' and '.join(SHORT_FOLDERS)} cannot be written; set TMPDIR."
    )


@functools.cache
def _make(root: str) -> Path:
    try:
        made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))
        multiprocessing.util.Finalize(None, shutil.rmtree, args=(made, True), exitpriority=AFTER_SOCKETS)
        unlocked = made / f"{LOCK}.new"
        unlocked.touch(mode=0o600)
        _hold(unlocked)
        unlocked.rename(unlocked.with_name(LOCK))  # nobody sees it unlocked
    except OSError as error:
        raise StorageError(
            f"Temporary files must have a folder that can be written, but {error.strerror or error}; set TMPDIR."
        ) from error
    _sweep(made)
    return made


def hold_temporary_folder() -> None:
    """Keep the folder that this process was given, and so that of its children, as long as one of them lives.

    The workers of a run that was killed finish their epoch, and write its weights there.
    """
    with contextlib.suppress(OSError):  # not a folder of ours
        _hold(Path(tempfile.gettempdir()) / LOCK)


def _hold(lock: Path) -> None:
    """Lock a file until this process and all that are forked from it have ended."""
    fcntl.flock(os.open(lock, os.O_RDONLY | os.O_NOFOLLOW), fcntl.LOCK_SH)


def _sweep(own: Path) -> None:
    """Remove the folders of processes that were killed, beside our own."""
    for folder in own.parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or another process is just removing it
            if folder != own and _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether a folder is one of ours, of this user, and no process lives that holds it."""
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return False
    descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
