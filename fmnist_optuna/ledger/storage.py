"""An open storage: one engine that our ledger and Optuna share, its transactions and its clock. Knows no cell."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Engine, Insert, Table, literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection
from sqlalchemy.sql import ColumnElement

from fmnist_optuna.ledger import tables as schema
from fmnist_optuna.ledger.engine import looking, reading, single
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import Patience
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.urls import mask


@dataclass(frozen=True)
class Storage:
    """An open storage: one engine for all transactions, and where artifacts go.

    Args:
        options: What it was opened with.
        url: The URL, with its password if any; print `name` instead.
        engine: Every transaction begins at once as a writer, except inside `read()`.
        patience: How long an outage is waited for.
        artifacts: Folder of the artifacts of all studies that name no other place.
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

    @contextlib.contextmanager
    def single(self) -> Iterator[Connection]:
        """A transaction of one statement, which on Postgres is one round trip; on SQLite as `write`."""
        with single(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def look(self) -> Iterator[Connection]:
        """A transaction of one statement that only reads: on Postgres one round trip in place of three."""
        with looking(), self.engine.begin() as connection:
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
        """Within this block no operation waits for the database any longer once `is_over` says so.

        Nor does it once a block around this one would not.
        """
        before = self.patience.is_over
        self.patience.is_over = lambda: is_over() or before()
        try:
            yield
        finally:
            self.patience.is_over = before

    def impatient(self) -> "Storage":
        """The same for who asks again by himself, or can do without an answer: an outage is said at once."""
        return replace(self, patience=Patience(0.0))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def insert_or_ignore(storage: Storage, table: Table) -> Insert:
    """An INSERT that leaves a row with the same key as it is."""
    if storage.is_sqlite:
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()
