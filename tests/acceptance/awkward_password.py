"""A password that means something wherever it is written, and a database whose owner has it."""

import contextlib
import os
from collections.abc import Iterator

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

# Every character here means something in a URL, a template or a query. The letters survive any encoding, so that
# a half of it is found as well.
HALVES = ("Zq7Wv", "9kXyT")
PASSWORD = f"{HALVES[0]}/p@ss%w:rd{{1}}&#{HALVES[1]}"
VARIABLE, FILE = "FMNIST_OPTUNA_STORAGE", "FMNIST_OPTUNA_STORAGE_FILE"
JSON_LOGS = ("--debug", "--log-format", "json")


def has_password(text: str) -> bool:
    """Whether a text has the password or one half of it, however encoded."""
    return any(half in text for half in HALVES)


@contextlib.contextmanager
def awkward_database(server_url: str) -> Iterator[URL]:
    """A database of its own whose owner has the awkward password; the server's user must be allowed to create both."""
    name = f"awkward_{os.urandom(4).hex()}"
    role = sql.Identifier(name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(role))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(role, role))
        yield make_url(server_url).set(username=name, password=PASSWORD, database=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


def show(url: URL) -> str:
    """As a user writes it."""
    return url.render_as_string(hide_password=False)
