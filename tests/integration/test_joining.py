"""What joining a study in Postgres costs: few statements, and nothing is compiled that was before the fork."""

import multiprocessing
import multiprocessing.connection
import os
import subprocess
import sys
from typing import Any

import optuna
import psycopg
import pytest
from small_study import STUDY, create_study, finish_everything, open_session, open_small
from sqlalchemy import text

from fmnist_optuna.bridge.storage import SharedPostgres, create_storage
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.dialect import n_compiled
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.unconnected import NotSentError, unconnected_storage
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.first_statements import compile_first_statements

# The version of our tables, the study, four to register, the version of Optuna's tables, and two for Optuna's study.
N_STATEMENTS = 9


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent to Postgres, whoever sends it."""
    statements: list[str] = []
    execute: Any = psycopg.Cursor.execute

    def noting(self: object, query: object, *args: object, **kwargs: object) -> object:
        statements.append(str(query))
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", noting)
    return statements


def join(url: str, name: str = "worker") -> Session:
    """As a worker does it."""
    session = open_session(url, name, STUDY)
    session.presence.register(name, fresh_seconds=60.0)
    assert session.optuna_study.study_name == STUDY
    return session


def test_joining_takes_nine_statements(postgres_url: str, sent: list[str]) -> None:
    """None of them asks for what a connection has told already."""
    storage = open_small(postgres_url)
    create_study(storage)
    sent.clear()
    session = join(postgres_url)
    assert len(sent) == N_STATEMENTS, sent
    assert session.storage.engine.dialect.server_version_info is not None
    with session.storage.look() as connection:
        server = int(connection.execute(text("SELECT current_setting('server_version_num')")).scalar_one())
    assert session.storage.engine.dialect.server_version_info[0] == server // 10_000
    session.storage.close()
    storage.close()


def test_joined_storage_has_all_that_optunas_has(postgres_url: str) -> None:
    """What Optuna's own `__init__` sets, of the same kinds, and it answers what Optuna's does."""
    storage = open_small(postgres_url)
    create_study(storage)
    session = join(postgres_url)
    joined = session.optuna_storage._backend
    assert isinstance(joined, SharedPostgres)
    stock = optuna.storages.RDBStorage(storage.url.render_as_string(hide_password=False))
    assert {name: type(value) for name, value in vars(joined).items() if name != "scoped_session"} == {
        name: type(value) for name, value in vars(stock).items() if name != "scoped_session"
    }
    assert joined.get_current_version() == joined.get_head_version() == stock.get_current_version()
    assert joined.get_all_versions() == stock.get_all_versions()
    study_id = session.record.study_id
    assert joined.get_study_id_from_name(STUDY) == stock.get_study_id_from_name(STUDY) == study_id
    assert joined.get_study_directions(study_id) == stock.get_study_directions(study_id)
    for storage_of in (joined, stock):
        with pytest.raises(KeyError):
            storage_of.get_study_id_from_name("another")
        with pytest.raises(KeyError):
            storage_of.get_study_directions(study_id + 1)
    stock.engine.dispose()
    session.storage.close()
    storage.close()


@pytest.mark.parametrize(
    "change",
    ["UPDATE alembic_version SET version_num = 'v0.9.0.a'", "UPDATE alembic_version SET version_num = 'v99.0.0.a'"],
)
def test_joining_tables_of_another_optuna_is_refused(empty_postgres_url: str, change: str) -> None:
    """Of an earlier one and of a later one, in our words."""
    storage = create_storage(StorageOptions(empty_postgres_url))
    record = create_study(storage)
    with storage.write() as connection:
        connection.execute(text(change))
    with pytest.raises(StorageError, match="must fit this Optuna"):
        _ = Session(storage, record).optuna_storage
    storage.close()


def test_nothing_is_sent_where_there_is_no_server() -> None:
    """Every statement is compiled and raises; the transaction around it begins and ends."""
    storage, before = unconnected_storage(), n_compiled()
    statement = text("SELECT 'never asked before'")
    for begin in (storage.write, storage.read, storage.single, storage.look):
        with pytest.raises(NotSentError), begin() as connection:
            connection.execute(statement)
    assert n_compiled() == before + 1


def work_forked(url: str, sender: multiprocessing.connection.Connection) -> None:
    """Fork a worker from this process, which has compiled what workers ask, and send what it compiled anew."""
    assert compile_first_statements() == n_compiled() > 0
    worker = multiprocessing.get_context("fork").Process(target=work_once, args=(url, sender))
    worker.start()
    worker.join()


def work_once(url: str, sender: multiprocessing.connection.Connection) -> None:
    """Join a study and finish its cells."""
    session = join(url)
    joined = n_compiled()
    finish_everything(session)
    sender.send(n_compiled() - joined)
    session.storage.close()


def test_a_forked_worker_compiles_nothing_anew(postgres_url: str) -> None:
    """Of what its trials ask, in a process that was forked from one without a connection."""
    storage = open_small(postgres_url)
    create_study(storage)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=work_forked, args=(postgres_url, sender))
    process.start()
    sender.close()
    assert receiver.recv() == 0
    process.join()
    storage.close()


SCRIPT = """
from fmnist_optuna.ledger.dialect import n_compiled
from fmnist_optuna.processes.children import Call, warm_up

if __name__ == "__main__":
    warm_up(is_on_server={is_on_server})
    print("compiled", Call(n_compiled, doing="looking").result())
"""


@pytest.mark.more
@pytest.mark.parametrize("is_on_server", [True, False])
def test_the_server_of_children_compiles_for_postgres(is_on_server: bool) -> None:
    """And for it alone: a study in a file needs no driver."""
    script = SCRIPT.format(is_on_server=is_on_server)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    n_statements = int(done.stdout.split("compiled ")[1])
    assert (n_statements > 20) == is_on_server, done.stdout
