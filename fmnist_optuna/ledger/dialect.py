"""How SQLAlchemy speaks to Postgres without asking it anything first.

SQLAlchemy asks five questions on the first connection of an engine, of which each is a round trip. What we need of the
answers stands in the server's greeting; the schema and the level of isolation by default nothing here uses.
"""

from typing import Any, NoReturn

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection

from fmnist_optuna.ledger.outages import READ_ONLY

# Or it was one until a moment ago, and can be written to by now. Where a role may only read, its transactions stay
# read-only.
IS_OR_WAS_STANDBY = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'off'"


class ToldDialect(PGDialect_psycopg):
    """SQLAlchemy's dialect for psycopg, which sends nothing by itself."""

    supports_statement_cache = True

    def _get_server_version_info(self, connection: Connection) -> tuple[int, int]:
        major, minor = divmod(_greeting(connection).server_version, 10_000)
        return major, minor

    def _get_default_schema_name(self, _connection: Connection) -> NoReturn:
        raise NotImplementedError

    def get_default_isolation_level(self, _driver: DBAPIConnection) -> NoReturn:
        """Unknown: every transaction names its own."""
        raise NotImplementedError

    def is_disconnect(self, error: Exception, connection: Any, cursor: Any) -> bool:
        """Whether nothing more comes of a connection: it is broken, or its server is no longer the one to write to.

        While a cluster fails over, an address may lead to a standby for some seconds; a new connection leads to the
        new primary. A role that may only read is refused with the same code, by a server that is no standby.
        """
        if super().is_disconnect(error, connection, cursor):  # type: ignore[no-untyped-call]
            return True
        return getattr(error, "sqlstate", None) == READ_ONLY and connection is not None and self._is_standby(connection)

    def _is_standby(self, connection: Any) -> bool:
        """Whether it is, or was until a moment ago; asked outside the transaction that has just failed."""
        driver = getattr(connection, "driver_connection", connection)
        try:
            driver.rollback()
            (answer,) = driver.execute(IS_OR_WAS_STANDBY).fetchone()
        except self.loaded_dbapi.Error:
            return True
        return bool(answer)

    def _set_backslash_escapes(self, connection: Connection) -> None:
        self._backslash_escapes = _greeting(connection).parameter_status("standard_conforming_strings") == "off"


def _greeting(connection: Connection) -> Any:
    driver: Any = connection.connection.driver_connection
    return driver.info
