"""The file that events are appended to, by several processes at once: each line is there as a whole or not at all.

Nothing here hurts a training: where a line cannot be written, one warning says so, and the next line is tried again.
"""

import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from fmnist_optuna.events.schema import EVENTS, make_line
from fmnist_optuna.log import listening, log_event
from fmnist_optuna.wording import reason_of

logger = logging.getLogger(__name__)

PAGE_BYTES = 4096  # a write that a kill interrupts ends at a border of pages; larger pages are multiples of this
LOCK_SECONDS = 1.0  # for another process that has just been stopped within a write, once
LOCK_AGAIN_SECONDS = 0.05  # the same after the warning
LOCK_TRY_SECONDS = 0.002
NOT_WRITTEN = "events_not_written"


class EventFile:
    """A file that this process appends events to.

    Args:
        path: A regular file; it is made when the first event comes, and again when it was renamed or removed since.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._is_new = False  # whether the open file has no line of this process yet
        self._threads = threading.Lock()  # the threads of this process share the lock of the file
        self._has_warned = False

    def write(self, event: str, fields: Mapping[str, object]) -> None:
        """Append an event, if it is one of the stream."""
        if event not in EVENTS:
            return
        line = make_line(event, fields, datetime.now(UTC))
        try:
            with self._threads, self._locked() as descriptor:
                append_whole(descriptor, line)
        except OSError as error:
            self._warn(error)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, while no other process writes to it."""
        descriptor = self._open()
        _lock(descriptor, LOCK_AGAIN_SECONDS if self._has_warned else LOCK_SECONDS)
        try:
            if self._is_new:
                _end_last_line(descriptor)
                self._is_new = False
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _open(self) -> int:
        """The file that has the path now: whoever rotates it renames the one that is open."""
        if self._descriptor is None or not _is_at(self._path, self._descriptor):
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self.close()
            self._descriptor, self._is_new = descriptor, True
        return self._descriptor

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            how = {"file": self._path, "error": reason_of(error), "note": "the training goes on without"}
            log_event(logger, logging.WARNING, NOT_WRITTEN, **how)

    def close(self) -> None:
        """Close it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one that has a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def append_whole(descriptor: int, line: bytes) -> None:
    """Append a line in one write that no kill can halve: blanks before it let it begin on a page where it would cross.

    Args:
        descriptor: Of a file that is open for appending and locked.

    Raises:
        OSError: It could not be written; then nothing of it is there.
    """
    size = os.fstat(descriptor).st_size
    left_on_page = -size % PAGE_BYTES
    text = b" " * left_on_page + line if left_on_page < len(line) else line
    if os.write(descriptor, text) < len(text):  # the disk is full
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lock(descriptor: int, seconds: float) -> None:
    """Lock a file.

    Raises:
        BlockingIOError: Somebody else has it for longer than so many seconds.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(LOCK_TRY_SECONDS)
        else:
            return


def _end_last_line(descriptor: int) -> None:
    """Begin on a line of our own, whatever a crash of the machine or another program left at the end."""
    size = os.fstat(descriptor).st_size
    if size > 0 and os.pread(descriptor, 1, size - 1) not in b"\n ":  # a blank is one of ours, before a line
        os.write(descriptor, b"\n")


@contextlib.contextmanager
def recording(path: Path | None) -> Iterator[None]:
    """Within this block, append the events of this process to a file; None for no file."""
    if path is None:
        yield
        return
    file = EventFile(path)
    try:
        with listening(file.write):
            yield
    finally:
        file.close()
