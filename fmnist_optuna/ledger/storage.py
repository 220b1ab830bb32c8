"""From a storage URL to one engine that our ledger and Optuna share, with the settings that each database needs.

Owns connections, transactions, the creation of the schema and the words for what goes wrong there. Knows no cell.
"""

import contextlib
import fcntl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Table, create_engine, event, func, insert, inspect, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DatabaseError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.sql import ColumnElement

from fmnist_optuna.errors import NotFoundError, StorageError, UsageError
from fmnist_optuna.ledger import tables as schema
from fmnist_optuna.ledger.outages import LONGEST_DELAY_SECONDS, Patience
from fmnist_optuna.ledger.urls import check_url, mask
from fmnist_optuna.settings import DEFAULT_LEASE_SECONDS

BUSY_TIMEOUT_SECONDS = 20.0  # at the default lease; always less than half the lease
CONNECT_TIMEOUT_SECONDS = 10
POSTGRES_SCHEMA_LOCK = 0x666D6E697374  # any constant; "fmnist" in ASCII
DEFAULT_PATIENCE_SECONDS = 300.0  # seconds; how long an outage of the database is waited for

_reading = threading.local()


@dataclass(frozen=True)
class Storage:
    """An open storage: one engine for all transactions, and where artifacts go.

    Args:
        url: The URL, with its password if any; print `name` instead.
        engine: Every transaction begins at once as a writer, except inside `read()`.
        patience: How long an outage is waited for.
        artifacts: Folder of the artifacts.
    """

    url: URL
    engine: Engine
    patience: Patience
    artifacts: Path

    @property
    def name(self) -> str:
        """The URL with its password masked, for people."""
        return mask(self.url)

    @property
    def is_sqlite(self) -> bool:
        """Whether the study lives in a file of this host."""
        return self.engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may read and write; on SQLite it takes the write lock at its beginning."""
        with self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that only reads, and waits for no writer."""
        with reading(), self.engine.begin() as connection:
            yield connection

    @property
    def now(self) -> ColumnElement[float]:
        """The database's clock: seconds since 1970 UTC."""
        if self.is_sqlite:
            return literal_column("((julianday('now') - 2440587.5) * 86400.0)", schema.cells.c.lease_until.type)
        return literal_column("EXTRACT(EPOCH FROM clock_timestamp())::float8", schema.cells.c.lease_until.type)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Within this block, transactions of this thread begin as readers."""
    before = getattr(_reading, "active", False)
    _reading.active = True
    try:
        yield
    finally:
        _reading.active = before


def open_storage(
    storage: str,
    *,
    make_tables: Callable[["Storage"], None] | None = None,
    is_patient: bool = False,
    patience_seconds: float = DEFAULT_PATIENCE_SECONDS,
    lease_seconds: float = DEFAULT_LEASE_SECONDS,
) -> Storage:
    """Open a storage and check that it is one of ours.

    Args:
        storage: The URL.
        make_tables: Makes the tables that others keep beside ours. With it, a missing database file and missing tables
            are made; without it nothing is ever written. `bridge.storage.create_storage` hands Optuna's in.
        is_patient: Whether an outage is waited for now already; otherwise it is said at once.
        patience_seconds: How long later operations wait for a database that went away.
        lease_seconds: The lease in use: SQLite's busy timeout stays below half of it, and Postgres ends a transaction
            that rests for so long.

    Raises:
        UsageError: The URL is malformed or names another kind of database.
        NotFoundError: No such file, or no study tables in it, and they are not to be made.
        StorageError: Unreachable, not a database, not writable, or made by another version.
    """
    create = make_tables is not None
    url = check_url(storage, create=create)
    if create and url.get_backend_name() == "sqlite":
        _make_folder(Path(str(url.database)))
    engine = _create_engine(url, lease_seconds, create)
    patience = Patience(patience_seconds, min(LONGEST_DELAY_SECONDS, lease_seconds / 12))  # half a renewal
    opened = Storage(url, engine, patience, artifacts=_artifact_folder(url))
    try:
        if make_tables is not None:
            with _schema_lock(opened):
                _create_schema(opened, make_tables)
            upgrade_schema(opened)
        if is_patient:
            opened.patience.call(lambda: _check_schema(opened), "open_storage")
        else:
            _check_schema(opened)
    except NotFoundError:
        raise
    except (SQLAlchemyError, OSError) as error:
        raise StorageError(
            f"The storage {opened.name} must be reachable and writable, but {first_line(error)}."
        ) from error
    return opened


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder of the storage must be writable, but {error}.") from error


def _artifact_folder(url: URL) -> Path:
    if url.get_backend_name() == "sqlite":
        return Path(str(url.database)).absolute().parent / "artifacts"
    return Path("studies").absolute() / "artifacts"


def _create_engine(url: URL, lease_seconds: float, create: bool) -> Engine:
    try:
        engine = create_engine(url, **({} if url.get_backend_name() == "sqlite" else postgres_options()))
    except NoSuchModuleError as error:
        raise UsageError(f"--storage must name a known driver, but {error}.") from error
    except ImportError as error:
        raise StorageError("Postgres needs a driver: pip install 'fmnist-optuna[postgres]'.") from error
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine, min(BUSY_TIMEOUT_SECONDS, lease_seconds / 3), create)
    else:
        _configure_postgres(engine, lease_seconds)
    return engine


def postgres_options() -> dict[str, Any]:
    """Options of an engine on Postgres: keepalives notice a dead server within about a minute, inside the patience."""
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": 20,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "application_name": "fmnist-optuna",
    }
    return {"connect_args": arguments, "pool_pre_ping": True, "pool_size": 2, "max_overflow": 8}


def _configure_postgres(engine: Engine, rest_seconds: float) -> None:
    """Let the server end a transaction whose process was stopped within it, or whose host died.

    By itself it would wait for such a client for hours, and everybody else for the client's locks. A reader holds no
    lock that anybody waits for, and rests while it makes objects of thousands of rows.
    """

    def connect(connection: Any, _record: object) -> None:
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

    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        pragmas = [f"busy_timeout = {int(busy_timeout_seconds * 1000)}", "synchronous = NORMAL"]
        if create:  # it stays with the file; a reader leaves the file of another program as it is
            pragmas.append("journal_mode = WAL")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if getattr(_reading, "active", False) else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)


@contextlib.contextmanager
def _schema_lock(storage: Storage) -> Iterator[None]:
    """One process at a time creates tables: several at once fail in Optuna."""
    if storage.is_sqlite:
        database = Path(str(storage.url.database))
        with database.with_name(f".{database.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    with storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # no transaction rests
        connection.execute(select(func.pg_advisory_lock(POSTGRES_SCHEMA_LOCK)))
        try:
            yield
        finally:
            connection.execute(select(func.pg_advisory_unlock(POSTGRES_SCHEMA_LOCK)))


def _create_schema(storage: Storage, make_tables: Callable[[Storage], None]) -> None:
    if inspect(storage.engine).has_table(schema.schema_version.name):
        return
    make_tables(storage)
    schema.metadata.create_all(
        storage.engine, tables=[t for t in schema.metadata.sorted_tables if t.name != "schema_version"]
    )
    with storage.write() as connection:  # last: its presence says that everything else is there
        schema.schema_version.create(connection)
        connection.execute(insert(schema.schema_version).values(version=schema.SCHEMA_VERSION))


def upgrade_schema(storage: Storage) -> None:
    """Bring the tables of an earlier version up to date, for those who write; readers read them as they are.

    Processes of the earlier version that are at work go on.
    """
    if _read_version(storage) >= schema.SCHEMA_VERSION:
        return
    with _schema_lock(storage), storage.write() as connection:
        version = connection.execute(select(schema.schema_version.c.version)).scalar_one()
        for number in range(version + 1, schema.SCHEMA_VERSION + 1):
            for table in schema.UPGRADES[number]:
                table.create(connection)
            connection.execute(update(schema.schema_version).values(version=number))


def _check_schema(storage: Storage) -> None:
    version = _read_version(storage)
    if not 1 <= version <= schema.SCHEMA_VERSION:
        raise StorageError(
            f"The storage {storage.name} must have schema version 1 to {schema.SCHEMA_VERSION}, but has {version}; "
            "use the version of fmnist-optuna that made it."
        )


def _read_version(storage: Storage) -> int:
    try:
        with storage.read() as connection:
            if not inspect(connection).has_table(schema.schema_version.name):
                raise NotFoundError(f"There is no study in {storage.name}; `fmnist-optuna run` makes one.")
            return int(connection.execute(select(schema.schema_version.c.version)).scalar_one())
    except OperationalError:
        raise
    except DatabaseError as error:
        raise StorageError(f"The storage {storage.name} must be a database, but {first_line(error)}.") from error


def first_line(error: BaseException) -> str:
    """What a database error says, in one line and without the statement or the URL."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0].rstrip(".") if str(cause).strip() else type(cause).__name__


def insert_or_ignore(storage: Storage, table: Table) -> Any:
    """An INSERT that leaves a row with the same key as it is."""
    dialect = sqlite if storage.is_sqlite else postgresql
    return dialect.insert(table).on_conflict_do_nothing()
