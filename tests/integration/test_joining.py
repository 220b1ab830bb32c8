"""What joining a study in Postgres costs: few statements; what is not asked is as Optuna and SQLAlchemy have it."""

from typing import Any, NoReturn

import optuna
import psycopg
import pytest
from small_study import STUDY, create_study, open_session, open_small, stub_objective, work_off
from sqlalchemy import create_engine, text

from fmnist_optuna.bridge.fitting import is_known_optuna, newest_tables
from fmnist_optuna.bridge.storage import SharedPostgres, create_storage
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.limits import WorkerLimits
from fmnist_optuna.work.loop import LeaveRequest, work

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


def told_of_study(session: Session) -> dict[str, Any]:
    """What a joined session says of its study, and of what kinds the parts of its storage are."""
    trials, study_id = session.optuna_storage, session.record.study_id
    backend: Any = trials._backend
    ours = session.storage.engine
    return {
        "record": session.record,
        "id": trials.get_study_id_from_name(STUDY),
        "directions": trials.get_study_directions(study_id),
        "attributes": (trials.get_study_user_attrs(study_id), trials.get_study_system_attrs(study_id)),
        "trials": trials.get_all_trials(study_id),
        "versions": (backend.get_current_version(), backend.get_head_version(), backend.get_all_versions()),
        "url": backend.url,
        "engines": {backend.engine is ours, backend.scoped_session.session_factory.kw["bind"] is ours},
        "parts": {name: type(part) for name, part in vars(backend).items()},
    }


@pytest.mark.parametrize(
    ("version", "is_known"),
    [("5.0.0", True), ("5.0.7", True), ("4.9.1", False), ("5.1.0.dev0", False), ("6.0.0", False)],
)
def test_the_short_way_is_for_one_version_of_optuna(
    monkeypatch: pytest.MonkeyPatch, version: str, is_known: bool
) -> None:
    """That whose private parts were read; a bug fix of it changes none."""
    monkeypatch.setattr(optuna, "__version__", version)
    assert is_known_optuna() is is_known


def test_another_optuna_joins_by_its_own_questions(
    storage_url: str, monkeypatch: pytest.MonkeyPatch, sent: list[str]
) -> None:
    """The study, its trials and the storage are those of the short way, and it is worked off as any other."""
    storage = open_small(storage_url)
    create_study(storage)
    short = join(storage_url)
    work(short, stub_objective, LeaveRequest(), short.record.generation, WorkerLimits(max_trials=2))
    told = told_of_study(short)
    assert (len(told["trials"]), told["engines"]) == (2, {True})
    monkeypatch.setattr(optuna, "__version__", "6.0.0")
    monkeypatch.setattr("fmnist_optuna.bridge.storage.adopt", refuse)
    sent.clear()
    long = join(storage_url, "another")
    assert storage.is_sqlite or len(sent) > N_STATEMENTS, sent
    assert told_of_study(long) == told
    work_off(long)
    found = verify(long.storage, long.optuna_storage, long.record.study_id)
    assert (found.ok, found.n_results) == (True, 4)
    for each in (storage, short.storage, long.storage):
        each.close()


def refuse(*_: object) -> NoReturn:
    pytest.fail("the short way was taken")


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
