"""Engines with the settings that each database needs, and the four kinds of transactions on them."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DisconnectionError, NoSuchModuleError

from fmnist_optuna.errors import StorageError, UsageError
from fmnist_optuna.ledger.resting import RestingPool

BUSY_TIMEOUT_SECONDS = 20.0  # at the default lease; always less than half the lease
CONNECT_TIMEOUT_SECONDS = 10  # a connection takes five round trips, seven with TLS: enough where each takes a second
SHORTEST_SILENCE_SECONDS = 3.0  # TCP sends once more after 1 s, and again after 3 s

WRITING, READING, SINGLE, LOOKING = "writing", "reading", "single", "looking"

_kind = threading.local()


@contextlib.contextmanager
def _beginning_as(kind: str) -> Iterator[None]:
    before = _find_kind()
    _kind.name = kind
    try:
        yield
    finally:
        _kind.name = before


def _find_kind() -> str:
    name: str = getattr(_kind, "name", WRITING)
    return name


def reading() -> contextlib.AbstractContextManager[None]:
    """Within this block, transactions of this thread begin as readers."""
    return _beginning_as(READING)


def single() -> contextlib.AbstractContextManager[None]:
    """Within this block, each transaction of this thread is one statement, or one message that begins and ends its own.

    To Postgres that is one round trip, where BEGIN and COMMIT would be two more; SQLite begins as for a writer.
    """
    return _beginning_as(SINGLE)


def looking() -> contextlib.AbstractContextManager[None]:
    """Within this block, each transaction of this thread is one statement that only reads."""
    return _beginning_as(LOOKING)


def make_engine(url: URL, lease_seconds: float, create: bool) -> Engine:
    """An engine whose transactions begin at once as writers, except within `reading`, `single` and `looking`.

    Args:
        lease_seconds: SQLite's busy timeout stays below half of it, and Postgres ends a transaction that rests so long.
            A connection on which the network is silent is given up after a third of it.
        create: Whether a database file may be made or changed in its settings.

    Raises:
        UsageError: No such driver.
        StorageError: The driver is not installed.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        engine = create_engine(url) if is_sqlite else _make_postgres_engine(url, lease_seconds)
    except NoSuchModuleError as error:
        raise UsageError(f"storage (--storage) must name a known driver, but {error}.") from error
    except ImportError as error:
        raise StorageError("Postgres needs a driver: pip install 'fmnist-optuna[postgres]'.") from error
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine, min(BUSY_TIMEOUT_SECONDS, lease_seconds / 3), create)
    else:
        _configure_postgres(engine, lease_seconds)
    return engine


def _make_postgres_engine(url: URL, lease_seconds: float) -> Engine:
    """One whose connections are in autocommit mode, so that the driver sends no BEGIN by itself.

    No statement is prepared: a pooler in transaction mode, as pgbouncer, gives every transaction another session.
    """
    arguments = {**_connection_options(url, lease_seconds), "autocommit": True, "prepare_threshold": None}
    registry.register("postgresql.told", "fmnist_optuna.ledger.dialect", "ToldDialect")  # imported with its driver
    told, sizes = url.set(drivername="postgresql+told"), {"pool_size": 1, "max_overflow": 9}
    return create_engine(told, poolclass=RestingPool, **sizes, connect_args=arguments, use_native_hstore=False)


def _connection_options(url: URL, lease_seconds: float) -> dict[str, object]:
    """How soon a connection is given up that the network has forgotten, or whose server is gone; as the URL has it.

    By themselves both ends would wait for minutes and hours, and nobody would renew the lease. Who renews each sixth of
    it, and gives up after a third, still has a third in which to connect again and renew. While an answer is awaited
    the keepalives find out, and while something that was sent is not acknowledged, the connection's attempt included,
    `tcp_user_timeout`.

    Source: tcp(7); https://www.postgresql.org/docs/current/libpq-connect.html.
    """
    silence_seconds = max(lease_seconds / 3, SHORTEST_SILENCE_SECONDS)
    options = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": round(silence_seconds / 2),
        "keepalives_interval": max(1, int(silence_seconds / 6)),
        "keepalives_count": 3,
        "tcp_user_timeout": round(silence_seconds * 1000),  # milliseconds
        "application_name": "fmnist-optuna",
    }
    return {name: value for name, value in options.items() if name not in url.query}


def _configure_postgres(engine: Engine, rest_seconds: float) -> None:
    """Begin transactions by ourselves, and let the server end one whose process was stopped in it, or whose host died.

    By itself it would wait for such a client for hours, and everybody else for the client's locks. A reader holds no
    lock that anybody waits for, and rests while it makes objects of thousands of rows. The limit is that of the one
    transaction, as a pooler gives the session to others, and goes with its BEGIN in one message.
    """
    limits = {WRITING: int(rest_seconds * 1000), READING: 0}
    begins = {
        kind: f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {limit}"
        for kind, limit in limits.items()
    }

    def begin(connection: Connection) -> None:
        if (statements := begins.get(_find_kind())) is not None:
            connection.exec_driver_sql(statements)

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
        connection.exec_driver_sql("BEGIN" if _find_kind() in (READING, LOOKING) else "BEGIN IMMEDIATE")

    file = _SqliteFile(engine.url, create)
    event.listen(engine, "do_connect", file.open)
    event.listen(engine, "connect", connect)
    event.listen(engine, "checkout", file.check)
    event.listen(engine, "begin", begin)


class _SqliteFile:
    """The file that the connections of an engine use, as long as it is at its place.

    After it is moved away or removed, an open connection would go on in what nobody else finds any more, and a new one
    would make an empty file; instead the storage is away, as in any outage, until it is back. Another file in its place
    is refused: the log beside it is that of the first one, and SQLite would take it for its own.

    Args:
        url: Where it is.
        may_make: Whether the first connection may make it.
    """

    def __init__(self, url: URL, may_make: bool) -> None:
        self._url, self._path = url, _path_of(url)
        self._may_make = may_make
        self._identity: tuple[int, int] | None = None  # once it was opened

    def open(self, _dialect: object, _entry: object, _arguments: object, options: dict[str, Any]) -> sqlite3.Connection:
        """Connect, in the place of SQLAlchemy.

        Raises:
            StorageError: Another file has taken its place.
        """
        connection = connect_sqlite(self._url, self._may_make, **options)
        found = _identify(self._path)
        if found is None or self._identity not in (None, found):
            connection.close()
            raise self._replaced() if found else sqlite3.OperationalError("unable to open database file")
        self._may_make, self._identity = False, found
        return connection

    def check(self, _connection: object, _entry: object, _proxy: object) -> None:
        """Refuse the file, or wait for it, at the beginning of each transaction.

        Raises:
            StorageError: Another file has taken its place.
        """
        if (found := _identify(self._path)) is None:
            raise DisconnectionError("The file of the storage must be there, but was moved away.")
        if found != self._identity:
            raise self._replaced()

    def _replaced(self) -> StorageError:
        name = self._path.name
        return StorageError(
            f"The storage must stay the file that it was, but {self._path} was replaced; stop all that works on it. If "
            f"a backup took its place, remove {name}-wal and {name}-shm too, which are not of the backup. Start again."
        )


def connect_sqlite(url: URL, may_make: bool, **options: Any) -> sqlite3.Connection:
    """Connect to a file that is there, or may be made: beside an empty one SQLite would remove the log of another."""
    uri = f"{_path_of(url).as_uri()}?mode={'rwc' if may_make else 'rw'}"
    connection: sqlite3.Connection = sqlite3.connect(uri, uri=True, **options)
    return connection


def _path_of(url: URL) -> Path:
    """From the root; what stands before `..` is dropped as a text, as SQLAlchemy does."""
    return Path(os.path.abspath(str(url.database)))  # noqa: PTH100 - resolves no `..`


def _identify(path: Path) -> tuple[int, int] | None:
    """Which file it is; None where none is there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
