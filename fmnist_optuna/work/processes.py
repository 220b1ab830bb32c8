"""Child processes from one warm server: TensorFlow is imported once, a worker starts in a tenth of a second."""

import contextlib
import functools
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from fmnist_optuna.errors import FmnistOptunaError, WorkerFailedError
from fmnist_optuna.settings import prepare_training_environment

PRELOADED = ["fmnist_optuna.work.preloaded"]

T = TypeVar("T")


def worker_context() -> BaseContext:
    """The start method of all our children: forkserver with everything heavy imported; spawn where there is none."""
    prepare_training_environment()
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def warm_up() -> None:
    """Let the server start and import TensorFlow while the caller goes on; the first child waits for it."""
    worker_context()
    if "forkserver" in multiprocessing.get_all_start_methods():
        with _no_main_module(), _no_output(), _own_temporary_files():
            forkserver.ensure_running()


def start(target: Callable[..., None], arguments: tuple[Any, ...], name: str) -> BaseProcess:
    """Start a child that runs `target` of an importable module."""
    process: BaseProcess = worker_context().Process(target=target, args=arguments, name=name)  # type: ignore[attr-defined]
    warm_up()
    with _no_main_module():
        process.start()
    return process


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Let the server inherit no output: TensorFlow's C++ side greets on stderr, and an open pipe outlives a command."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, null = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}, os.open(os.devnull, os.O_WRONLY)
    for descriptor in kept:
        os.dup2(null, descriptor)
    try:
        yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(null)


@contextlib.contextmanager
def _own_temporary_files() -> Iterator[None]:
    """Let the server's children leave their temporary files where they go when this process ends.

    TensorFlow writes modules there and removes them at exit, which a forked or killed child does not come to.
    """
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(temporary_folder())
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def temporary_folder() -> Path:
    """A folder for this process and its children; it goes when this process ends."""
    return Path(_temporary_folder().name)


@functools.cache
def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="fmnist-optuna-", ignore_cleanup_errors=True)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the script that runs us: a child would import it, and run it again where it has no main guard."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


class Call:
    """A function that runs in a child of its own, so that this process needs no TensorFlow.

    Args:
        function: Of an importable module; its arguments and result are picklable.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._name = function.__name__
        receiver, sender = multiprocessing.Pipe(duplex=False)
        self._receiver = receiver
        self.process = start(_answer, (sender, function, arguments), name=self._name)
        sender.close()

    def result(self) -> Any:
        """Wait for the result.

        Raises:
            FmnistOptunaError: What the function raised, if it is one of ours.
            WorkerFailedError: The child died, or raised anything else.
        """
        try:
            is_ours, answer = self._receiver.recv()
        except KeyboardInterrupt:
            self.process.kill()  # what it does may never end
            raise
        except EOFError:
            self.process.join(5)
            raise WorkerFailedError(
                f"The process for {self._name} must answer, but ended with exit code {self.process.exitcode}."
            ) from None
        finally:
            self._receiver.close()
        self.process.join()
        if isinstance(answer, FmnistOptunaError):
            raise answer
        if not is_ours:
            raise WorkerFailedError(f"{self._name} failed: {answer}")
        return answer


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    from fmnist_optuna.work.training_process import become_training_process

    become_training_process()
    try:
        answer = True, function(*arguments)
    except FmnistOptunaError as error:
        answer = True, error
    except Exception as error:
        answer = False, f"{type(error).__name__}: {error}"
    sender.send(answer)
    sender.close()
