"""Whoever meets a storage that refuses or is away is not to blame: the cell waits again, and nothing counts."""

import errno
import io
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from one_attempt import attempt, last_trial
from small_study import ON_SQLITE, POSTGRES_MORE, begin_trial, cell_after, claim_cell, read_cell
from sqlalchemy.exc import OperationalError

from fmnist_optuna.artifacts.refusal import writing_to
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.errors import ArtifactsAwayError, ArtifactsError, StorageError
from fmnist_optuna.ledger.holders import Process
from fmnist_optuna.ledger.outages import Patience
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.running.training import _supervise_to_the_end
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.launchers.local import WorkerProcess, launch_process
from fmnist_optuna.work.limits import Limits
from fmnist_optuna.work.order import WORKER_FAILED, WorkerOrder
from fmnist_optuna.work.running_trial import RunningTrial
from fmnist_optuna.work.supervisor import Supervisor

pytestmark = pytest.mark.more

Sessions = Callable[..., Session]
WAITS = ("waiting", None, None, 0, 0, None)  # with nothing counted
CHILDREN = multiprocessing.get_context("spawn")


def refuse(error: Exception) -> Callable[..., Outcome | None]:
    """An objective whose weights cannot be stored."""

    def objective(_params: Mapping[str, Any], _seed: int, _running: RunningTrial) -> Outcome | None:
        def store_weights() -> None:
            raise error

        Patience(0.0).call(store_weights, "store_weights")
        return None

    return objective


# An attempt


@POSTGRES_MORE
@pytest.mark.parametrize(
    "error",
    [
        ArtifactsError("The artifacts' place must let this machine write, but it answers ExpiredToken (400)."),
        ArtifactsAwayError("The artifacts' place must be reached, but nothing answers."),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=["refuses", "is away", "is full"],
)
def test_a_cell_whose_weights_are_not_taken_waits(session: Session, error: Exception) -> None:
    """At once, at its place, and the attempt has stopped; the worker ends with what the place said."""
    first = claim_cell(session)
    assert session.ledger.give_back(first.cell_id, first.token, count_lost=False)
    before = read_cell(session.storage, first.cell_id).position
    with pytest.raises(StorageError):
        attempt(session, refuse(error))
    assert cell_after(session, first) == WAITS
    assert read_cell(session.storage, first.cell_id).position == before
    trial = last_trial(session)
    assert (trial.state.name, trial.user_attrs["reason"]) == ("FAIL", "stopped")
    assert "error" not in trial.user_attrs
    assert claim_cell(session).cell_id == first.cell_id


@ON_SQLITE
def test_a_folder_that_takes_nothing_is_a_refusal(session: Session) -> None:
    """As that of a bucket, for weights and for checkpoints; a full disk is waited for, and what was removed is made."""
    folder = session.storage.artifacts
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_bytes(b"no folder")
    says = f"The folder of the artifacts, {folder}"

    def store_weights(_params: Mapping[str, Any], _seed: int, _running: RunningTrial) -> Outcome | None:
        session.store.write("weights", io.BytesIO(b"weights"))
        return None

    claim = claim_cell(session)
    assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=False)
    with pytest.raises(ArtifactsError, match=re.escape(f"{says}, must let this machine write, but: File exists; mend")):
        attempt(session, store_weights)
    assert cell_after(session, claim) == WAITS
    with pytest.raises(ArtifactsError, match=re.escape(says)), session.checkpoints.written("cell"):
        pytest.fail("its folder cannot be made")
    for error in (OSError(errno.ENOSPC, "full"), FileNotFoundError(errno.ENOENT, "removed")):
        with pytest.raises(type(error), match=str(error.strerror)), writing_to(folder):
            raise error


@ON_SQLITE
def test_a_database_that_is_away_is_asked_nothing_more(session: Session) -> None:
    """Its outage lasted longer than the patience: nothing is told, and the lease ends by itself."""
    with pytest.raises(StorageError):
        attempt(session, refuse(OperationalError("SELECT 1", {}, Exception("connection refused"))))
    assert last_trial(session).state.name == "RUNNING"
    assert session.history.counts().running == 1


@ON_SQLITE
def test_what_the_place_said_outlives_a_second_failure(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database goes as well before the cell is given back: the first error is the one that counts."""

    def away(*_: object) -> None:
        raise StorageError("the database is away")

    monkeypatch.setattr("fmnist_optuna.work.attempt.fail_trial", away)
    with pytest.raises(ArtifactsError, match="ExpiredToken"):
        attempt(session, refuse(ArtifactsError("it answers ExpiredToken")))


@ON_SQLITE
def test_a_block_of_patience_goes_back_to_that_around(session: Session) -> None:
    """Whoever gives up in the outer block gives up in the inner one, and still does after it."""
    patience = session.storage.patience
    with session.storage.giving_up_when(lambda: True):
        with session.storage.giving_up_when(lambda: False):
            assert patience.is_over()
        assert patience.is_over()
    assert not patience.is_over()


# A supervisor


def be_worker(status: int | None) -> None:
    """End with a status, or wait to be ended."""
    if status is not None:
        sys.exit(status)
    time.sleep(60.0)


def start_worker(session: Session, name: str, status: int | None, log_file: Path) -> WorkerProcess:
    """A process that holds a cell under the name of a worker."""
    claim = session.ledger.claim(name, session.record.generation)
    assert claim is not None
    begin_trial(session, claim)
    order = WorkerOrder(session.storage.options, session.record.name, name, session.record.generation, None)
    process = CHILDREN.Process(target=be_worker, args=[status])
    process.start()
    assert process.pid is not None
    return WorkerProcess(replace(order, log_file=log_file), process, Process.of(process.pid))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Of a worker that something broke."""
    file = tmp_path / "worker.log"
    file.write_text(f'ERROR {WORKER_FAILED} error="The storage must answer, but renew failed for 300 s"\n')
    return file


def supervise(session: Session, *workers: WorkerProcess) -> Supervisor:
    folder = workers[0].order.log_file
    assert folder is not None
    return Supervisor(
        session, workers[0].order, len(workers), Limits(), folder.parent, launch_process, _workers=[*workers]
    )


@ON_SQLITE
@pytest.mark.parametrize(("says_why", "reason", "n_lost"), [(True, "stopped", 0), (False, "killed", 1)])
def test_a_worker_whose_storage_was_away_is_not_killed(
    session: Session, log: Path, says_why: bool, reason: str, n_lost: int
) -> None:
    """It ended with 5 and its log says why; an exit with 5 of the user's own code is a kill as any other."""
    if not says_why:
        log.write_text("")
    worker = start_worker(session, "worker", 5, log)
    (held,) = session.ledger.held_cells("worker")
    worker.process.join()
    supervisor = supervise(session, worker)
    if says_why:
        with pytest.raises(StorageError, match=r"worker worker cannot work: .*The storage must answer"):
            supervisor._reap()
    else:
        supervisor._reap()
    row = read_cell(session.storage, held.cell_id)
    assert (row.state, row.lost, last_trial(session).user_attrs["reason"]) == ("waiting", n_lost, reason)


@ON_SQLITE
def test_the_others_give_their_cells_back_as_well(session: Session, log: Path) -> None:
    """The database answers, so nobody's cell is left for a later run to take for that of a killed worker."""
    broken, other = start_worker(session, "broken", 5, log), start_worker(session, "other", None, log)
    broken.process.join()
    held = session.ledger.held_cells()
    with pytest.raises(StorageError, match="worker broken cannot work"):
        _supervise_to_the_end(supervise(session, broken, other), Observer(), [], None)
    assert not other.is_alive
    trials = session.optuna_storage.get_all_trials(session.record.study_id)
    assert [(trial.state.name, trial.user_attrs["reason"]) for trial in trials] == [("FAIL", "stopped")] * 2
    rows = [read_cell(session.storage, cell.cell_id) for cell in held]
    assert [(row.state, row.lost) for row in rows] == [("waiting", 0)] * 2
