"""One attempt with stub objectives: what an objective may do, what may go wrong in it, and what it leaves."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from one_attempt import BOOM, COMPLETE, attempt, boom, last_trial
from optuna.trial import TrialState
from small_study import (
    ON_SQLITE,
    cell_after,
    claim_cell,
    epoch_of,
    expire,
    make_spec,
    set_cell,
    stub_objective,
    value_of,
)

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.records import Timing, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import trial_seed
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.running_trial import RunningTrial

Sessions = Callable[..., Session]


# What goes wrong in the objective


def leave(_params: Mapping[str, Any], _seed: int, _running: RunningTrial) -> Outcome | None:
    sys.exit(3)


def test_an_exception_is_kept_and_the_cell_waits_again(session: Session) -> None:
    """In one line; the worker goes on."""
    claim = attempt(session, boom)
    trial = last_trial(session)
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "exception")
    assert trial.user_attrs["error"] == BOOM
    assert cell_after(session, claim) == (
        "waiting",
        None,
        None,
        1,
        0,
        BOOM,
    )


@ON_SQLITE
def test_an_exit_in_the_users_code_ends_the_attempt_only(session: Session) -> None:
    """The worker goes on after sys.exit in a callback."""
    attempt(session, leave)
    assert last_trial(session).user_attrs["error"].startswith("SystemExit: sys.exit(3) was called (test_attempt.py")


@ON_SQLITE
def test_the_same_exception_twice_fails_the_cell(session: Session) -> None:
    """And the next claim is another cell."""
    claim = attempt(session, boom)
    set_cell(session.storage, claim.cell_id, position=0)  # it would be behind the others
    assert attempt(session, boom).cell_id == claim.cell_id
    assert cell_after(session, claim) == ("failed", None, None, 2, 0, BOOM)
    assert claim_cell(session).cell_id != claim.cell_id


@ON_SQLITE
def test_an_exception_once_and_then_a_result_is_a_result(session: Session) -> None:
    """The failure stays counted, its error is gone."""
    set_cell(session.storage, attempt(session, boom).cell_id, position=0)
    claim = attempt(session, stub_objective)
    assert cell_after(session, claim) == ("done", "COMPLETE", value_of(claim.params), 1, 0, None)


@ON_SQLITE
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_result_that_is_no_number_is_a_failure(session: Session, value: float | None) -> None:
    """Never COMPLETE: inf would be the best trial of the study."""
    claim = attempt(session, lambda params, seed, running: Outcome(State.COMPLETE, value))
    assert last_trial(session).state == TrialState.FAIL
    assert cell_after(session, claim)[:4] == ("waiting", None, None, 1)


def test_a_training_that_diverges_is_pruned_without_a_value(session: Session) -> None:
    """NaN reported, reason "diverged": a result, never a failure, never a best trial."""

    def diverge(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        running.report(epoch_of(0, float("nan")), can_prune=False)
        running.note(TrialAttributes(reason="diverged"))
        return Outcome(State.PRUNED, reason="diverged")

    claim = attempt(session, diverge)
    trial = last_trial(session)
    assert (trial.state, trial.value, trial.user_attrs["reason"]) == (TrialState.PRUNED, None, "diverged")
    assert cell_after(session, claim) == ("done", "PRUNED", None, 0, 0, None)


@ON_SQLITE
def test_an_outage_beyond_the_patience_leaves_the_lease_to_end(session: Session) -> None:
    """The storage cannot be told anything, so nothing is told: somebody takes over later."""

    def away(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        raise StorageError("gone")

    with pytest.raises(StorageError):
        attempt(session, away)
    assert last_trial(session).state == TrialState.RUNNING
    assert session.history.counts().running == 1


# What an attempt leaves


def test_a_result_is_on_the_trial_in_the_cell_and_in_the_curve(session: Session) -> None:
    """With worker, attempt and seed; parameters with their types."""
    seeds: list[int] = []

    def objective(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        seeds.append(seed)
        return stub_objective(params, seed, running)

    claim = attempt(session, objective)
    trial, value = last_trial(session), value_of(claim.params)
    assert (trial.state, trial.value, trial.params) == (TrialState.COMPLETE, value, claim.params)
    assert [type(trial.params[name]) for name in ("hidden_size", "dropout_rate")] == [int, float]
    assert trial.intermediate_values == {0: value, 1: value}
    assert seeds == [trial_seed(0, claim.cell_id)]
    attributes = {name: trial.user_attrs[name] for name in ("worker", "attempt", "seed")}
    assert attributes == {"worker": "worker", "attempt": 1, "seed": seeds[0]}
    assert cell_after(session, claim) == ("done", "COMPLETE", value, 0, 0, None)
    assert session.history.curve(trial_id_of(trial)) == [epoch_of(0, value), epoch_of(1, value)]


MEDIAN = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0, "n_min_trials": 1}


@ON_SQLITE
@pytest.mark.parametrize(("can_prune", "result"), [(True, "PRUNED"), (False, "COMPLETE")])
def test_the_median_pruner_cuts_what_is_behind(new_session: Sessions, can_prune: bool, result: str) -> None:
    """The value of a pruned trial is its last report; a last epoch is not cut."""
    session = new_session("worker", spec=make_spec(name="pruned", pruner=MEDIAN))
    values = iter((0.9, 0.1))

    def objective(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        value = next(values)
        if not running.report(epoch_of(0, value), can_prune=can_prune):
            assert running.ending == "pruned"
            return Outcome(State.PRUNED, reason="pruned")
        return Outcome(State.COMPLETE, value)

    attempt(session, objective)
    claim = attempt(session, objective)
    assert cell_after(session, claim) == ("done", result, 0.1, 0, 0, None)


@ON_SQLITE
def test_the_lease_is_renewed_while_an_epoch_lasts(new_session: Sessions) -> None:
    """By the small thread, while the objective is silent."""
    session = new_session("worker", timing=Timing(30.0, renewal_seconds=0.02, poll_seconds=0.02, stall_seconds=60.0))

    def slow(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        expire(session.storage, running.claim.cell_id)
        deadline = time.monotonic() + 20.0
        while any(cell.is_expired for cell in session.ledger.held_cells()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return COMPLETE

    assert cell_after(session, attempt(session, slow))[0] == "done"


@ON_SQLITE
def test_a_training_that_hangs_is_renewed_no_more(new_session: Sessions) -> None:
    """Past the stall limit the cell is left to whoever takes it over."""
    session = new_session("worker", timing=Timing(30.0, renewal_seconds=0.02, poll_seconds=0.02, stall_seconds=0.05))

    def hang(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
        assert running._is_lost.wait(20)
        assert not running.report(epoch_of(0, 0.5))
        return None

    assert cell_after(session, attempt(session, hang)) == ("waiting", None, None, 0, 1, None)
