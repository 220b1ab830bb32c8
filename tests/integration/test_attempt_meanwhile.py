"""What somebody else does during an attempt: a healer, a stop, a deletion of the study."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from one_attempt import COMPLETE, attempt, boom, last_trial, requeue_all
from optuna.trial import TrialState
from small_study import (
    LOST,
    ON_SQLITE,
    begin_trial,
    cell_after,
    claim_cell,
    create_study,
    epoch_of,
    finish_everything,
)

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.records import Claim, HeldCell, TrialAttributes
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import raise_generation
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.attempt import run_attempt
from fmnist_optuna.work.running_trial import LostCellError, RunningTrial

Sessions = Callable[..., Session]


def test_a_healer_leaves_a_trial_that_was_bound_since_it_looked(session: Session, new_session: Sessions) -> None:
    """An objective that reports no epoch meets no check after its bind; its result is the only one."""
    healer = new_session("healer")
    seen: list[HeldCell] = []

    def end_at_once(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        assert not healer.recovery.requeue(seen[0], LOST)
        return COMPLETE

    claim = claim_cell(session)
    seen += healer.ledger.held_cells()
    run_attempt(session, claim, end_at_once, lambda: False, session.record.generation)
    finish_everything(session)
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok


@pytest.mark.parametrize("end", ["report", "note", "result", "exception"])
def test_a_cell_lost_in_the_middle_is_dropped_quietly(
    session: Session, new_session: Sessions, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    """Whatever the objective still does, the trial stays FAIL and the cell is the healer's."""
    healer = new_session("healer")

    def lose(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        assert running.report(epoch_of(0, 0.5))
        requeue_all(healer)
        if end == "report":
            assert not running.report(epoch_of(1, 0.5))
            assert running.ending == "lost"
            return None
        if end == "note":
            running.note(TrialAttributes(best_epoch=1))
        if end == "exception":
            raise LostCellError
        return COMPLETE

    with caplog.at_level(logging.ERROR):
        claim = attempt(session, lose)
    assert caplog.records == []
    assert last_trial(session).state == TrialState.FAIL
    assert cell_after(session, claim) == ("waiting", None, None, 0, 1, None)
    finish_everything(session)
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok


def test_a_result_told_after_the_take_over_is_copied(session: Session, new_session: Sessions) -> None:
    """The worker's token is gone, but its trial is COMPLETE: that is the result of the cell."""
    healer = new_session("healer")

    def lose(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        (cell,) = healer.ledger.held_cells()
        assert healer.ledger.take_over(cell, "healer", "2" * 32)
        return COMPLETE

    claim = attempt(session, lose)
    assert cell_after(session, claim)[0] == "running"
    requeue_all(healer)
    assert cell_after(session, claim) == ("done", "COMPLETE", 0.5, 0, 0, None)


def test_a_claim_lost_before_its_bind_trains_nothing(session: Session, new_session: Sessions) -> None:
    """The trial is failed; the objective is never called."""
    claim = claim_cell(session)
    requeue_all(new_session("healer"))
    run_attempt(session, claim, boom, lambda: False, session.record.generation)
    trial = last_trial(session)
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "lost")
    assert cell_after(session, claim) == ("waiting", None, None, 0, 1, None)


@ON_SQLITE
@pytest.mark.parametrize("by", ["stop", "signal"])
def test_a_stop_gives_the_cell_back_and_counts_nothing(session: Session, by: str) -> None:
    """After the epoch, with reason "stopped"."""
    asked = threading.Event()

    def stopped(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        assert running.report(epoch_of(0, 0.5))
        if by == "stop":
            raise_generation(session.storage, session.record.study_id)
        else:
            asked.set()
        assert not running.report(epoch_of(1, 0.6))
        return None

    claim = attempt(session, stopped, asked.is_set)
    trial = last_trial(session)
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "stopped")
    assert cell_after(session, claim) == ("waiting", None, None, 0, 0, None)
    assert [epoch.val_accuracy for epoch in session.history.curve(trial_id_of(trial))] == [0.5, 0.6]


@pytest.mark.parametrize("end", ["report", "note", "result", "exception"])
def test_a_study_deleted_in_the_middle_ends_the_attempt_quietly(session: Session, end: str) -> None:
    """There is nothing left to tell, and nobody to tell it."""

    def delete(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        delete_study(session.storage, session.record)
        return go_on(running, end)

    attempt(session, delete)


def go_on(running: RunningTrial, end: str) -> Outcome | None:
    """What an objective still does that knows of nothing."""
    if end == "report":
        assert not running.report(epoch_of(0, 0.5))
        return None
    if end == "note":
        running.note(TrialAttributes(best_epoch=1))
    if end == "exception":
        raise ValueError("bad")
    return COMPLETE


@ON_SQLITE
@pytest.mark.parametrize("end", ["report", "note", "result", "exception"])
def test_a_study_made_anew_has_its_trials_for_itself(session: Session, end: str) -> None:
    """SQLite gives them the ids of the deleted ones, which a late attempt neither fails, nor tells, nor writes to."""
    claims: list[Claim] = []

    def make_anew(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        delete_study(session.storage, session.record)
        anew = Session(session.storage, create_study(session.storage), "another")
        claims.append(claim_cell(anew))
        assert begin_trial(anew, claims[0]) == trial_id_of(running.trial)
        return go_on(running, end)

    attempt(session, make_anew)
    trial = last_trial(session)
    assert (trial.state, trial.values) == (TrialState.RUNNING, None)
    assert not {"best_epoch", "reason", "error"} & trial.user_attrs.keys()
    assert session.ledger.renew(claims[0])


def test_a_study_deleted_after_the_claim_ends_the_attempt(session: Session) -> None:
    """Between the claim and its first statement."""
    claim = claim_cell(session)
    assert session.optuna_study.study_name == session.record.name
    delete_study(session.storage, session.record)
    run_attempt(session, claim, boom, lambda: False, session.record.generation)
