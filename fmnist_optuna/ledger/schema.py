"""Our tables in a database: made once under a lock, brought up to date, checked for their version."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Table, column, func, insert, inspect, select, table, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, OperationalError, ProgrammingError

from fmnist_optuna import __version__
from fmnist_optuna.errors import LaterVersionError, NotFoundError, StorageError
from fmnist_optuna.ledger import tables
from fmnist_optuna.ledger.migrations import MIGRATIONS
from fmnist_optuna.ledger.migrations.m0012_trials import INDEX
from fmnist_optuna.ledger.outages import is_refusal
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import SCHEMA_VERSION
from fmnist_optuna.wording import count, reason_of

POSTGRES_SCHEMA_LOCK = 0x666D6E697374  # any constant; "fmnist" in ASCII
FIRST_PREFIXED_VERSION = 3  # of our tables; before, the version lay in a table of another name


@contextlib.contextmanager
def schema_lock(storage: Storage) -> Iterator[None]:
    """One process at a time creates tables: several at once fail in Optuna."""
    if storage.is_sqlite:
        database = Path(str(storage.url.database))
        with database.with_name(f".{database.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    # A lock of the transaction, not of the session, which a pooler gives to others; a reader's may rest so long.
    with storage.read() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(POSTGRES_SCHEMA_LOCK)))
        yield


def create_schema(storage: Storage, make_tables: Callable[[Storage], None]) -> None:
    """Make all tables where there are none of ours; the caller holds `schema_lock`.

    Args:
        make_tables: Makes those that others keep beside ours.
    """
    if _find_version_table(storage) is not None:
        return
    make_tables(storage)
    others = [table for table in tables.metadata.sorted_tables if table is not tables.schema_version]
    tables.metadata.create_all(storage.engine, tables=others)
    with storage.write() as connection:  # last: its presence says that everything else is there
        connection.execute(text(INDEX))
        tables.schema_version.create(connection)
        connection.execute(insert(tables.schema_version).values(version=SCHEMA_VERSION))


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
    with schema_lock(storage), storage.write() as connection:
        numbers = tables.first_schema_version if before < FIRST_PREFIXED_VERSION else tables.schema_version
        version = connection.execute(select(numbers.c.version)).scalar_one()  # another process may have been first
        if version < SCHEMA_VERSION:
            _check_rest(storage, connection, "cells" if version < FIRST_PREFIXED_VERSION else "fmnist_cells")
        for number in range(version + 1, SCHEMA_VERSION + 1):
            MIGRATIONS[number](connection)
        for each in {numbers, tables.schema_version}:
            connection.execute(update(each).values(version=SCHEMA_VERSION))
    return before


def _check_rest(storage: Storage, connection: Connection, cells: str) -> None:
    """Refuse while a lease of the earlier version holds: its worker knows the tables of then only.

    Args:
        cells: What the table of cells was called.
    """
    if not storage.is_sqlite:
        connection.execute(text(f"LOCK TABLE {cells} IN ACCESS EXCLUSIVE MODE"))
    query = select(func.count()).where(column("state") == "running", column("lease_until") > storage.now)
    n_held = connection.execute(query.select_from(table(cells))).scalar_one()
    if n_held:
        raise StorageError(
            f"The storage {storage.name} must be at rest while its tables are upgraded, but workers of an earlier "
            f"version hold {count(n_held, 'cell')}; stop them, and wait for a minute after their end."
        )


def check_schema(storage: Storage) -> None:
    """Check that the tables are there and of this version.

    Raises:
        NotFoundError: There are none of ours.
        StorageError: They are of another version; of a later one it is a LaterVersionError.
    """
    _check_version(storage, _read_version(storage))


def _check_version(storage: Storage, version: int) -> None:
    if version > SCHEMA_VERSION or version < 1:
        raise LaterVersionError(
            f"The storage {storage.name} must have schema version {SCHEMA_VERSION} or an earlier one for "
            f"fmnist-optuna {__version__}, but has {version}; use the version of fmnist-optuna that made it."
        )
    if version < SCHEMA_VERSION:
        raise StorageError(
            f"The storage {storage.name} must have schema version {SCHEMA_VERSION} for fmnist-optuna "
            f"{__version__}, but has {version}; upgrade it, after a backup: fmnist-optuna upgrade"
        )


def _read_version(storage: Storage) -> int:
    if not storage.is_sqlite:
        with contextlib.suppress(ProgrammingError), storage.look() as connection:  # one statement where all is well
            return int(connection.execute(select(tables.schema_version.c.version)).scalar_one())
    try:
        found = _find_version_table(storage)
        if found is None:
            raise NotFoundError(f"There is no study in {storage.name}; `fmnist-optuna run` makes one.")
        with storage.read() as connection:
            return int(connection.execute(select(found.c.version)).scalar_one())
    except OperationalError:
        raise
    except DatabaseError as error:
        if is_refusal(error):
            rule, remedy = "let its role read its tables", "; use one with more rights"
        else:
            rule, remedy = "be a database" if storage.is_sqlite else "take the parameters of its URL", ""
        raise StorageError(f"The storage {storage.name} must {rule}, but {reason_of(error)}{remedy}.") from error


def _find_version_table(storage: Storage) -> Table | None:
    """The table with the version of our tables; None where there are none of ours.

    A `schema_version` alone may be another program's.
    """
    with storage.read() as connection:
        names = set(inspect(connection).get_table_names())
    if tables.schema_version.name in names:
        return tables.schema_version
    return tables.first_schema_version if {tables.first_schema_version.name, "control", "cells"} <= names else None
