"""What joining a study in Postgres costs: few statements; what is not asked is as Optuna and SQLAlchemy have it."""

from typing import Any

import optuna
import psycopg
import pytest
from small_study import STUDY, create_study, open_session, open_small
from sqlalchemy import create_engine, text

from fmnist_optuna.bridge.fitting import newest_tables
from fmnist_optuna.bridge.storage import SharedPostgres, create_storage
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.study.session import Session

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
    assert newest_tables() == stock.get_head_version()
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


def test_a_dialect_knows_what_it_did_not_ask(postgres_url: str) -> None:
    """All that SQLAlchemy's own learns by asking, but for what nothing here uses."""
    storage = open_small(postgres_url)
    create_study(storage)
    own = create_engine(storage.url)
    with own.connect():
        asked = vars(own.dialect)
    told = vars(storage.engine.dialect)
    names = {name for name, value in asked.items() if isinstance(value, bool | int | str | tuple)}
    assert {name for name in names if asked[name] != told.get(name)} == {
        "default_schema_name",
        "default_isolation_level",
        "use_native_hstore",
    }
    own.dispose()
    storage.close()
