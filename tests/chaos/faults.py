"""What may happen between two statements: the process dies, the connection breaks, an answer is lost, others act."""

import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from fmnist_optuna.study.session import Session

STATEMENTS = ("do_execute", "do_execute_no_params", "do_executemany")
COMMIT = "do_commit"
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}  # https://docs.python.org/3/library/audit_events.html


class Steps:
    """Counts the statements, commits and file operations of a process, and lets something happen at one of them.

    Args:
        at: 0-based step before which `act` runs; None only counts.
        act: What happens.
    """

    def __init__(self, at: int | None = None, act: Callable[[], None] = lambda: None) -> None:
        self._at = at
        self._act = act
        self._is_counting = True
        self.names: list[str] = []

    def begin(self, name: str) -> bool:
        """Count a step; returns whether it is the one at which something happens."""
        if not self._is_counting:
            return False
        self.names.append(name)
        if len(self.names) - 1 != self._at:
            return False
        self._is_counting = False  # what happens now takes steps of its own
        try:
            self._act()
        finally:
            self._is_counting = True
        return True

    @property
    def commits(self) -> list[int]:
        """The steps that are commits."""
        return [number for number, name in enumerate(self.names) if name == COMMIT]


@contextmanager
def watched(session: Session, steps: Steps, around: Callable[..., Any] | None = None) -> Iterator[None]:
    """Let every statement and commit of a session be a step, Optuna's too where it has an engine of its own.

    Args:
        around: As `watched_engine` has it.
    """
    with ExitStack() as stack:
        for engine in {session.storage.engine, vars(session.optuna_study._storage)["_backend"].engine}:
            stack.enter_context(watched_engine(engine, steps, around))
        yield


@contextmanager
def watched_engine(engine: Engine, steps: Steps, around: Callable[..., Any] | None = None) -> Iterator[None]:
    """Let every statement and commit of an engine be a step.

    Args:
        around: Called as `around(is_hit, call, connection)` in place of `call()`; it may raise before or after it.
    """
    dialect = engine.dialect

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(first: Any, *arguments: Any) -> Any:
            is_hit = steps.begin(name if name == COMMIT else arguments[0])
            if around is None:
                return original(first, *arguments)
            connection = first if name == COMMIT else first.connection
            return around(is_hit, lambda: original(first, *arguments), connection)

        return wrapper

    for name in (*STATEMENTS, COMMIT):
        setattr(dialect, name, wrap(name, getattr(dialect, name)))
    try:
        yield
    finally:
        for name in (*STATEMENTS, COMMIT):
            delattr(dialect, name)


def watch_files(folder: Path, steps: Steps) -> None:
    """Let every opening, renaming and removal of a file in a folder be a step, for the rest of this process."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and str(arguments[0]).startswith(str(folder)):
            steps.begin(event)

    sys.addaudithook(hook)


def kill_self() -> None:
    """SIGKILL: no `finally`, no rollback, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def break_connection(is_hit: bool, call: Callable[[], Any], connection: Any) -> Any:
    """The connection is gone before the statement arrives."""
    if is_hit:
        _lose(connection)
    return call()


def lose_answer(is_hit: bool, call: Callable[[], Any], connection: Any) -> Any:
    """The statement, a commit, is done, and its answer is lost."""
    answer = call()
    if is_hit:
        _lose(connection)
    return answer


def _lose(connection: Any) -> None:
    """What the driver raises; a connection to a server is really closed, so that nothing goes on with it."""
    driver_connection = getattr(connection, "driver_connection", connection)
    if isinstance(driver_connection, sqlite3.Connection):
        raise sqlite3.OperationalError("database is locked")
    import psycopg

    driver_connection.close()
    raise psycopg.OperationalError("server closed the connection unexpectedly")
