"""The list of workers: who is on it, which of them are dead, and from which hosts they may come."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from small_study import ON_SQLITE, begin_trial, cell_after
from sqlalchemy import Row, insert, select, update

from fmnist_optuna import __version__
from fmnist_optuna.errors import NotFoundError, StorageError
from fmnist_optuna.ledger.holders import Process, host_identity
from fmnist_optuna.ledger.tables import workers
from fmnist_optuna.study import deletion
from fmnist_optuna.study.session import Session

# Dead holders


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """A real process that plays a worker."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def register(session: Session, name: str, pid: int, started: float, host_id: str = "") -> None:
    """Enter a process on the list of workers, as it would itself."""
    with session.storage.write() as connection:
        connection.execute(
            insert(workers).values(
                worker_id=name,
                study_id=session.record.study_id,
                host="host",
                host_id=host_id or host_identity(),
                pid=pid,
                pid_started=started,
                version="0",
                started=session.storage.now,
                last_seen=session.storage.now,
            )
        )


HIDDEN = """
import os, subprocess
from fmnist_optuna.ledger.holders import Process
process = subprocess.Popen(["sleep", "60"])
seen = Process.of(process.pid)
os.setgroups([]), os.setgid(65534), os.setuid(65534)
assert not os.path.exists(f"/proc/{process.pid}")
gone = Process(seen.host_id, 4_000_000, seen.started)
print(seen.is_dead(), gone.is_dead())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts and changes the user")
def test_a_process_that_is_hidden_is_not_dead() -> None:
    """Where /proc is mounted with hidepid, as on many clusters, those of other users are not seen there."""
    hidden = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c"]
    script = 'mount -t proc -o hidepid=2 proc /proc && exec "$0" -c "$1"'
    done = subprocess.run([*hidden, script, sys.executable, HIDDEN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False True\n"), done.stderr


def test_no_worker_begins_in_a_study_that_is_gone(session: Session) -> None:
    """It may be deleted between the look at it and the entry of the worker."""
    deletion.delete_study(session.storage, session.record)
    with pytest.raises(NotFoundError, match="was deleted a moment ago"):
        session.presence.register("late", 60.0)


def test_a_cell_whose_holder_was_killed_here_waits_at_once(session: Session, holder: subprocess.Popen[bytes]) -> None:
    """Long before its lease ends; while the holder lives, its cell is its own."""
    register(session, "holder", holder.pid, process_of(holder).started)
    claim = session.ledger.claim("holder", session.record.generation)
    assert claim is not None
    begin_trial(session, claim)
    assert session.recovery.requeue_dead() == []
    os.kill(holder.pid, signal.SIGKILL)
    wait_for_zombie(holder.pid)
    assert session.recovery.requeue_dead() == ["holder"]  # a zombie is dead, though nobody has reaped it
    assert cell_after(session, claim) == ("waiting", None, None, 0, 1, None)


@ON_SQLITE
def test_a_worker_in_the_place_of_a_dead_one_takes_over(session: Session, holder: subprocess.Popen[bytes]) -> None:
    """An engine starts another worker at once; its entering leaves the dead one on the list until the cell is free."""
    register(session, "holder", holder.pid, process_of(holder).started)
    claim = session.ledger.claim("holder", session.record.generation)
    assert claim is not None
    os.kill(holder.pid, signal.SIGKILL)
    wait_for_zombie(holder.pid)
    session.presence.register("next", fresh_seconds=60.0)
    assert session.recovery.requeue_dead() == ["holder"]
    session.presence.register("next", fresh_seconds=60.0)
    assert set(session.presence.processes()) == {"next"}


def process_of(child: subprocess.Popen[bytes]) -> Process:
    found = Process.of(child.pid)
    assert found is not None
    return found


def wait_for_zombie(pid: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@ON_SQLITE
def test_a_reaped_holder_is_dead(session: Session, holder: subprocess.Popen[bytes]) -> None:
    """Its pid is gone."""
    process = process_of(holder)
    assert not process.is_dead()
    holder.kill()
    holder.wait()
    assert process.is_dead()


@ON_SQLITE
def test_a_pid_that_was_used_again_is_another_process(session: Session, holder: subprocess.Popen[bytes]) -> None:
    """The holder began at another time, so it is dead."""
    register(session, "holder", holder.pid, process_of(holder).started - 60.0)
    assert session.ledger.claim("holder", session.record.generation)
    assert session.recovery.requeue_dead() == ["holder"]


@ON_SQLITE
def test_nothing_is_known_of_a_process_on_another_host(session: Session) -> None:
    """Its pid means nothing here: only its lease tells."""
    register(session, "holder", 2**22 + 1, 0.0, host_id="another boot/pid:[1]")
    assert session.ledger.claim("holder", session.record.generation)
    assert session.recovery.requeue_dead() == []


# Presence


def test_a_second_host_may_not_use_an_sqlite_file(session: Session) -> None:
    """Its locks do not hold across machines; Postgres is for several."""
    register(session, "far", 1, 0.0, host_id="another boot/pid:[1]")
    if session.storage.is_sqlite:
        with pytest.raises(StorageError, match="SQLite must be used from one host, but a worker on host uses"):
            session.presence.register("near", fresh_seconds=60.0)
    else:
        session.presence.register("near", fresh_seconds=60.0)
        assert set(session.presence.processes()) == {"far", "near"}


def test_a_host_that_has_not_been_seen_for_long_is_gone(session: Session) -> None:
    """A file that was copied here brings old workers with it."""
    register(session, "far", 1, 0.0, host_id="another boot/pid:[1]")
    with session.storage.write() as connection:
        connection.execute(update(workers).values(last_seen=session.storage.now - 61.0))
    session.presence.register("near", fresh_seconds=60.0)
    assert set(session.presence.processes()) == {"near"}


def test_a_reboot_is_no_second_host(session: Session) -> None:
    """The same host under another boot: its workers are dead, however lately they were seen."""
    register(session, "before", 1, 0.0, host_id="another boot/pid:[1]")
    with session.storage.write() as connection:
        connection.execute(update(workers).values(host=socket.gethostname()))
    session.presence.register("after", fresh_seconds=60.0)
    assert "after" in session.presence.processes()


def test_a_worker_is_on_the_list_until_it_leaves(session: Session) -> None:
    """As this very process; registering again is no second row."""
    for _ in range(2):
        session.presence.register("near", fresh_seconds=60.0, device="CPU")
    assert session.presence.processes() == {"near": Process.current()}
    assert not Process.current().is_dead()
    (row,) = session.history.workers()
    assert (row.worker_id, row.pid, row.version, row.device) == ("near", os.getpid(), __version__, "CPU")
    assert 0.0 <= row.seconds_since_seen <= row.seconds_since_start < 60.0
    session.presence.leave("near")
    assert session.presence.processes() == {}


def rows_of(session: Session) -> dict[str, Row[Any]]:
    """The list of workers, by name."""
    with session.storage.read() as connection:
        return {row.worker_id: row for row in connection.execute(select(workers))}


def fall_silent(session: Session) -> None:
    """Let all workers have been seen for the last time longer than a lease ago, as after an outage."""
    with session.storage.write() as connection:
        connection.execute(update(workers).values(last_seen=session.storage.now - 61.0))


def test_a_living_worker_comes_back_to_the_list(session: Session) -> None:
    """After a silence it was gone to one that entered; it says that it is there, and all else as before."""
    session.presence.register("idle", fresh_seconds=60.0, device="CPU")
    before = rows_of(session)["idle"]
    fall_silent(session)
    session.presence.register("new", fresh_seconds=60.0)
    assert set(rows_of(session)) == {"new"}
    session.presence.touch("idle")
    after = rows_of(session)["idle"]
    assert after._asdict() | {"last_seen": before.last_seen} == before._asdict()
    assert after.last_seen >= before.last_seen
    assert [row.worker_id for row in session.history.workers()] == ["idle", "new"]


@ON_SQLITE
def test_a_worker_that_left_does_not_come_back(session: Session) -> None:
    """A thread of its own may still say that it is there; nor does one come back that never entered."""
    session.presence.register("left", fresh_seconds=60.0)
    session.presence.leave("left")
    for name in ("left", "never"):
        session.presence.touch(name)
    assert rows_of(session) == {}


def test_a_study_goes_though_a_worker_comes_back(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says that it is there amid the deletion keeps nothing of the study, and after it brings nothing back."""
    session.presence.register("there", fresh_seconds=60.0)
    delete_in_optuna = deletion._delete_in_optuna
    came_back: list[str] = []

    def delete_meanwhile(*of: Any) -> None:
        session.presence.touch("there")
        came_back.extend(rows_of(session))
        delete_in_optuna(*of)

    monkeypatch.setattr(deletion, "_delete_in_optuna", delete_meanwhile)
    deletion.delete_study(session.storage, session.record)
    assert came_back == ["there"]
    session.presence.touch("there")
    assert (rows_of(session), session.ledger.generation()) == ({}, None)
