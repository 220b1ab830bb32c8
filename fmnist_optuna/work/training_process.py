"""What a process that trains or scores must do first: one TensorFlow thread, and an end with its parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait

from fmnist_optuna.training.engine import use_one_thread


def become_training_process() -> None:
    """Prepare a fresh child for TensorFlow; Ctrl-C is its parent's business, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    use_one_thread()
    watch_parent(lambda: os._exit(1))


def watch_parent(on_death: Callable[[], object]) -> None:
    """Call `on_death` from a thread once the process that started this one is gone; nothing without such a parent."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        on_death()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
