"""A process that leaves as `worker` does, without TensorFlow and without a database: how the tests send it signals.

It says "ready" once it hears them, and what it is told; then it works until it is told to leave.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from fmnist_optuna.cli import departure as departing
from fmnist_optuna.cli.departure import Departure
from fmnist_optuna.errors import StorageError
from fmnist_optuna.log import configure_logging

WORKS = "works", "nothing held", "stuck", "stuck in handing back", "breaks", "is finished"


def say(text: str) -> None:
    """At once, for the test that reads it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def be_stuck() -> None:
    """Wait for ever in a call of C that no signal interrupts, as TensorFlow's may take minutes."""
    lock = getattr(ctypes.CDLL(None), "pthread_mutex_lock")  # noqa: B009 - untyped
    mutex = ctypes.create_string_buffer(64)  # PTHREAD_MUTEX_INITIALIZER
    lock(mutex)
    lock(mutex)


class TidiedUp:
    """Says "ready" when Python removes what is left of modules: by then its own handlers of signals are gone."""

    def __del__(
        self, write: Callable[[int, bytes], int] = os.write, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        write(1, b"ready\n")
        sleep(1.0)


@contextlib.contextmanager
def telling(seconds: float) -> Iterator[None]:
    """Say "ready" a moment after the block has begun."""
    timer = threading.Timer(seconds, say, ["ready"])
    timer.start()
    yield
    timer.join()


def main(how: str, grace_seconds: float, max_seconds: float | None, is_nohup: bool) -> int:
    """Work in one of the ways above."""
    configure_logging("text", logging.INFO)
    if is_nohup:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    leave = threading.Event()
    with Departure(grace_seconds, max_seconds) as departure:
        if how != "nothing held":
            hand_back = be_stuck if how == "stuck in handing back" else lambda: say("handed back")
            departure.hold(hand_back, leave.set)
        if how != "is finished":
            with telling(0.1):
                if how.startswith("stuck"):
                    be_stuck()
                while not leave.is_set():
                    time.sleep(0.01)
            if how == "breaks":
                raise StorageError("the database is away")
            say(f"in order: {departure.reason}")
        status = departure.status if departure.is_asked else 0
    if how == "is finished":
        vars(sys)["tidied_up"] = TidiedUp()
    return int(status)


if __name__ == "__main__":
    _, way, grace, max_time, nohup, slice_of_wait = sys.argv
    departing.SLICE_SECONDS = float(slice_of_wait)
    sys.exit(main(way, float(grace), float(max_time) or None, nohup == "nohup"))
