"""Several statements for Postgres in one message, so that no lock that they take is held over a round trip."""

from collections.abc import Mapping
from importlib import import_module

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError


def send_message(connection: Connection, statements: str, parameters: Mapping[str, object]) -> list[tuple[int, ...]]:
    """Send statements that begin and end their own transaction.

    Args:
        connection: In a transaction of `Storage.single`.
        statements: Separated by semicolons, with `%(name)s` for a parameter.
        parameters: By name.

    Returns:
        The rows of the last statement that has any, of integers.

    Raises:
        DBAPIError: As for any statement.
    """
    psycopg = import_module("psycopg")  # an extra, which who keeps studies in a file may lack
    driver = connection.connection.driver_connection
    if driver is None:
        raise RuntimeError("a message needs an open connection")
    cursor = psycopg.ClientCursor(driver)
    rows: list[tuple[int, ...]] = []
    try:
        connection.dialect.do_execute(cursor, statements, parameters)
        while True:
            rows = cursor.fetchall() if cursor.description else rows
            if not cursor.nextset():
                return rows
    except psycopg.Error as error:
        raise DBAPIError.instance(
            statements, None, error, psycopg.Error, connection_invalidated=bool(driver.closed)
        ) from error
