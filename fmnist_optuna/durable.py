"""Files and folders that are written whole or not at all: written beside, flushed to disk, renamed into place.

Whoever looks finds what was there before or all that is new, even after a crash or a power failure. Errors of the
system are passed on as they are; what they mean to a person, the caller says.
"""

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)  # an operator makes room; until then it is waited for
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)  # a folder with something in it has the name
LEFT_SECONDS = 86_400.0  # a hundred times what is allowed for the check of an export
PART = ".part"  # how the name ends of what is being written


@contextmanager
def whole_file(path: Path, part: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to, which is `path` once this block has ended; after an exception `path` is what it was before.

    That its name survives a power failure as well takes `flush(path.parent)`.

    Args:
        part: Where it is written meanwhile, in the same folder; None for a hidden file with a name of its own. A fixed
            name is for writers under a lock: it is overwritten if a process that died has left it.

    Raises:
        OSError: The folder cannot be written or is full, or `path` is there and no file.
    """
    if path.exists() and not path.is_file():  # a folder, or a device such as /dev/null, which would be gone
        raise OSError(errno.EINVAL, "it is there and not a regular file", str(path))
    part = part or _beside(path)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, instead: Callable[[], Path] | None = None) -> Iterator[Path]:
    """A folder to write into, which is `path` once this block has ended; after an exception nothing of it is left.

    Folders above it that are missing are made, and removed again after an exception.

    Args:
        instead: Gives another path in the same folder where `path` is there by now; None where it must be that one.

    Raises:
        OSError: It cannot be made, or `path` is there by now and not an empty folder.
    """
    made = [parent for parent in path.parents if not parent.exists()]
    part = _beside(path)
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                flush(file)
        _rename(part, path, instead)
        flush(path.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for parent in made:  # the deepest first
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def _rename(part: Path, path: Path, instead: Callable[[], Path] | None) -> None:
    while True:
        try:
            part.rename(path)
            return
        except OSError as error:
            if instead is None or error.errno not in TAKEN:
                raise
        path = instead()


def flush(path: Path) -> None:
    """Let a file, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(path: Path) -> None:
    """Remove what processes that died have left of their writing of a file."""
    for part in path.parent.glob(f".{path.name}.*{PART}"):
        part.unlink(missing_ok=True)


def remove_left_folders(folder: Path) -> None:
    """Remove what processes that died have left of their writing of folders in this one.

    Whether a writer lives cannot be told of another machine: what was changed within LEFT_SECONDS is left alone.
    """
    for part in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):  # another process is just removing it, or it is somebody else's
            if part.is_dir() and time.time() - part.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(part, ignore_errors=True)


def is_part(path: Path) -> bool:
    """Whether a file is one that is being written, or that a process that died has left of its writing."""
    return path.name.startswith(".") and path.suffix == PART


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
