"""From a storage URL to one engine that our ledger and Optuna share, with the settings that each database needs.

Owns connections, transactions, the creation of the schema and the words for what goes wrong there. Knows no cell.
"""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, Insert, Table, column, func, insert, inspect, literal_column, select, table, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError
from sqlalchemy.sql import ColumnElement

from fmnist_optuna import __version__
from fmnist_optuna.errors import NotFoundError, StorageError
from fmnist_optuna.ledger import tables as schema
from fmnist_optuna.ledger.engine import make_engine, reading
from fmnist_optuna.ledger.migrations import MIGRATIONS
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import LONGEST_DELAY_SECONDS, Patience
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.tables import SCHEMA_VERSION
from fmnist_optuna.ledger.urls import check_url, mask
from fmnist_optuna.wording import count

POSTGRES_SCHEMA_LOCK = 0x666D6E697374  # any constant; "fmnist" in ASCII
FIRST_PREFIXED_VERSION = 3  # of our tables; before, the version lay in a table of another name


@dataclass(frozen=True)
class Storage:
    """An open storage: one engine for all transactions, and where artifacts go.

    Args:
        options: What it was opened with.
        url: The URL, with its password if any; print `name` instead.
        engine: Every transaction begins at once as a writer, except inside `read()`.
        patience: How long an outage is waited for.
        artifacts: Folder of the artifacts.
    """

    options: StorageOptions
    url: URL
    engine: Engine
    patience: Patience
    artifacts: Path

    @property
    def name(self) -> str:
        """The URL with its password masked, for people."""
        return mask(self.url)

    @property
    def timing(self) -> Timing:
        """Lease and intervals."""
        return self.options.timing

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

    @property
    def n_outages(self) -> int:
        """How many outages operations have waited for so far."""
        return self.patience.n_outages

    @contextlib.contextmanager
    def giving_up_when(self, is_over: Callable[[], bool]) -> Iterator[None]:
        """Within this block no operation waits for the database any longer once `is_over` says so."""
        self.patience.is_over = is_over
        try:
            yield
        finally:
            self.patience.is_over = lambda: False

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_storage(
    options: StorageOptions,
    *,
    make_tables: Callable[["Storage"], None] | None = None,
    is_patient: bool = False,
) -> Storage:
    """Open a storage and check that it is one of ours.

    Args:
        make_tables: Makes the tables that others keep beside ours. With it, a missing database file and missing tables
            are made; without it nothing is ever written. `bridge.storage.create_storage` hands Optuna's in.
        is_patient: Whether an outage is waited for now already; otherwise it is said at once.

    Raises:
        UsageError: The URL is malformed or names another kind of database.
        NotFoundError: No such file, or no study tables in it, and they are not to be made.
        StorageError: Unreachable, not a database, not writable, or made by another version.
    """
    opened = _connect(options, create=make_tables is not None)
    with _explained(opened):
        if make_tables is not None:
            with _schema_lock(opened):
                _create_schema(opened, make_tables)
            upgrade_schema(opened)
        elif is_patient:
            opened.patience.call(lambda: _check_schema(opened), "open_storage")
        else:
            _check_schema(opened)
    return opened


def upgrade_storage(options: StorageOptions) -> int:
    """Bring the tables of a storage that an earlier version made up to date.

    Returns:
        The version that the tables had.

    Raises:
        NotFoundError: No such file, or no study tables in it.
        StorageError: Unreachable, not writable, made by a later version, or workers of the earlier one are at work.
    """
    opened = _connect(options, create=False)
    try:
        with _explained(opened):
            return upgrade_schema(opened)
    finally:
        opened.close()


def _connect(options: StorageOptions, *, create: bool) -> Storage:
    """A storage whose tables nobody has looked at."""
    url, lease_seconds = check_url(options.url, create=create), options.timing.lease_seconds
    if create and url.get_backend_name() == "sqlite":
        _make_folder(Path(str(url.database)))
    engine = make_engine(url, lease_seconds, create)
    patience = Patience(options.patience_seconds, min(LONGEST_DELAY_SECONDS, lease_seconds / 12))  # half a renewal
    return Storage(options, url, engine, patience, artifacts=_artifact_folder(url))


@contextlib.contextmanager
def _explained(storage: Storage) -> Iterator[None]:
    """Errors of the database in our words."""
    try:
        yield
    except NotFoundError:
        raise
    except (SQLAlchemyError, OSError) as error:
        raise StorageError(
            f"The storage {storage.name} must be reachable and writable, but {first_line(error)}."
        ) from error


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder of the storage must be writable, but {error}.") from error


def _artifact_folder(url: URL) -> Path:
    if url.get_backend_name() == "sqlite":
        return Path(str(url.database)).absolute().parent / "artifacts"
    return Path("studies").absolute() / "artifacts"


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
    if _find_version_table(storage) is not None:
        return
    make_tables(storage)
    others = [table for table in schema.metadata.sorted_tables if table is not schema.schema_version]
    schema.metadata.create_all(storage.engine, tables=others)
    with storage.write() as connection:  # last: its presence says that everything else is there
        schema.schema_version.create(connection)
        connection.execute(insert(schema.schema_version).values(version=SCHEMA_VERSION))


def upgrade_schema(storage: Storage) -> int:
    """Bring the tables of an earlier version up to date, in one transaction.

    Returns:
        The version that they had.

    Raises:
        StorageError: The tables are of a later version, or workers of the earlier one are at work.
    """
    before = _read_version(storage)
    if before >= SCHEMA_VERSION:
        _check_version(storage, before)
        return before
    with _schema_lock(storage), storage.write() as connection:
        numbers = schema.first_schema_version if before < FIRST_PREFIXED_VERSION else schema.schema_version
        version = connection.execute(select(numbers.c.version)).scalar_one()  # another process may have been first
        if version < FIRST_PREFIXED_VERSION:
            _check_rest(storage, connection)
        for number in range(version + 1, SCHEMA_VERSION + 1):
            MIGRATIONS[number](connection)
        for each in {numbers, schema.schema_version}:
            connection.execute(update(each).values(version=SCHEMA_VERSION))
    return before


def _check_rest(storage: Storage, connection: Connection) -> None:
    """Refuse while a lease of the earlier version holds: its worker knows the old names only."""
    if not storage.is_sqlite:
        connection.execute(text("LOCK TABLE cells IN ACCESS EXCLUSIVE MODE"))
    query = select(func.count()).where(column("state") == "running", column("lease_until") > storage.now)
    n_held = connection.execute(query.select_from(table("cells"))).scalar_one()
    if n_held:
        raise StorageError(
            f"The storage {storage.name} must be at rest while its tables are upgraded, but workers of an earlier "
            f"version hold {count(n_held, 'cell')}; stop them, and wait for a minute after their end."
        )


def _check_schema(storage: Storage) -> None:
    _check_version(storage, _read_version(storage))


def _check_version(storage: Storage, version: int) -> None:
    if version > SCHEMA_VERSION or version < 1:
        raise StorageError(
            f"The storage {storage.name} must have schema version {SCHEMA_VERSION} or an earlier one for "
            f"fmnist-optuna {__version__}, but has {version}; use the version of fmnist-optuna that made it."
        )
    if version < SCHEMA_VERSION:
        raise StorageError(
            f"The storage {storage.name} must have schema version {SCHEMA_VERSION} for fmnist-optuna "
            f"{__version__}, but has {version}; upgrade it, after a backup: fmnist-optuna upgrade"
        )


def _read_version(storage: Storage) -> int:
    try:
        found = _find_version_table(storage)
        if found is None:
            raise NotFoundError(f"There is no study in {storage.name}; `fmnist-optuna run` makes one.")
        with storage.read() as connection:
            return int(connection.execute(select(found.c.version)).scalar_one())
    except OperationalError:
        raise
    except DatabaseError as error:
        raise StorageError(f"The storage {storage.name} must be a database, but {first_line(error)}.") from error


def _find_version_table(storage: Storage) -> Table | None:
    """The table with the version of our tables; None where there are none of ours.

    A `schema_version` alone may be another program's.
    """
    with storage.read() as connection:
        names = set(inspect(connection).get_table_names())
    if schema.schema_version.name in names:
        return schema.schema_version
    return schema.first_schema_version if {schema.first_schema_version.name, "control", "cells"} <= names else None


def first_line(error: BaseException) -> str:
    """What a database error says, in one line and without the statement or the URL."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0].rstrip(".") if str(cause).strip() else type(cause).__name__


def insert_or_ignore(storage: Storage, table: Table) -> Insert:
    """An INSERT that leaves a row with the same key as it is."""
    if storage.is_sqlite:
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()
