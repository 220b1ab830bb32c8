"""`--trial-timeout` bounds what an attempt trains in all its stretches, as a supervisor enforces it."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest
from small_study import ON_SQLITE, begin_trial, claim_cell, ladder_spec, set_cell

from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.attempt import decide_rung
from fmnist_optuna.work.launchers.local import WorkerProcess, launch_process
from fmnist_optuna.work.limits import Limits
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.running_trial import RunningTrial
from fmnist_optuna.work.supervisor import Supervisor

pytestmark = ON_SQLITE
RUNG = 2
EPOCHS = [Epoch(number, 1.0, 0.5, 1.0, 0.5, seconds=100.0) for number in range(RUNG)]
SECONDS = 200.0  # of all of them


@pytest.fixture
def session(new_session: Callable[..., Session]) -> Session:
    """At work on a study of one cell with rungs."""
    return new_session("worker", spec=ladder_spec(1))


@dataclass
class Watch:
    """A supervisor with one worker, whose process was never started."""

    session: Session
    trial_seconds: float

    def __post_init__(self) -> None:
        session = self.session
        order = WorkerOrder(session.storage.options, session.record.name, session.name, session.record.generation, None)
        self._worker = WorkerProcess(order, multiprocessing.Process(), None)
        limits = Limits(self.trial_seconds)
        self._supervisor = Supervisor(session, order, 1, limits, Path("logs"), launch_process, _workers=[self._worker])

    def look(self) -> str | None:
        """Why the worker is to be killed."""
        self._supervisor._enforce_limits()
        return self._worker.killed_for


def claim_again(session: Session) -> Claim:
    """Train the cell to its rung, and claim it once more."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    for epoch in EPOCHS:
        assert session.ledger.record_epoch(claim, trial_id, epoch) is not None
    assert session.ledger.park(claim, trial_id, RUNG)
    assert decide_rung(session)
    return claim_cell(session)


def hold_for(session: Session, claim: Claim, seconds: float) -> None:
    """Move a claim into the past, as if the time had passed."""
    set_cell(session.storage, claim.cell_id, claimed_at=session.storage.now - seconds)


def test_all_stretches_count_together(session: Session) -> None:
    """200 seconds before the rung and 60 after it are more than 250, and not more than 270."""
    claim = claim_again(session)
    strict, lenient = Watch(session, SECONDS + 50), Watch(session, SECONDS + 70)
    assert strict.look() is lenient.look() is None
    hold_for(session, claim, 60.0)
    assert strict.look() == "trial time limit of 250 s exceeded"
    assert lenient.look() is None


def test_an_epoch_of_this_stretch_counts_once(session: Session) -> None:
    """It is recorded and lies within the time since the claim; a supervisor that comes late takes it for no more."""
    claim = claim_again(session)
    watch = Watch(session, SECONDS + 150)
    assert watch.look() is None
    hold_for(session, claim, 110.0)
    assert session.ledger.record_epoch(claim, claim.trial_id or 0, replace(EPOCHS[0], epoch=RUNG)) is not None
    assert watch.look() is None
    assert Watch(session, SECONDS + 150).look() is None
    hold_for(session, claim, 160.0)
    assert watch.look() == "trial time limit of 350 s exceeded"


def test_what_an_earlier_attempt_trained_does_not_count(session: Session) -> None:
    """The next one goes on from its checkpoint with a limit of its own."""
    claim = claim_cell(session)
    trial = optuna.Trial(session.optuna_study, begin_trial(session, claim))
    running = RunningTrial(session.ledger, claim, trial, lambda: False, session.record.generation)
    assert running.keep(EPOCHS)
    watch = Watch(session, SECONDS - 50)
    assert watch.look() is None
    hold_for(session, claim, SECONDS - 60)
    assert watch.look() is None
    hold_for(session, claim, SECONDS - 40)
    assert watch.look() == "trial time limit of 150 s exceeded"


def test_a_stretch_alone_may_be_too_long(session: Session) -> None:
    """Of a trial that was deleted by hand as well."""
    claim = claim_again(session)
    watch = Watch(session, 50)
    hold_for(session, claim, 40)
    session.optuna_storage.delete_study(session.record.study_id)
    assert watch.look() == "trial time limit of 50 s exceeded"
