"""A process with its descendants, and the memory that they take together."""

from collections.abc import Iterable

import psutil


def list_tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants; nothing once it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def measure_tree(processes: Iterable[psutil.Process]) -> int:
    """Bytes: proportional set sizes, in which a page that n processes share counts 1/n; else unique set sizes."""
    return sum(map(_measure_process, processes))


def _measure_process(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except psutil.Error:  # it has just ended
        return 0
    return int(getattr(memory, "pss", memory.uss))
