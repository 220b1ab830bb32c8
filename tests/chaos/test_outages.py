"""Outages of the database and full disks, under the real commands and under stubs: who waits them out loses nothing."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from commands import (
    N_EPOCHS,
    NAME,
    Site,
    assert_ended,
    assert_gone,
    create_database,
    load_all_weights,
    prove,
    wait_until,
)  # fmt: skip
from disks import REFUSAL, small_disk
from postgres_server import SERVER_PASSWORD, PostgresServer
from shell import TIMEOUT_SECONDS, Answer
from small_study import claim_cell
from sqlalchemy import select
from stubs import Stubs, freeze_in_transaction
from victims import work_until_done

from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.tables import cells

pytestmark = pytest.mark.chaos

Tally = Callable[..., None]
Sites = Callable[..., Site]
OUTAGE_SECONDS = 10.0  # longer than a lease of 6 s and two looks at it
N_STUB_CELLS = 150
N_LOCKS = 3  # without the protection each costs the cell every other time


def warnings_of_outages(site: Site, operation: str = "") -> list[int]:
    """How often each worker's log says that something is awaited."""
    return [log.count(f"storage_outage operation={operation}") for log in site.logs().values()]


def test_a_run_waits_for_locks_and_full_disks_sqlite(new_site: Sites, tally: Tally, tmp_path: Path) -> None:
    """A lock held for longer than timeout and lease, a full temporary folder, full artifacts: no attempt is lost."""
    with ExitStack() as stack:
        temporary = stack.enter_context(small_disk(tmp_path / "t"))
        variables = {"TMPDIR": str(temporary.folder)}
        site = new_site("sqlite", n_cells=4, lease=6, variables=variables, callbacks=temporary.callbacks)
        site.shell.write("refusal.py", REFUSAL)
        artifacts = stack.enter_context(small_disk(site.artifacts))
        with site.run() as run:
            site.wait_for(N_EPOCHS, 2)
            temporary.fill()
            lock_for(site, OUTAGE_SECONDS)
            wait_until(lambda: min(warnings_of_outages(site, "save_weights")) == 1, "two that wait")
            artifacts.fill()
            temporary.free()
            wait_until(lambda: min(warnings_of_outages(site, "store_weights")) == 1, "two that wait")
            assert list(site.artifacts.glob(".*.part")) == []
            artifacts.free()
            site.pace(0.0)
            assert_ended(run.wait(), run)
        assert site.claims() == [1, 1, 1, 1]
        assert warnings_of_outages(site, "save_weights") == warnings_of_outages(site, "store_weights") == [1, 1]
        assert max(warnings_of_outages(site)) <= 4  # the lock is met by the training and by the small thread
        assert load_all_weights(site) == {"loaded": 4, "stray": []}
        prove(site, tally, outages=3)


def lock_for(site: Site, seconds: float) -> None:
    """Hold SQLite's write lock while epochs end and leases run out."""
    site.pace(1.0)
    hold_lock(site.shell.database, seconds)


def hold_lock(database: Path, seconds: float) -> None:
    """Be the only writer for so long, as a backup may be."""
    connection = sqlite3.connect(database, timeout=5.0, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    connection.close()


def stopped_for(server: PostgresServer, seconds: float, while_away: Callable[[], object] = lambda: None) -> None:
    """Stop a server at once, as `pg_ctl stop -m immediate`, and start it again."""
    back = time.monotonic() + seconds
    server.stop()
    while_away()
    time.sleep(max(0.0, back - time.monotonic()))
    server.start()


def standing_by_for(server: PostgresServer, seconds: float, while_away: Callable[[], object]) -> None:
    """Let the address of a server lead to a standby, which only reads, and promote that in the end."""
    server.become_standby()
    while_away()
    time.sleep(seconds)
    server.promote()


Away = Callable[[PostgresServer, float, Callable[[], object]], None]


def run_through(site: Site, server: PostgresServer, away: Away) -> None:
    """A whole run whose server is away in mid-study for longer than a lease: no attempt is lost."""
    with site.run() as run:
        site.wait_for(N_EPOCHS, 2)
        away(server, OUTAGE_SECONDS, lambda: site.pace(0.5))
        site.pace(0.0)
        assert_ended(run.wait(), run)
    assert site.claims() == [1, 1, 1, 1]


def test_a_run_waits_for_a_server_that_was_stopped_postgres(
    new_site: Sites, server: PostgresServer, tally: Tally
) -> None:
    """At once; no log is flooded."""
    site = new_site("postgres", n_cells=4, lease=6)
    run_through(site, server, stopped_for)
    assert {count <= 2 for count in warnings_of_outages(site)} == {True}  # the training's and the small thread's
    assert sum(warnings_of_outages(site)) >= 2  # both workers met it
    prove(site, tally, outages=1)


def test_a_run_waits_for_a_standby_to_be_promoted_postgres(
    new_site: Sites, server: PostgresServer, tally: Tally
) -> None:
    """As in a failover, when reads succeed and every write is refused."""
    site = new_site("postgres", n_cells=4, lease=6)
    run_through(site, server, standing_by_for)
    assert any("read-only transaction" in log for log in site.logs().values())
    prove(site, tally, outages=1)


def test_commands_give_up_after_their_patience_postgres(new_site: Sites, server: PostgresServer, tally: Tally) -> None:
    """Exit 5 with one line that shows no password, no process is left; a dead worker's cell is taken over at once."""
    lease = 600.0  # far longer than a run takes on a busy machine
    site = new_site("postgres", n_cells=3, lease=lease)
    site.create()
    patience = ("--storage-patience", "2s")
    with (
        site.run("--workers", "1", *patience) as run,
        site.shell.start_cold("worker", NAME, *patience) as worker,
    ):
        site.wait_for(N_EPOCHS, 2)
        answers: list[Answer] = []

        def give_up() -> None:
            site.pace(0.0)
            answers.extend(command.wait() for command in (run, worker))

        stopped_for(server, 0.0, give_up)
        for answer, command in zip(answers, (run, worker), strict=True):
            assert (answer.code, len(answer.errors)) == (5, 1), answer.stderr
            assert "Traceback" not in answer.stderr
            assert SERVER_PASSWORD not in answer.stdout + answer.stderr
            assert_gone(command)
    assert site.holders() == []
    began = time.monotonic()
    assert_ended(site.shell("run", "study.toml", "--workers", "2"))
    assert time.monotonic() - began < lease
    assert site.claims() == [1, 2, 2]
    prove(site, tally, outages=1)


def test_five_restarts_of_the_server_in_a_row_postgres(server: PostgresServer, tally: Tally) -> None:
    """Commits are cut in the middle, so that nobody knows whether they happened: every cell has one result."""
    timing = Timing(lease_seconds=30.0, renewal_seconds=5.0, poll_seconds=0.05, stall_seconds=60.0)
    with Stubs(create_database(server.url), N_STUB_CELLS, timing) as stubs:
        workers = [stubs.start(work_until_done, f"worker-{number}", 0.02) for number in range(4)]
        for number in range(5):
            wait_until(lambda least=5 * number + 5: stubs.n_done >= least, "five more cells")  # type: ignore[misc]
            stopped_for(server, 0.1 * number)
        assert stubs.n_done < N_STUB_CELLS, "the restarts must end before the study does"
        for worker in workers:
            worker.join(TIMEOUT_SECONDS)
        assert [worker.exitcode for worker in workers] == [0] * 4
        stubs.prove(tally, outages=5)


def test_a_worker_frozen_midway_holds_up_nobody_postgres(server: PostgresServer, tally: Tally) -> None:
    """The server ends a transaction that rests for a lease, and with it its locks; woken, the worker is fenced."""
    timing = Timing.for_lease(3.0)
    with Stubs(create_database(server.url), 3, timing) as stubs:
        frozen = stubs.start(freeze_in_transaction, "frozen")
        zombie = psutil.Process(frozen.pid)
        wait_until(lambda: zombie.status() == psutil.STATUS_STOPPED, "the stop")
        with stubs.session.storage.write() as connection:  # its cell is locked
            free = select(cells.c.cell_id).with_for_update(skip_locked=True)
            assert len(connection.execute(free).all()) == 2
        other = stubs.start(work_until_done, "other", 0.0)
        other.join(5 * timing.lease_seconds)
        assert other.exitcode == 0
        zombie.resume()
        frozen.join(TIMEOUT_SECONDS)
        assert frozen.exitcode == 0
        assert stubs.claims == [1, 1, 2]
        stubs.prove(tally, stalls=1)


def test_nobody_takes_a_cell_whose_holder_met_a_lock_sqlite(sqlite_url: str, tmp_path: Path, tally: Tally) -> None:
    """A lock longer than a lease holds up renewals but no reader: who looks for dead holders must wait too."""
    timing = Timing.for_lease(1.5)
    done, taken = threading.Event(), []
    with Stubs(sqlite_url, 1, timing) as holder, Stubs(sqlite_url, 1, timing) as healer:
        claim = claim_cell(holder.session)

        def renew() -> None:
            while not done.wait(timing.renewal_seconds) and holder.session.ledger.renew(claim):
                pass

        def heal() -> None:
            while not done.wait(timing.poll_seconds):
                taken.extend(healer.session.recovery.requeue_dead())

        threads = [threading.Thread(target=target) for target in (renew, heal)]
        for thread in threads:
            thread.start()
        for _ in range(N_LOCKS):
            hold_lock(tmp_path / "studies.db", 2 * timing.lease_seconds)
            time.sleep(timing.lease_seconds)
        done.set()
        for thread in threads:
            thread.join()
        assert (taken, holder.claims) == ([], [1])
    tally(outages=N_LOCKS, cells=1)


def test_a_second_opening_keeps_the_locks_of_the_first_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    """Without them the next process to close the file takes itself for the last one and removes the log in use."""
    first, second = open_storage(StorageOptions(sqlite_url)), open_storage(StorageOptions(sqlite_url))
    with second.write() as connection:
        connection.execute(cells.delete())
    code = "import sqlite3; c = sqlite3.connect('studies.db'); c.execute('BEGIN IMMEDIATE'); c.close()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "studies.db-wal").exists()
    first.close()
    second.close()
