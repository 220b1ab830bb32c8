"""Databases for the benchmarks: SQLite files, and a Postgres that is started for them unless there is one already."""

import contextlib
import os
import platform
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

CONNECTIONS_PER_WORKER = 3  # its two threads, and one to spare
DURABLE = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB")  # where the tests' server saves time
SERVER_VERSION = "SELECT split_part(current_setting('server_version'), ' ', 1)"
SERVER_SETTINGS = "SELECT 'fsync ' || current_setting('fsync') || ', commit ' || current_setting('synchronous_commit')"


@contextlib.contextmanager
def open_server(kind: str, url: str | None, n_workers: int) -> Iterator[str]:
    """URL of a Postgres for the length of the block, of the one that is named or of a new one; nothing for SQLite."""
    if kind == "sqlite" or url:
        yield url or ""
        return
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from postgres_server import running_server

    n_connections = max(200, CONNECTIONS_PER_WORKER * n_workers + 10)
    with running_server((*DURABLE, f"max_connections={n_connections}")) as server:
        yield server.url


@contextlib.contextmanager
def fresh_database(kind: str, server_url: str) -> Iterator[str]:
    """URL of an empty database, gone after the block."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'studies.db'}"
        return
    name = f"bench_{uuid.uuid4().hex[:12]}"
    ask_postgres(server_url, f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        url = make_url(server_url).set(drivername="postgresql+psycopg", database=name)
        yield url.render_as_string(hide_password=False)
    finally:
        ask_postgres(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def ask_postgres(url: str, statement: str) -> Any:
    """The first column of the first row, if there is any."""
    import psycopg

    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]


def describe_machine(postgres_url: str = "") -> dict[str, str]:
    """What a figure depends on."""
    described = {
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "Optuna": version("optuna"),
        "SQLAlchemy": version("sqlalchemy"),
        "SQLite": sqlite3.sqlite_version,
    }
    if postgres_url:
        settings = (ask_postgres(postgres_url, statement) for statement in (SERVER_VERSION, SERVER_SETTINGS))
        described["Postgres"] = "{} ({})".format(*settings)
    return described
