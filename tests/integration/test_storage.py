"""Opening a storage: what goes wrong there and in which words; the schema; how transactions begin."""

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from small_study import (
    LOST,
    STUDY,
    begin_trial,
    claim_cell,
    create_study,
    expire,
    in_processes,
    in_threads,
    open_session,
    open_small,
    read_cell,
)
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from fmnist_optuna.bridge.storage import PatientStorage, create_storage
from fmnist_optuna.bridge.trials import Outcome, fail_trial, tell
from fmnist_optuna.errors import FmnistOptunaError, NotFoundError, StorageError, UsageError
from fmnist_optuna.ledger.connecting import open_storage, upgrade_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import is_outage
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import SCHEMA_VERSION
from fmnist_optuna.ledger.urls import parse_url
from fmnist_optuna.study.session import Session

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


def test_a_schema_of_another_version_is_refused(storage_url: str) -> None:
    """The version that made it must read it."""
    opened = open_small(storage_url)
    with opened.write() as connection:
        connection.execute(text("UPDATE fmnist_schema_version SET version = 99"))
    opened.close()
    with pytest.raises(StorageError, match="but has 99; use the version"):
        open_storage(StorageOptions(storage_url))


# What each version added to the one before, as it is taken away again.
ADDED = {
    4: ("ALTER TABLE fmnist_studies DROP COLUMN data_info",),
    5: (
        "DROP TABLE fmnist_decisions",
        "ALTER TABLE fmnist_cells DROP COLUMN first_claimed_at",
        "ALTER TABLE fmnist_cells DROP COLUMN rung",
        "ALTER TABLE fmnist_cells DROP COLUMN cut_at",
        "ALTER TABLE fmnist_cells DROP COLUMN decision_id",
    ),
    6: ("ALTER TABLE fmnist_decisions DROP COLUMN absent",),
}


@pytest.mark.parametrize("version", [3, 4, 5])
def test_no_upgrade_takes_tables_from_a_worker(empty_storage_url: str, version: int) -> None:
    """Of whatever version it is: while a lease holds nothing changes, and afterwards all cells are there."""
    storage = create_storage(StorageOptions(empty_storage_url))
    session = Session(storage, create_study(storage), "worker")
    claim = claim_cell(session)
    with storage.write() as connection:
        for statement in chain.from_iterable(ADDED[number] for number in range(SCHEMA_VERSION, version, -1)):
            connection.execute(text(statement))
        connection.execute(text(f"UPDATE fmnist_schema_version SET version = {version}"))
    for upgrade in (upgrade_storage, create_storage):
        with pytest.raises(StorageError, match=r"must be at rest while its tables are upgraded, .* hold 1 cell;"):
            upgrade(StorageOptions(empty_storage_url))
    expire(storage, claim.cell_id)
    assert upgrade_storage(StorageOptions(empty_storage_url)) == version
    cell = read_cell(storage, claim.cell_id)
    assert cell.token == claim.token
    assert cell.first_claimed_at == pytest.approx(cell.claimed_at, abs=1e-3)  # Postgres counts in microseconds
    storage.close()


def test_tables_of_another_optuna_are_refused(empty_storage_url: str) -> None:
    """In our words, with exit status 5, not with Optuna's traceback."""
    url = empty_storage_url.replace("postgresql:", "postgresql+psycopg:")
    made = optuna.storages.RDBStorage(url)
    with made.engine.begin() as connection:
        connection.execute(text("UPDATE version_info SET schema_version = 1"))
        connection.execute(text("UPDATE alembic_version SET version_num = 'v0.9.0.a'"))
    made.engine.dispose()
    with pytest.raises(StorageError, match="must fit this Optuna"):
        create_storage(StorageOptions(empty_storage_url))


@pytest.mark.parametrize("name", ["with space.db", "50%.db", "a{b}.db", "größe.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    """Brackets, percent signs and spaces mean nothing to us, and should mean nothing to Optuna."""
    path = tmp_path / name
    url = f"sqlite:///{path}"
    create_storage(StorageOptions(url)).close()
    opened = open_small(url)
    assert path.exists()
    opened.close()


def open_new(_number: int, url: str) -> int:
    """Body of a process that makes the schema and asks for its version."""
    opened = create_storage(StorageOptions(url))
    with opened.read() as connection:
        return int(connection.execute(text("SELECT version FROM fmnist_schema_version")).scalar_one())


def test_four_processes_create_one_schema(empty_storage_url: str) -> None:
    """At the same instant on an empty database, where stock Optuna fails three of four times."""
    assert in_processes(4, open_new, empty_storage_url) == [SCHEMA_VERSION] * 4


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


def test_the_clock_is_the_databases(storage: Storage) -> None:
    """It goes on within one transaction, and agrees with this machine's, where both run."""
    import time

    with storage.read() as connection:
        before = connection.execute(select(storage.now)).scalar_one()
        time.sleep(0.02)
        after = connection.execute(select(storage.now)).scalar_one()
    assert 0.015 < after - before < 5.0
    assert abs(after - time.time()) < 5.0


def test_a_reader_waits_for_no_writer(storage_url: str) -> None:
    """`status` answers while a worker writes."""
    writer, reader = open_small(storage_url), open_small(storage_url)
    with writer.write() as connection:
        connection.execute(text("UPDATE fmnist_schema_version SET version = version"))
        with reader.read() as other:
            assert other.execute(text("SELECT version FROM fmnist_schema_version")).scalar_one() == SCHEMA_VERSION
    writer.close()
    reader.close()


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
        fail_trial(session.optuna_storage, trial_id, LOST)
    else:
        tell(session.optuna_study, optuna.Trial(session.optuna_study, trial_id), Outcome(State.COMPLETE, 0.5))


def test_of_a_fail_and_a_tell_exactly_one_succeeds(storage_url: str, new_session: Callable[..., Session]) -> None:
    """Fifty times at the same instant: the first to commit decides, the second changes nothing."""
    sessions = [new_session("failer"), new_session("teller")]
    claim = claim_cell(sessions[0])
    n_complete = 0
    for _ in range(50):
        trial_id = sessions[0].optuna_storage.create_new_trial(sessions[0].record.study_id)
        changes = in_threads(2, partial(count_changes, sessions, trial_id))
        assert sum(changes) == 1
        n_complete += changes[1]
    states = [trial.state for trial in sessions[0].optuna_storage.get_all_trials(sessions[0].record.study_id)]
    assert (states.count(TrialState.COMPLETE), states.count(TrialState.FAIL)) == (n_complete, 50 - n_complete)
    assert claim.attempt == 1


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
