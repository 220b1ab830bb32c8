"""Engines with the settings that each database needs, and the two kinds of transactions on them."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Protocol

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import NoSuchModuleError

from fmnist_optuna.errors import StorageError, UsageError

BUSY_TIMEOUT_SECONDS = 20.0  # at the default lease; always less than half the lease
CONNECT_TIMEOUT_SECONDS = 10

_reading = threading.local()


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Within this block, transactions of this thread begin as readers."""
    before = getattr(_reading, "active", False)
    _reading.active = True
    try:
        yield
    finally:
        _reading.active = before


def make_engine(url: URL, lease_seconds: float, create: bool) -> Engine:
    """An engine whose transactions begin at once as writers, except within `reading`.

    Args:
        lease_seconds: SQLite's busy timeout stays below half of it, and Postgres ends a transaction that rests so long.
        create: Whether a database file may be made or changed in its settings.

    Raises:
        UsageError: No such driver.
        StorageError: The driver is not installed.
    """
    try:
        engine = create_engine(url, **({} if url.get_backend_name() == "sqlite" else postgres_options()))
    except NoSuchModuleError as error:
        raise UsageError(f"storage (--storage) must name a known driver, but {error}.") from error
    except ImportError as error:
        raise StorageError("Postgres needs a driver: pip install 'fmnist-optuna[postgres]'.") from error
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine, min(BUSY_TIMEOUT_SECONDS, lease_seconds / 3), create)
    else:
        _configure_postgres(engine, lease_seconds)
    return engine


def postgres_options() -> dict[str, object]:
    """Options of an engine on Postgres: keepalives notice a dead server within about a minute, inside the patience."""
    arguments = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": 20,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "application_name": "fmnist-optuna",
    }
    return {"connect_args": arguments, "pool_pre_ping": True, "pool_size": 2, "max_overflow": 8}


class _PostgresConnection(Protocol):
    """What is used of the driver's own connection."""

    def execute(self, query: str) -> object: ...

    def commit(self) -> None: ...


def _configure_postgres(engine: Engine, rest_seconds: float) -> None:
    """Let the server end a transaction whose process was stopped within it, or whose host died.

    By itself it would wait for such a client for hours, and everybody else for the client's locks. A reader holds no
    lock that anybody waits for, and rests while it makes objects of thousands of rows.
    """

    def connect(connection: _PostgresConnection, _record: object) -> None:
        connection.execute(f"SET idle_in_transaction_session_timeout = {int(rest_seconds * 1000)}")
        connection.commit()

    def begin(connection: Connection) -> None:
        if getattr(_reading, "active", False):
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)


def _configure_sqlite(engine: Engine, busy_timeout_seconds: float, create: bool) -> None:
    """Let SQLAlchemy, not sqlite3, begin transactions, and begin writers at once.

    A deferred transaction that reads and then writes lets two processes decide on the same old state: a FAIL by one and
    a tell by another both succeed.
    """

    def connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        pragmas = [f"busy_timeout = {int(busy_timeout_seconds * 1000)}", "synchronous = NORMAL", "foreign_keys = ON"]
        if create:  # it stays with the file; a reader leaves the file of another program as it is
            pragmas.append("journal_mode = WAL")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if getattr(_reading, "active", False) else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
