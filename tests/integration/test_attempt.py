"""One attempt and a worker's loop with stub objectives: what an objective may do, and what may happen meanwhile."""

import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest
from optuna.samplers import GridSampler
from optuna.trial import FrozenTrial, TrialState
from small_study import (
    GRID,
    LOST,
    N_CELLS,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    epoch_of,
    expire,
    finish_everything,
    in_processes,
    make_spec,
    open_session,
    read_cell,
    set_cell,
    stub_objective,
    value_of,
)

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.records import Claim, HeldCell, Timing, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import Grid, make_points, trial_seed
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import raise_generation
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.attempt import Objective, run_attempt
from fmnist_optuna.work.loop import WAIT_SLICE_SECONDS, LeaveRequest, WorkerEnd, work
from fmnist_optuna.work.running_trial import LostCellError, RunningTrial

Sessions = Callable[..., Session]
COMPLETE = Outcome(State.COMPLETE, 0.5)


def attempt(session: Session, objective: Objective, must_stop: Callable[[], bool] = lambda: False) -> Claim:
    """Claim the next cell and carry the claim through."""
    claim = claim_cell(session)
    run_attempt(session, claim, objective, must_stop, session.record.generation)
    return claim


def cell_after(session: Session, claim: Claim) -> tuple[Any, ...]:
    row = read_cell(session.storage, claim.cell_id)
    return (row.state, row.result, row.value, row.failures, row.lost, row.error)


def last_trial(session: Session) -> FrozenTrial:
    return session.optuna_storage.get_all_trials(session.record.study_id)[-1]


def requeue_all(session: Session) -> None:
    """What a healer does that takes every holder to be dead."""
    for cell in session.ledger.held_cells():
        assert session.recovery.requeue(cell, LOST)


# What goes wrong in the objective


def boom(_params: Mapping[str, Any], _seed: int, _running: RunningTrial) -> Outcome | None:
    raise ValueError("bad value\nand more")


BOOM = f"ValueError: bad value and more (test_attempt.py, line {boom.__code__.co_firstlineno + 1})"


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


# What somebody else does meanwhile


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
        if end == "report":
            assert not running.report(epoch_of(0, 0.5))
            return None
        if end == "note":
            running.note(TrialAttributes(best_epoch=1))
        if end == "exception":
            raise ValueError("bad")
        return COMPLETE

    attempt(session, delete)


def test_a_study_deleted_after_the_claim_ends_the_attempt(session: Session) -> None:
    """Between the claim and its first statement."""
    claim = claim_cell(session)
    assert session.optuna_study.study_name == session.record.name
    delete_study(session.storage, session.record)
    run_attempt(session, claim, boom, lambda: False, session.record.generation)


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


# The loop


def test_a_worker_works_until_nothing_is_left(session: Session) -> None:
    """Every cell, then it leaves the list of workers."""
    session.presence.register("worker", fresh_seconds=60.0)
    assert work(session, stub_objective, LeaveRequest(), session.record.generation) is WorkerEnd.DONE
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok
    assert session.presence.processes() == {}


def test_a_worker_waits_for_the_cell_of_another(session: Session, new_session: Sessions) -> None:
    """It does not leave while anything runs: the other may die."""
    other = new_session("other")
    claim = claim_cell(other)
    trial_id = begin_trial(other, claim)
    ends: list[WorkerEnd] = []
    thread = threading.Thread(
        target=lambda: ends.append(work(session, stub_objective, LeaveRequest(), session.record.generation))
    )
    thread.start()
    deadline = time.monotonic() + 20.0
    while other.history.counts().done < N_CELLS - 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert thread.is_alive()
    other.recovery.requeue_worker("other", LOST)
    thread.join(20.0)
    assert ends == [WorkerEnd.DONE]
    assert other.optuna_storage.get_trial(trial_id).state == TrialState.FAIL
    assert verify(other.storage, other.optuna_storage, other.record.study_id).ok


@ON_SQLITE
def test_a_worker_sweeps_before_it_leaves(session: Session, new_session: Sessions) -> None:
    """A trial that somebody created and never bound is failed by the last one."""
    other = new_session("other")
    claim = claim_cell(other)
    begin_trial(other, claim)
    requeue_all(session)
    from small_study import create_trial

    orphan, _ = create_trial(other, claim)
    assert work(session, stub_objective, LeaveRequest(), session.record.generation) is WorkerEnd.DONE
    assert session.optuna_storage.get_trial(orphan).state == TrialState.FAIL


@ON_SQLITE
@pytest.mark.parametrize("by", ["stop", "leave"])
def test_a_worker_that_is_told_to_leave_leaves(session: Session, by: str) -> None:
    """At once, with no cell in its hands."""
    leave, generation = LeaveRequest(), session.record.generation
    if by == "stop":
        raise_generation(session.storage, session.record.study_id)
    else:
        leave.set()
    assert work(session, boom, leave, generation) is WorkerEnd.STOPPED
    assert session.history.counts().waiting == N_CELLS


@ON_SQLITE
def test_a_worker_rests_while_another_is_claiming_the_last_cell(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres skips a row that is locked: its cell waits, and yet nobody gets it. Ten looks a second, no more."""
    leave, looks = LeaveRequest(), []

    def claim(*_: object) -> None:
        looks.append(time.monotonic())
        if len(looks) == 4:
            leave.set()

    monkeypatch.setattr(session.ledger, "claim", claim)
    assert work(session, boom, leave, session.record.generation) is WorkerEnd.STOPPED
    assert min(later - earlier for earlier, later in itertools.pairwise(looks)) >= WAIT_SLICE_SECONDS


@ON_SQLITE
def test_a_worker_that_grew_too_large_leaves_between_cells(session: Session) -> None:
    """Its place is taken by a fresh process; the finished cell is done."""
    end = work(session, stub_objective, LeaveRequest(), session.record.generation, memory_limit_bytes=1)
    assert end is WorkerEnd.RECYCLED
    counts = session.history.counts()
    assert (counts.waiting, counts.running, counts.done, counts.failed) == (N_CELLS - 1, 0, 1, 0)


WIDE: Grid = {"hidden_size": [16, 32, 64, 128], "dropout_rate": [0.0, 0.25, 0.5]}


def work_on(number: int, url: str, generation: int) -> str:
    """Body of a worker process."""
    session = open_session(url, f"w{number}")
    session.presence.register(f"w{number}", fresh_seconds=60.0)
    return work(session, stub_objective, LeaveRequest(), generation).value


def test_four_processes_finish_a_grid_and_stock_optuna_reads_it(storage_url: str, new_session: Sessions) -> None:
    """Each of the 12 cells once; GridSampler finds the grid exhausted and the same best trial."""
    session = new_session("reader", spec=make_spec(WIDE))
    ends = in_processes(4, work_on, storage_url, session.record.generation)
    assert ends == ["done"] * 4
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    assert (found.ok, found.n_results) == (True, len(make_points(WIDE)))
    sampler = GridSampler(WIDE)
    study = optuna.load_study(study_name=session.record.name, storage=storage_url, sampler=sampler)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 12
    assert sampler.is_exhausted(study)
    best = session.history.best()
    assert best is not None
    assert (study.best_trial.number, study.best_value, study.best_params) == (
        best.trial_number,
        best.val_accuracy,
        best.params,
    )
    assert best.params == {"hidden_size": 128, "dropout_rate": 0.5}
    assert {(type(t.params["hidden_size"]), type(t.params["dropout_rate"])) for t in study.trials} == {(int, float)}
    assert {trial.value for trial in study.trials} == {value_of(cell.params) for cell in make_points(WIDE)}


def test_stock_optuna_adds_nothing_to_a_finished_study(session: Session, storage_url: str) -> None:
    """`optimize` with the same grid stops after the trial that finds it exhausted, which counts for nothing."""
    work(session, stub_objective, LeaveRequest(), session.record.generation)
    study = optuna.load_study(study_name=session.record.name, storage=storage_url, sampler=GridSampler(GRID))
    study.optimize(lambda trial: 0.0, n_trials=1)
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    assert (found.ok, found.n_results, found.n_surplus, found.n_foreign) == (True, N_CELLS, 0, 1)
