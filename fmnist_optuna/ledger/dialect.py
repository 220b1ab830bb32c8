"""How SQLAlchemy speaks to Postgres: one dialect and one cache of compiled statements for all engines of a process.

A statement is compiled once, and what a process has compiled all that are forked from it have as well. By itself each
engine would compile everything anew, some 60 ms of a worker's first trial, and ask the server five questions first, of
which each is a round trip. Here nothing is asked: what we need stands in the greeting of every connection.
"""

import functools
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql.compiler import COLLECT_CARTESIAN_PRODUCTS
from sqlalchemy.util import LRUCache

IDLE = 0  # PQTRANS_IDLE of libpq, and so of psycopg, which is an extra and not imported here
N_STATEMENTS = 500  # that are kept, as by an engine of its own


class ToldDialect(PGDialect_psycopg):
    """SQLAlchemy's dialect for psycopg, which sends nothing by itself when a connection is opened."""

    supports_statement_cache = True

    def hear(self, driver: DBAPIConnection, _record: object = None) -> None:
        """Take from the greeting of a server what statements may depend on; for every connection that is opened.

        SQLAlchemy would ask besides for the current schema and the default isolation level, which nothing here uses, as
        transactions name theirs, and whether there is the type hstore.
        """
        major, minor = divmod(driver.info.server_version, 10_000)
        self.server_version_info = (major, minor)
        self.supports_identity_columns = major >= 10
        self._supports_jsonb_subscripting = major >= 14
        self.supports_virtual_generated_columns = major >= 18
        self._backslash_escapes = driver.info.parameter_status("standard_conforming_strings") == "off"

    def do_commit(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Commit, unless there is nothing to commit, as after a statement that is its own transaction."""
        if not _is_idle(dbapi_connection):
            dbapi_connection.commit()

    def do_rollback(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Likewise: each connection that is given back is rolled back."""
        if not _is_idle(dbapi_connection):
            dbapi_connection.rollback()


def _is_idle(connection: PoolProxiedConnection) -> bool:
    """Whether a connection is in no transaction, as the driver knows it; False too where it is broken."""
    pgconn = connection.pgconn  # of psycopg's connection, which lies behind the pool's
    return bool(pgconn.transaction_status == IDLE)


@functools.cache
def postgres_dialect() -> ToldDialect:
    """The dialect of this process.

    Raises:
        ImportError: The driver is not installed.
    """
    untyped: Any = ToldDialect
    settings = {"use_native_hstore": False, "compiler_linting": COLLECT_CARTESIAN_PRODUCTS}
    dialect: ToldDialect = untyped(dbapi=untyped.import_dbapi(), **settings)
    return dialect


@functools.cache
def _compiled() -> LRUCache[object, object]:
    return LRUCache(N_STATEMENTS)


def share_compiled(engine: Engine) -> Engine:
    """Let an engine of `postgres_dialect` use what this process has compiled, and add to it."""
    engine.update_execution_options(compiled_cache=_compiled())
    return engine


def n_compiled() -> int:
    """How many statements this process has compiled for Postgres, or those that it was forked from have."""
    return len(_compiled())
