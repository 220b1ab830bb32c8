"""How signals are caught while cells are trained, or are not."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Catching = Callable[[], AbstractContextManager[list[int]]]


@contextmanager
def no_signals() -> Iterator[list[int]]:
    """Leave signals to the program: none is caught. A KeyboardInterrupt ends the training in order all the same."""
    yield []
