"""What becomes of a child when its parent ends, and what every child must do first."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait

import fmnist_optuna.processes.serving  # noqa: F401  (it sets what the server sets when it starts)


def watch_parent(on_death: Callable[[], object]) -> None:
    """Call `on_death` from a thread once the process that started this one is gone; nothing without such a parent."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        on_death()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def become_child() -> None:
    """Prepare a child; Ctrl-C is its parent's business, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch_parent(lambda: os._exit(1))
