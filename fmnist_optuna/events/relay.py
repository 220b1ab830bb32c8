"""Events to standard output, a pipe or a terminal: these take what they are given from one process, at their own pace.

So does whatever the process was given as an open descriptor, a file too: in a worker its name would be another file.

The processes append to a file in the temporary folder, and a thread of the command copies it. However slow a reader is,
no training waits for it.
"""

import contextlib
import logging
import os
import re
import select
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fmnist_optuna.errors import UsageError
from fmnist_optuna.events.descriptors import STDOUT, find_descriptor, take_over
from fmnist_optuna.events.file import NOT_WRITTEN
from fmnist_optuna.log import log_event
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.wording import reason_of

logger = logging.getLogger(__name__)

SPOOL = "events.ndjson"
PIPE_BYTES = 4096  # that a pipe takes as a whole or not at all
READ_BYTES = 65_536
LOOK_SECONDS = 0.05  # between looks for new lines
LAST_SECONDS = 10.0  # for a reader that takes nothing any more once everything else is done
PADDING = re.compile(rb"^ +", re.MULTILINE)  # which the file needs and a pipe does not


@contextlib.contextmanager
def event_file(target: str | None) -> Iterator[Path | None]:
    """The file to append events to, so that they come to `target`; None where that is None.

    Args:
        target: A file, a pipe that somebody reads, an open descriptor, as /dev/fd/3; "-" or /dev/stdout for standard
            output.

    Raises:
        UsageError: It cannot be written to.
    """
    if target is None:
        yield None
        return
    number = find_descriptor(target)
    descriptor = _open(target, number)
    if number is None and stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        yield Path(target).absolute()
        return
    if number == STDOUT:  # for events alone: what else writes to it, as a model of the user's may, comes to stderr
        sys.stdout.flush()
        os.dup2(2, STDOUT)
    spool = temporary_folder() / SPOOL
    spool.touch(mode=0o600)
    relay = Relay(spool, descriptor, "stdout" if number == STDOUT else target)
    try:
        yield spool
    finally:
        relay.close()
        spool.unlink(missing_ok=True)
        if number == STDOUT:
            sys.stdout.flush()
            os.dup2(descriptor, STDOUT)
        os.close(descriptor)


def _open(target: str, number: int | None) -> int:
    """A descriptor to write to.

    Args:
        number: Of the one that the target stands for; None for a path to open.
    """
    try:
        if number is not None:
            return take_over(number)
        return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:  # of a pipe without a reader: no such device or address
        raise UsageError(
            f"--events must be a file that can be written, a pipe that is read, or -, but {target}: {reason_of(error)}."
        ) from error


class Relay:
    """A thread that copies what is appended to a file, whole lines at a time.

    Args:
        source: The file.
        target: Descriptor to write to.
        name: Of the target, for people.
    """

    def __init__(self, source: Path, target: int, name: str) -> None:
        self._source, self._target, self._name = source, target, name
        self._is_closing = threading.Event()
        self._waited_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Copy what is left, as far as the reader takes it, and end."""
        self._is_closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._copy()
        except OSError as error:
            how = {"file": self._name, "error": reason_of(error), "note": "the training goes on without"}
            log_event(logger, logging.WARNING, NOT_WRITTEN, **how)

    def _copy(self) -> None:
        rest = b""
        with self._source.open("rb") as file:
            while True:
                is_last = self._is_closing.wait(LOOK_SECONDS)
                while text := file.read(READ_BYTES):
                    lines, _, rest = (rest + text).rpartition(b"\n")
                    if lines:
                        self._send(PADDING.sub(b"", lines) + b"\n")
                if is_last:
                    return

    def _send(self, lines: bytes) -> None:
        """Write lines, as many at a time as a pipe takes as a whole; one that is longer by itself."""
        while lines:
            end = lines.rfind(b"\n", 0, PIPE_BYTES) + 1 or lines.find(b"\n") + 1
            self._write(lines[:end])
            lines = lines[end:]

    def _write(self, text: bytes) -> None:
        while text:
            _, ready, _ = select.select([], [self._target], [], LOOK_SECONDS)
            try:
                n_written = os.write(self._target, text[:PIPE_BYTES]) if ready else 0
            except BlockingIOError:
                n_written = 0
                time.sleep(LOOK_SECONDS)
            self._check_patience(n_written)
            text = text[n_written:]

    def _check_patience(self, n_written: int) -> None:
        """Wait for a slow reader as long as there is work, and only a while longer after that.

        Raises:
            TimeoutError: It was too long.
        """
        now = time.monotonic()
        if n_written or not self._is_closing.is_set():
            self._waited_since = None
        elif self._waited_since is None:
            self._waited_since = now
        elif now - self._waited_since > LAST_SECONDS:
            raise TimeoutError(f"nobody has read for {LAST_SECONDS:g} s")
