"""Storage URLs: what is allowed, what can be checked without connecting, and how they are shown without a password."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from fmnist_optuna.errors import NotFoundError, StorageError, UsageError

SECRETS = ("password", "sslpassword")  # parameters of libpq that are never shown


def parse_url(storage: str) -> URL:
    """Check a storage URL: `sqlite:///PATH` or `postgresql://...` (through psycopg 3).

    Raises:
        UsageError: Not a URL, another database, an in-memory SQLite, or an empty database name.
    """
    allowed = "sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):  # a ValueError repeats what stands for a port, often a piece of a password
        raise UsageError(f"--storage must be {allowed}, but got {_mask_malformed(storage)!r}.") from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise UsageError(f"--storage must be {allowed}, but got {mask(url)!r}.")
    if backend == "postgresql" and "@" in f"{url.host}{url.database}":
        raise UsageError(f"--storage must have @ in a password written as %40, but got {_mask_malformed(storage)!r}.")
    if not url.database or url.database == ":memory:":
        raise UsageError(
            f"--storage must name a database that workers can share, but got {url.drivername!r} without one."
        )
    return url if backend == "sqlite" else url.set(drivername="postgresql+psycopg")


def mask(url: URL) -> str:
    """A URL for people: its password masked, wherever it stands."""
    shown = url.update_query_dict({name: "***" for name in SECRETS if name in url.query})
    return shown.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def _mask_malformed(text: str) -> str:
    text = re.sub(rf"([?&](?:{'|'.join(SECRETS)})=)[^&]*", r"\1***", text)
    head, separator, tail = text.rpartition("@")
    return f"***@{tail}" if separator and head else text


def check_url(storage: str, *, create: bool) -> URL:
    """Check what can be checked of a storage without connecting, and make nothing.

    Raises:
        UsageError, NotFoundError, StorageError: As `open_storage`.
    """
    url = parse_url(storage)
    if url.get_backend_name() == "sqlite":
        _check_sqlite_file(url, create)
    return url


def _check_sqlite_file(url: URL, create: bool) -> None:
    path = Path(str(url.database))
    try:
        is_there = path.exists()
    except OSError as error:
        raise StorageError(f"The folder of the storage must be readable, but {error}.") from error
    if not is_there:
        if not create:
            raise NotFoundError(f"There is no storage file {path}; `fmnist-optuna run` makes one.")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise StorageError(f"The folder of the storage must be writable, but {folder} is not.")
        return
    _check_header(path)
    if create and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise StorageError(f"The storage {path} and its folder must be writable, but this user may only read there.")


def _check_header(path: Path) -> None:
    """Let SQLite read the first page, and make nothing beside the file.

    Nobody else may: when a process closes a file that it opened by itself, it loses all its POSIX locks on it, those of
    SQLite too; another process then takes itself for the last one and removes the write-ahead log
    (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise StorageError(f"The storage must be a readable file, but {path} is not.")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA schema_version").fetchall()
    except sqlite3.OperationalError as error:
        raise StorageError(f"The storage must be a readable file, but {path}: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise StorageError(f"The storage {path} must be an SQLite database, but the file is something else.") from error
