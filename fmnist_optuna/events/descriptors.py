"""Paths that stand for a descriptor which this process has from whoever started it, as /dev/stdout and /dev/fd/3 do.

Such a path names another file in every process, so it must not be handed on.
"""

import errno
import fcntl
import os
from pathlib import Path

STANDARD_OUTPUT = "-"  # as a name of the stream
STDOUT, STDERR = 1, 2
FOLDERS = ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")
MAX_LINKS = 40  # that Linux follows in one path


def is_stdout(target: str | None) -> bool:
    """Whether a target of events is standard output, by whatever name."""
    return target is not None and find_descriptor(target) == STDOUT


def find_descriptor(target: str) -> int | None:
    """The descriptor that a target stands for; None where it is a path like any other."""
    if target == STANDARD_OUTPUT:
        return STDOUT
    folders = {os.path.realpath(folder) for folder in FOLDERS}
    path = Path(target)
    for _ in range(MAX_LINKS):
        folder = os.path.realpath(path.parent)
        if folder in folders and path.name.isdecimal():
            return int(path.name)
        try:
            path = Path(folder, Path(folder, path.name).readlink())
        except OSError:  # it is no link
            return None
    return None


def take_over(descriptor: int) -> int:
    """A copy of a descriptor that was there when this process began: who shares it writes behind what others wrote.

    Raises:
        OSError: There is none, it cannot be written to, or it is one of this process's own files.
    """
    is_read_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    is_own = descriptor > STDERR and not os.get_inheritable(descriptor)  # what Python opens is not inheritable
    if is_read_only or is_own:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return os.dup(descriptor)
