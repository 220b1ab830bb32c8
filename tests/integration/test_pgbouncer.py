"""Workers whose connections go through pgbouncer in transaction mode: no transaction knows which session it gets."""

from collections.abc import Iterator
from functools import partial

import psycopg
import pytest
from needed import do_without
from pgbouncer_server import PROGRAM, running_pgbouncer
from postgres_server import NoServerError
from small_study import STUDY, create_study, finish_everything, in_threads, make_spec, open_session
from sqlalchemy import make_url

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify

pytestmark = pytest.mark.more

N_WORKERS, N_SERVER_CONNECTIONS = 12, 3


@pytest.fixture
def pooled_url(empty_postgres_url: str) -> Iterator[str]:
    """URL of an empty database behind a pgbouncer that has three connections for everybody."""
    try:
        with running_pgbouncer(empty_postgres_url, N_SERVER_CONNECTIONS) as url:
            yield url
    except NoServerError as error:
        do_without(f"pgbouncer must be there for this test, but {error}. {PROGRAM} may name one.")


def test_a_study_is_made_and_finished_behind_a_pooler(pooled_url: str, empty_postgres_url: str) -> None:
    """Twelve workers over three sessions: tables, joins, claims, trials, results; no cell is lost or doubled."""
    storage = create_storage(StorageOptions(pooled_url))
    spec = make_spec({"hidden_size": list(range(1, 97))})
    session = Session(storage, create_study(storage, spec), "maker")
    create_study(storage, spec)  # a join
    in_threads(N_WORKERS, partial(finish_some, pooled_url))
    found = verify(storage, session.optuna_storage, session.record.study_id)
    assert (found.n_results, found.n_duplicates, found.n_missing, found.n_surplus, found.problems) == (96, 0, 0, 0, ())
    with psycopg.connect(make_url(empty_postgres_url).set(drivername="postgresql").render_as_string(False)) as direct:
        counted = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        row = direct.execute(counted).fetchone()
    assert row == (N_SERVER_CONNECTIONS,)  # the pooler keeps its own; those of a worker have ended with it
    storage.close()


def finish_some(url: str, number: int) -> None:
    """A worker with connections of its own."""
    session = open_session(url, f"worker-{number}", STUDY)
    finish_everything(session)
    session.storage.close()
