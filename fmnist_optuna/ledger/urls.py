"""Storage URLs: what is allowed, what can be checked without connecting, and how they are shown without a password."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from fmnist_optuna.errors import NotFoundError, StorageError, UsageError
from fmnist_optuna.wording import reason_of

ALLOWED = "sqlite:///FILE or postgresql://USER@HOST/DATABASE"
LONGEST_SUFFIX = len("-journal")  # of the files that SQLite and we make beside the database
# Parameters of libpq that are never shown: those that it hides itself, and keys that let in as a password does
# (https://www.postgresql.org/docs/18/libpq-connect.html).
SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
HIDDEN = "***"  # stands for them


def parse_url(storage: str) -> URL:
    """Check a storage URL: `sqlite:///PATH` or `postgresql://...` (through psycopg 3).

    A path that begins with `~` is one in the home folder, as in a shell.

    Raises:
        UsageError: Not a URL, another database or driver, an in-memory SQLite, an empty database name, or a path that
            SQLite would not take as it is meant.
    """
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):  # a ValueError repeats what stands for a port, often a piece of a password
        raise UsageError(f"storage (--storage) must be {ALLOWED}, but got {_mask_malformed(storage)!r}.") from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise UsageError(f"storage (--storage) must be {ALLOWED}, but got {mask(url)!r}.")
    if backend == "postgresql" and "@" in f"{url.host}{url.database}":
        raise UsageError(
            f"storage (--storage) must have @ in a password written as %40, but got {_mask_malformed(storage)!r}."
        )
    if not url.database or url.database == ":memory:":
        raise UsageError(
            f"storage (--storage) must name a database that workers can share, but got {url.drivername!r} without one."
        )
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if rule := _broken_rule(url, storage):
        raise UsageError(f"storage (--storage) must be sqlite:///FILE{rule}, but got {_mask_malformed(storage)!r}.")
    return url.set(drivername="sqlite", database=_expand_home(str(url.database)))


def _broken_rule(url: URL, storage: str) -> str | None:
    """What a URL of SQLite must be beyond its form; None when it is."""
    path = str(url.database)
    if re.search(r"[\x00-\x1f\x7f]", path):  # a line break would be part of the file's name, a NUL would end it
        return " without control characters"
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        return " without another driver"
    if url.host is not None or url.username is not None or url.port is not None:
        return " with three slashes, or four before a path from the root, as a file has no host"
    if "?" in storage:
        return " without ? and parameters"
    if path.lower().startswith("file:"):
        return " with a path instead of file:"
    if re.match(r"[A-Za-z]:[\\/]|\\\\", path):
        return " with a path of this system"
    if path.endswith(("/", "/.")):
        return " with a file, not a folder"
    if path != path.strip():  # as a line of an environment file may end
        return " without spaces at its ends"
    if re.search(r"/~(/|$)|(^|/)\$\{?[A-Za-z_]", path):
        return " with ~ at its beginning alone and without $, as no shell has expanded it"
    return None


def _expand_home(path: str) -> str:
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)  # noqa: PTH111 - which says by its answer that there is no such home
    if not expanded.startswith("/"):
        raise UsageError(f"storage (--storage) must begin its path with a known home folder after ~, but got {path!r}.")
    return expanded


def mask(url: URL) -> str:
    """A URL for people: its password masked, wherever it stands."""
    shown = url.update_query_dict({name: HIDDEN for name in url.query if name.lower() in SECRETS})
    text = shown.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
    return text.replace(quote(HIDDEN), HIDDEN)


def _mask_malformed(text: str) -> str:
    """What is no URL, for people: without what may be a password, such as that in `host=db password=...` of libpq."""
    text = re.sub(rf"(({'|'.join(SECRETS)})\s*=).*", rf"\1{HIDDEN}", text, flags=re.IGNORECASE | re.DOTALL)
    head, separator, tail = text.rpartition("@")
    if separator and head:
        return f"{HIDDEN}@{tail}"
    if text.startswith("sqlite"):  # which has no password; a path of another system has a colon
        return text
    # Without a host, as in `postgresql://user:password/db`, a password stands where the port is looked for.
    return re.sub(r"(//[^/:]*:)(?!\d+(?:[/?]|$)).*", rf"\1{HIDDEN}", text, flags=re.DOTALL)


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
        reason = reason_of(error)
        raise StorageError(f"The folder of the storage must be readable, but {path!s:.200}: {reason}.") from error
    if not is_there:
        if not create:
            raise NotFoundError(f"There is no storage file {path}; `fmnist-optuna run` makes one.")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise StorageError(f"The folder of the storage must be writable, but {folder} is not.")
        _check_length(path, folder)
        if _has_log(path):  # which SQLite would remove beside an empty file
            raise StorageError(
                f"The storage {path} must be there, as its log {path.name}-wal is, which has the last results; bring "
                "it back, or move the log away."
            )
        return
    _check_header(path)
    if create and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise StorageError(f"The storage {path} and its folder must be writable, but this user may only read there.")


def _check_length(path: Path, folder: Path) -> None:
    """Refuse a name that leaves no room for those of the files beside it."""
    longest = os.pathconf(folder, "PC_NAME_MAX") - LONGEST_SUFFIX
    if any(len(os.fsencode(part)) > longest for part in path.parts):
        raise StorageError(f"The storage must have a name of at most {longest} bytes, but got {path.name:.40}...")


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
        if error.sqlite_errorcode == sqlite3.SQLITE_CORRUPT and _has_log(path):
            return  # a full disk or a kill broke off the copying of the log into the file; SQLite reads both
        raise StorageError(f"The storage {path} must be an SQLite database, but the file is something else.") from error


def _has_log(path: Path) -> bool:
    """Whether the write-ahead log beside a database, which no immutable one is read with, holds anything."""
    log = Path(f"{path.resolve()}-wal")
    return log.is_file() and log.stat().st_size > 0
