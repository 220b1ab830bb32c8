"""Transactions of a storage, Optuna's and ours: their settings and clock, how they begin, wait and end."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from small_study import LOST, STUDY, begin_trial, claim_cell, in_threads, open_session, open_small
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from fmnist_optuna.bridge.orphans import fail_trial
from fmnist_optuna.bridge.storage import PatientStorage, create_storage, open_impatient
from fmnist_optuna.bridge.trials import Outcome, tell
from fmnist_optuna.errors import FmnistOptunaError, StorageError
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import is_outage, is_permanent, is_refusal
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import SCHEMA_VERSION
from fmnist_optuna.study.session import Session


def test_sqlite_gets_its_settings(sqlite_url: str) -> None:
    """WAL, synchronous NORMAL (1), and a busy timeout of 20 s at the default lease of 60 s."""
    opened = open_storage(StorageOptions(sqlite_url))
    with opened.read() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in PRAGMAS]
    assert pragmas == ["wal", 1, 20_000]
    opened.close()


PRAGMAS = ("journal_mode", "synchronous", "busy_timeout")


@pytest.mark.parametrize("lease_seconds", [1.0, 6.0, 60.0, 3600.0])
def test_the_busy_timeout_stays_below_half_the_lease(sqlite_url: str, lease_seconds: float) -> None:
    """Waiting for a lock must not cost a worker its cell."""
    opened = open_storage(StorageOptions(sqlite_url, timing=Timing.for_lease(lease_seconds)))
    with opened.read() as connection:
        milliseconds = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    assert milliseconds == int(min(20.0, lease_seconds / 3) * 1000)
    assert 2 * milliseconds / 1000 < lease_seconds
    opened.close()


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_file_that_was_moved_away_is_waited_for(sqlite_url: str, kind: str) -> None:
    """Open connections write nothing to it meanwhile, and no empty one takes its place."""
    file = Path(str(make_url(sqlite_url).database))
    opened = open_small(sqlite_url)
    with getattr(opened, kind)() as connection:
        connection.execute(VERSION)
    moved = file.rename(file.with_name("moved.db"))
    for _ in range(2):
        with pytest.raises(OperationalError, match="unable to open") as error, getattr(opened, kind)():
            pass
        assert is_outage(error.value)
        assert not is_permanent(error.value)
    assert not file.exists()
    moved.rename(file)
    with getattr(opened, kind)() as connection:
        assert connection.execute(VERSION).scalar_one() == SCHEMA_VERSION
    opened.close()


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_file_that_was_replaced_is_refused(sqlite_url: str, kind: str) -> None:
    """By connections that were open and by new ones: its log is that of the other file. No waiting mends it."""
    file = Path(str(make_url(sqlite_url).database))
    opened = open_small(sqlite_url)
    with opened.write() as connection:
        connection.execute(VERSION)
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(file.with_name("copy.db"))) as copy:
        old.backup(copy)
    file.with_name("copy.db").rename(file)
    for _ in range(2):
        with pytest.raises(StorageError, match="stop all that works on it") as error, getattr(opened, kind)():
            pass
        assert not is_outage(error.value)
    opened.close()


def test_what_is_only_in_the_log_comes_back_with_the_file(sqlite_url: str) -> None:
    """Whoever opens Optuna's storage meanwhile, or begins a study, removes none of it."""
    file = Path(str(make_url(sqlite_url).database))
    opened, writer = open_small(sqlite_url), sqlite3.connect(file)
    writer.execute("PRAGMA user_version = 7")
    with opened.read() as connection:
        connection.execute(VERSION)
    moved = file.rename(file.with_name("moved.db"))
    with pytest.raises(StorageInternalError) as error:
        open_impatient(opened)
    assert is_outage(error.value)
    for open_again, words in ((open_storage, "There is no storage file"), (create_storage, "as its log .*-wal is")):
        with pytest.raises(FmnistOptunaError, match=words):
            open_again(StorageOptions(sqlite_url))
    writer.close()
    moved.rename(file)
    with closing(sqlite3.connect(file)) as found:
        assert found.execute("PRAGMA user_version").fetchone() == (7,)
    opened.close()


VERSION = text("SELECT version FROM fmnist_schema_version")


def test_the_clock_is_the_databases(storage: Storage) -> None:
    """It goes on within one transaction, and agrees with this machine's, where both run."""
    with storage.read() as connection:
        before = connection.execute(select(storage.now)).scalar_one()
        time.sleep(0.02)
        after = connection.execute(select(storage.now)).scalar_one()
    assert 0.015 < after - before < 5.0
    assert abs(after - time.time()) < 5.0


@pytest.mark.parametrize("kind", ["read", "look"])
def test_a_reader_waits_for_no_writer(storage_url: str, kind: str) -> None:
    """`status` answers while a worker writes."""
    writer, reader = open_small(storage_url), open_small(storage_url)
    with writer.write() as connection:
        connection.execute(text("UPDATE fmnist_schema_version SET version = version"))
        with getattr(reader, kind)() as other:
            assert other.execute(text("SELECT version FROM fmnist_schema_version")).scalar_one() == SCHEMA_VERSION
    writer.close()
    reader.close()


def test_a_role_that_may_only_read_is_refused(postgres_url: str) -> None:
    """With the code of a standby, but by a server that is none: waiting would not help, and its connection is kept."""
    storage = open_small(postgres_url)
    with storage.write() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(DBAPIError, match="read-only transaction") as refused, storage.write() as connection:
        connection.execute(text("UPDATE fmnist_schema_version SET version = version"))
    assert (is_refusal(refused.value), is_outage(refused.value)) == (True, False)
    assert not refused.value.connection_invalidated
    storage.close()


def test_postgres_ends_a_transaction_idle_beyond_a_lease(postgres_url: str) -> None:
    """The lock of a process that was stopped within a transaction is free after that; its statement is an outage."""
    storage = open_storage(StorageOptions(postgres_url, timing=Timing.for_lease(0.3)))
    other = open_small(postgres_url)
    change = text("UPDATE fmnist_schema_version SET version = version")
    with pytest.raises(DBAPIError) as raised, storage.write() as stopped:  # noqa: PT012
        stopped.execute(change)
        with other.write() as connection:  # waits for the row, then has it
            connection.execute(change)
        stopped.execute(change)
    assert is_outage(raised.value)
    with storage.read() as reader:
        time.sleep(0.5)
        reader.execute(text("SELECT 1"))  # a reader may rest
    storage.close()
    other.close()


def finish(session: Session, trial_id: int, number: int) -> None:
    if number == 0:
        fail_trial(session.storage, trial_id, LOST)
    else:
        tell(session.optuna_study, optuna.Trial(session.optuna_study, trial_id), Outcome(State.COMPLETE, 0.5))


def test_of_a_fail_and_a_tell_exactly_one_succeeds(storage_url: str, new_session: Callable[..., Session]) -> None:
    """Fifty times at the same instant: the first to commit decides, the second changes nothing."""
    sessions = [new_session("failer"), new_session("teller")]
    n_complete = 0
    for _ in range(50):
        trial_id = sessions[0].optuna_storage.create_new_trial(sessions[0].record.study_id)
        changes = in_threads(2, partial(count_changes, sessions, trial_id))
        assert sum(changes) == 1
        n_complete += changes[1]
    states = [trial.state for trial in sessions[0].optuna_storage.get_all_trials(sessions[0].record.study_id)]
    assert (states.count(TrialState.COMPLETE), states.count(TrialState.FAIL)) == (n_complete, 50 - n_complete)


def count_changes(sessions: Sequence[Session], trial_id: int, number: int) -> int:
    """1 if this thread finished the trial, 0 if it came second."""
    session = sessions[number]
    state = (TrialState.FAIL, TrialState.COMPLETE)[number]
    try:
        session.optuna_storage.set_trial_state_values(trial_id, state, [0.5] if number else None)
    except optuna.exceptions.UpdateFinishedTrialError:
        return 0
    return 1


def test_a_second_finish_is_silent_and_changes_nothing(session: Session) -> None:
    """`tell` and `fail_trial` leave a finished trial as it is."""
    for first, second in ((0, 1), (1, 0)):
        trial_id = begin_trial(session, claim_cell(session))
        finish(session, trial_id, first)
        before = session.optuna_storage.get_trial(trial_id)
        finish(session, trial_id, second)
        assert session.optuna_storage.get_trial(trial_id) == before


def test_optuna_and_the_ledger_share_one_engine(session: Session) -> None:
    """So that Optuna's transactions begin as ours do."""
    assert vars(session.optuna_storage)["_backend"].engine is session.storage.engine


def test_every_operation_of_optuna_waits_out_outages() -> None:
    """But for the deletion of a study, which finds none when it is run twice."""
    waiting = {
        name for name in BaseStorage.__abstractmethods__ if hasattr(getattr(PatientStorage, name), "__wrapped__")
    }
    assert BaseStorage.__abstractmethods__ - waiting == {"delete_study"}


def test_optunas_writes_take_the_lock_at_once_on_sqlite(sqlite_url: str) -> None:
    """BEGIN IMMEDIATE, or a FAIL and a tell would both succeed; the reads of every epoch take none."""
    from small_study import create_study
    from sqlalchemy import event

    opened = open_small(sqlite_url)
    create_study(opened)
    session = open_session(sqlite_url, "worker", STUDY)
    trial_id = session.optuna_storage.create_new_trial(session.record.study_id)
    begins: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("BEGIN"):
            begins.append(statement)

    event.listen(session.storage.engine, "before_cursor_execute", note)
    session.optuna_storage.get_trial(trial_id)
    assert set(begins) == {"BEGIN"}
    begins.clear()
    session.optuna_storage.set_trial_state_values(trial_id, TrialState.FAIL)
    assert set(begins) == {"BEGIN IMMEDIATE"}
    session.storage.close()
    opened.close()
