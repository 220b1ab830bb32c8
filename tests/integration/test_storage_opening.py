"""Opening a storage: which URLs, files and servers are refused, in which words, and what reading leaves as it was."""

import contextlib
import os
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from small_study import open_small

from fmnist_optuna.bridge.storage import create_storage, open_optuna
from fmnist_optuna.errors import FmnistOptunaError, NotFoundError, StorageError, UsageError
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.urls import parse_url

NOBODY = 65534
PASSWORD = "s3cret"


@pytest.mark.parametrize(
    "url", ["studies.db", "mysql://u:s3cret@h/d", "sqlite://", "sqlite:///:memory:", "postgresql://u:s3cret@h", ""]
)
def test_a_url_that_workers_cannot_share_is_a_usage_error(url: str) -> None:
    """Not a URL, another database, an in-memory SQLite, no database; and the password stays out of it."""
    with pytest.raises(UsageError, match=r"^storage \(--storage\) must") as error:
        parse_url(url)
    assert PASSWORD not in str(error.value)


def test_a_malformed_url_keeps_its_password_to_itself() -> None:
    """Even what does not parse is masked."""
    with pytest.raises(UsageError) as error:
        parse_url("postgresql//u:s3cret@host/db")
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_postgres_always_means_psycopg_3(scheme: str) -> None:
    """Never psycopg2, whatever the URL says."""
    assert parse_url(f"{scheme}://host/db").drivername == "postgresql+psycopg"


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody listens on, held so that nobody begins to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("form", ["tester:s3cret@127.0.0.1:{}/db", "127.0.0.1:{}/db?user=tester&password=s3cret"])
def test_an_unreachable_postgres_is_told_without_the_password(create: bool, form: str) -> None:
    """Masked wherever the URL carries it, in the text and in every cause that `--debug` would print."""
    with dead_port() as port, pytest.raises(StorageError, match="must be reachable and writable") as error:
        (create_storage if create else open_storage)(StorageOptions(f"postgresql://{form.format(port)}"))
    causes: list[BaseException | None] = [error.value]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__)
    assert PASSWORD not in " ".join(str(cause) for cause in causes)


def test_a_wrong_password_is_a_storage_error_without_it(postgres_url: str) -> None:
    """Postgres says whose password failed, not which."""
    from sqlalchemy import make_url

    url = make_url(postgres_url).set(username="tester", password=PASSWORD)
    with pytest.raises(StorageError, match="password authentication failed") as error:
        open_storage(StorageOptions(url.render_as_string(hide_password=False)))
    assert PASSWORD not in str(error.value)


def test_a_role_without_rights_is_told_that_it_lacks_them(postgres_url: str) -> None:
    """The database is one: what is wrong is the role, or a parameter of the URL."""
    import psycopg
    from psycopg import sql
    from sqlalchemy import make_url

    role = f"stranger_{os.urandom(4).hex()}"
    stranger = make_url(postgres_url).set(username=role, password=PASSWORD)
    misspelt = make_url(postgres_url).update_query_dict({"sslmod": "require"})
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), PASSWORD))
        try:
            for url, told in (
                (stranger, "must let its role read its tables, but permission denied .*; use one with more rights"),
                (misspelt, 'must take the parameters of its URL, but invalid connection option "sslmod"'),
            ):
                with pytest.raises(StorageError, match=told):
                    open_storage(StorageOptions(url.render_as_string(hide_password=False)))
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_storage_prints_without_its_password(postgres_url: str) -> None:
    """`name` is what people see; `repr` shows no more."""
    from sqlalchemy import make_url

    opened = open_small(postgres_url)
    password = make_url(postgres_url).password or PASSWORD
    assert password not in opened.name
    assert password not in repr(opened)
    opened.close()


def test_reading_never_creates_a_file(tmp_path: Path) -> None:
    """A missing file is `NotFoundError`, and the folder stays as it was."""
    with pytest.raises(NotFoundError, match="There is no storage file"):
        open_storage(StorageOptions(f"sqlite:///{tmp_path / 'sub' / 'studies.db'}"))
    assert list(tmp_path.iterdir()) == []


def test_reading_changes_nothing_in_another_programs_database(tmp_path: Path) -> None:
    """A stock Optuna file has no study of ours, and not a byte of it changes."""
    path = tmp_path / "optuna.db"
    optuna.create_study(storage=f"sqlite:///{path}")
    before = path.read_bytes()
    with pytest.raises(NotFoundError, match="There is no study"):
        open_storage(StorageOptions(f"sqlite:///{path}"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_file_holds_no_study(tmp_path: Path) -> None:
    """An SQLite database begins as an empty file; reading leaves it empty."""
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(NotFoundError):
        open_storage(StorageOptions(f"sqlite:///{path}"))
    assert path.stat().st_size == 0


def test_an_empty_postgres_database_holds_no_study(empty_postgres_url: str) -> None:
    """Reading makes no table."""
    for _ in range(2):
        with pytest.raises(NotFoundError, match="There is no study"):
            open_storage(StorageOptions(empty_postgres_url))


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\0" + b"\xff" * 200])
def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path, create: bool, content: bytes) -> None:
    """By its first bytes, or by what SQLite says; and it is left as it is."""
    path = tmp_path / "studies.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="must be"):
        (create_storage if create else open_storage)(StorageOptions(f"sqlite:///{path}"))
    assert path.read_bytes() == content


@pytest.mark.parametrize("create", [False, True])
def test_a_log_that_was_copied_halfway_is_read(tmp_path: Path, create: bool) -> None:
    """A full disk or a kill leaves the first page of a larger file; all of it is in the log, and nothing is lost."""
    path, log = tmp_path / "studies.db", tmp_path / "studies.db-wal"
    options = StorageOptions(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as keeper:  # who closes last copies the log
        keeper.executescript("PRAGMA journal_mode = WAL; CREATE TABLE ours (a)")
        create_storage(options).close()
        content = log.read_bytes()
    path.write_bytes(path.read_bytes()[:4096])
    with pytest.raises(StorageError, match="must be an SQLite database"):  # without its log much is missing
        open_storage(options)
    log.write_bytes(content)
    (create_storage if create else open_storage)(options).close()


def test_a_folder_is_no_storage(tmp_path: Path) -> None:
    """A directory in the place of the file."""
    with pytest.raises(StorageError, match="readable file"):
        open_storage(StorageOptions(f"sqlite:///{tmp_path}"))


def as_nobody(operation: Callable[[], Any]) -> str:
    """What an operation raises for a user without rights; root is asked to step down in a child process."""
    if os.geteuid() != 0:
        return outcome_of(operation)
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setuid(NOBODY)
            os.write(writing, outcome_of(operation).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as file:
        return file.read()


def outcome_of(operation: Callable[[], Any]) -> str:
    try:
        operation()
    except FmnistOptunaError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"unexpected {error!r}"
    return "nothing raised"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def read_only_url(open_folder: Path) -> Iterator[str]:
    """A storage in which this user may only read."""
    path = open_folder / "studies.db"
    create_storage(StorageOptions(f"sqlite:///{path}")).close()
    path.chmod(0o444)
    open_folder.chmod(0o555)
    yield f"sqlite:///{path}"
    open_folder.chmod(0o755)


def test_working_on_a_read_only_storage_is_refused_at_once(read_only_url: str) -> None:
    """Before anything is trained that could not be stored."""
    outcome = as_nobody(lambda: create_storage(StorageOptions(read_only_url)))
    assert outcome.startswith("StorageError: The storage ")
    assert "must be writable" in outcome


def test_reading_a_read_only_storage_works_or_says_why(read_only_url: str) -> None:
    """SQLite cannot read a WAL file in a folder where it may not write, unless somebody has it open."""
    outcome = as_nobody(lambda: open_storage(StorageOptions(read_only_url)))
    assert outcome.startswith(("StorageError: The storage ", "nothing raised"))


def test_a_new_storage_in_a_read_only_folder_is_a_storage_error(open_folder: Path) -> None:
    """The system's own words, and exit status 5."""
    open_folder.chmod(0o555)
    for path in (open_folder / "new.db", open_folder / "sub" / "new.db"):
        outcome = as_nobody(partial(create_storage, StorageOptions(f"sqlite:///{path}")))
        assert outcome.startswith("StorageError: ")
        assert "writable" in outcome
    open_folder.chmod(0o755)


def test_a_storage_in_a_forbidden_folder_is_a_storage_error(open_folder: Path) -> None:
    """Whether the file is there cannot even be asked."""
    closed = open_folder / "closed"
    closed.mkdir(mode=0o000)
    assert as_nobody(lambda: open_storage(StorageOptions(f"sqlite:///{closed / 'studies.db'}"))).startswith(
        "StorageError: "
    )


@pytest.mark.parametrize("name", ["with space.db", "50%.db", "a{b}.db", "größe.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    """Brackets, percent signs and spaces mean nothing to us, and should mean nothing to Optuna."""
    path = tmp_path / name
    url = f"sqlite:///{path}"
    create_storage(StorageOptions(url)).close()
    opened = open_small(url)
    assert path.exists()
    opened.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such option")
def test_connections_ask_the_kernel_to_give_up_in_time(postgres_url: str) -> None:
    """A third of the lease without an acknowledgement, for the ledger and for Optuna's storage over the same engine."""
    storage = open_storage(StorageOptions(postgres_url, timing=Timing.for_lease(30.0)))
    assert open_optuna(storage)._backend.engine is storage.engine
    with storage.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as asked:
            assert asked.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000  # milliseconds
            assert asked.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5  # seconds
    storage.close()
