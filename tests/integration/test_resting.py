"""Connections to Postgres: one at most, and none once it has rested."""

import time
from collections.abc import Callable, Iterator

import pytest
from small_study import claim_cell, create_study, make_spec, open_small
from sqlalchemy import text

from fmnist_optuna.ledger.resting import REST_SECONDS, RestingPool
from fmnist_optuna.study.session import Session

ASKING = text("SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")
DEADLINE_SECONDS = 20.0


@pytest.fixture
def new_postgres(postgres_url: str) -> Iterator[Callable[..., Session]]:
    """Opens sessions on one study, each as another process would."""
    opened: list[Session] = []

    def new(name: str) -> Session:
        storage = open_small(postgres_url)
        opened.append(Session(storage, create_study(storage, make_spec()), name))
        return opened[-1]

    yield new
    for session in opened:
        session.storage.close()


def count_others(session: Session) -> int:
    """Connections to the database beside this one."""
    with session.storage.read() as connection:
        return int(connection.execute(ASKING).scalar_one())


def pool_of(session: Session) -> RestingPool:
    """Of a session on Postgres."""
    pool = session.storage.engine.pool
    assert isinstance(pool, RestingPool)
    return pool


def test_a_worker_has_one_connection_and_none_at_rest(new_postgres: Callable[..., Session]) -> None:
    """With Optuna's storage too; the next statement opens another."""
    worker, observer = new_postgres("worker"), new_postgres("observer")
    claim_cell(worker)
    assert worker.optuna_storage.get_all_studies()
    assert pool_of(worker).checkedin() == 1
    assert count_others(observer) == 1
    deadline = time.monotonic() + DEADLINE_SECONDS
    while count_others(observer):
        assert time.monotonic() < deadline, "the connection was not closed"
        time.sleep(REST_SECONDS / 10)
    assert pool_of(worker).checkedin() == 0
    claim_cell(worker)
    assert pool_of(worker).checkedin() == 1


def test_two_threads_may_ask_at_once(new_postgres: Callable[..., Session]) -> None:
    """As the renewing one does while the other is in a transaction; the second connection is closed at once."""
    worker = new_postgres("worker")
    with worker.storage.write() as first:
        with worker.storage.read() as second:
            assert second.execute(ASKING).scalar_one() == 1
        first.execute(ASKING)
    assert pool_of(worker).checkedin() == 1
