"""Databases for the tests: SQLite files, and a real Postgres that is started for the session, never a mock.

Environment:
    FMNIST_TEST_POSTGRES_URL: URL of a server whose user may create databases; nothing is started then.
    CI: A missing Postgres fails the tests instead of skipping them.
"""

import gc
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from needed import do_without
from postgres_server import NoServerError, running_server

SERVER_URL = "FMNIST_TEST_POSTGRES_URL"
OWN_FOLDER = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give this run a folder for temporary files that no other run knows, and signals that act on what it starts."""
    _let_signals_act()
    if config.option.basetemp is None:  # the processes of a parallel run get theirs from the first one
        config.stash[OWN_FOLDER] = config.option.basetemp = tempfile.mkdtemp(prefix="fmnist-tests-")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Put what was imported beyond the reach of collections, as in every child: Keras asks for one a model."""
    _let_signals_act()  # what children import ignores some, and tests import it
    gc.collect()
    gc.freeze()


def _let_signals_act() -> None:
    """Have the standard answers to signals, as commands inherit what is ignored here.

    A suite in the background of a script, or under nohup, ignores some, and yet it sends them to commands.
    """
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Note whether there is something left to look at."""
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.config.stash[OWN_FOLDER] = ""


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder, unless a test failed."""
    if folder := config.stash.get(OWN_FOLDER, ""):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all temporary ones, made before any thread asks: at its first use pytest removes what is there."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a running server's maintenance database."""
    if url := os.environ.get(SERVER_URL):
        yield url
        return
    try:
        with running_server() as server:
            yield server.url
    except NoServerError as error:
        do_without(f"Postgres must be there for this test, but {error}. {SERVER_URL} may name one.")


class Databases:
    """Makes, empties and drops databases on a running server.

    Copying a template takes 0.12 s, emptying 0.01 s (measured November 2026), so an emptied database is used again.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._empty: list[str] = []  # URLs of databases with all tables and no row

    def create(self) -> str:
        """A new database without a table; returns its URL."""
        from sqlalchemy import make_url

        name = f"fmnist_{uuid.uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def take(self) -> str:
        """A database with all tables and no study; returns its URL."""
        if self._empty:
            return self._empty.pop()
        url = self.create()
        _make_schema(url)
        return url

    def give_back(self, url: str) -> None:
        """Empty a database for the next test; drop it where that fails or the test changed its schema."""
        import psycopg

        from fmnist_optuna.ledger.tables import SCHEMA_VERSION

        try:
            with psycopg.connect(url, autocommit=True, options="-c lock_timeout=2000") as connection:
                tables = {name for (name,) in connection.execute(TABLES).fetchall()} - VERSION_TABLES
                # A third of the time of a TRUNCATE, which makes new files for every table and index.
                deletes = [f"DELETE FROM {name}" for name in sorted(tables)]
                connection.execute("; ".join(["SET session_replication_role = replica", *deletes, SEQUENCES_FROM_1]))
                versions = connection.execute("SELECT version FROM fmnist_schema_version").fetchall()
                is_as_it_was = versions == [(SCHEMA_VERSION,)]
        except psycopg.Error:
            is_as_it_was = False
        if is_as_it_was:
            self._empty.append(url)
        else:
            self.drop(url)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is still connected."""
        from sqlalchemy import make_url

        self._execute(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    def close(self) -> None:
        """Drop what is left."""
        for url in self._empty:
            self.drop(url)

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
SEQUENCES_FROM_1 = (
    "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false) FROM pg_sequences "
    "WHERE schemaname = 'public' AND last_value IS NOT NULL"
)
VERSION_TABLES = {"fmnist_schema_version", "version_info", "alembic_version"}


def _make_schema(url: str) -> None:
    from fmnist_optuna.bridge.storage import create_storage
    from fmnist_optuna.ledger.options import StorageOptions

    create_storage(StorageOptions(url)).close()


@pytest.fixture(scope="session")
def databases(postgres_server: str) -> Iterator[Databases]:
    """Databases on the server, made as they are needed."""
    made = Databases(postgres_server)
    yield made
    made.close()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "studies.db"
    _make_schema(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, _sqlite_template: Path) -> str:
    """URL of an SQLite file with all tables and no study."""
    shutil.copyfile(_sqlite_template, tmp_path / "studies.db")
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    """URL of a Postgres database with all tables and no study."""
    url = databases.take()
    yield url
    databases.give_back(url)


@pytest.fixture
def empty_postgres_url(databases: Databases) -> Iterator[str]:
    """URL of a Postgres database without a table."""
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture(scope="session")
def alembic_read_once() -> Iterator[None]:
    """Optuna reads its migration scripts whenever it opens a storage, for 0.06 s; here once."""
    from optuna.storages._rdb.storage import _VersionManager

    with pytest.MonkeyPatch.context() as patch:
        head = _VersionManager.get_head_version
        kept: list[str] = []

        def get_head_version(manager: Any) -> str:
            if not kept:
                kept.append(head(manager))
            return kept[0]

        patch.setattr(_VersionManager, "get_head_version", get_head_version)
        yield


@pytest.fixture(params=["sqlite", "postgres"])
def storage_url(request: pytest.FixtureRequest, alembic_read_once: None) -> str:
    """URL of a storage with all tables and no study, on either database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["sqlite", "postgres"])
def empty_storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a storage that nobody has made yet: no file, or no table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return str(request.getfixturevalue("empty_postgres_url"))


@pytest.fixture
def storage(storage_url: str) -> Iterator[Any]:
    """An open storage on either database."""
    from small_study import open_small

    opened = open_small(storage_url)
    yield opened
    opened.close()


@pytest.fixture
def new_session(storage_url: str) -> Iterator[Callable[..., Any]]:
    """Opens sessions on the small study, each with an engine of its own, as another process would.

    Call it with a name; `spec=` makes another study first, `timing=` another timing.
    """
    from small_study import FAST, create_study, make_spec, open_small

    from fmnist_optuna.study.session import Session
    from fmnist_optuna.study.studies import find_study

    opened: list[Any] = []

    def new(name: str = "worker", spec: Any = None, timing: Any = FAST) -> Any:
        storage = open_small(storage_url, timing)
        if not opened or spec is not None:
            record = create_study(storage, spec)
        else:
            record = find_study(storage, make_spec().name)
        session = Session(storage, record, name)
        opened.append(session)
        return session

    yield new
    for session in opened:
        session.storage.close()


@pytest.fixture
def session(new_session: Callable[..., Any]) -> Any:
    """One process at work on the small study, on either database."""
    return new_session("worker")
