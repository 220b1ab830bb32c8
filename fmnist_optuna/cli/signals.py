"""What ends a command in order: it tidies up, says so in one line, and its exit status names the signal."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None  # as `signal.signal` returns it

# Of the system's session, of Ctrl-\\ and of a closed terminal; Ctrl-C is Python's.
ENDING = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


class EndedBySignal(KeyboardInterrupt):
    """A signal asks this process to end; what handles Ctrl-C handles it.

    Args:
        signum: Number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def end_in_order() -> None:
    """Turn signals that would end this process on the spot into `EndedBySignal`; ignored ones (nohup) stay ignored."""
    handle_signals(_raise, *ENDING)


def handle_signals(handler: Callable[[int, object], object], *signals: int) -> dict[int, Handler]:
    """Let a function answer signals, those aside that this process was told to ignore.

    Returns:
        What answered each of them before; nothing outside the main thread, where no signal can be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [signum for signum in signals if signal.getsignal(signum) is not signal.SIG_IGN]
    return {signum: signal.signal(signum, handler) for signum in heard}


def _raise(signum: int, _frame: object) -> None:
    signal.signal(signum, signal.SIG_DFL)  # the second ends at once
    raise EndedBySignal(signum)


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect signals instead of dying of them; outside the main thread they stay as they are, as do ignored ones."""
    caught: list[int] = []
    before = handle_signals(lambda signum, _: caught.append(signum), signal.SIGINT, *ENDING)
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
