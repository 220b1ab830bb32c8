"""What an attempt makes of its cell in the ledger, one contract over both databases: a result, a failure, a wait."""

from collections.abc import Callable
from typing import Any

import pytest
from small_study import (
    FAST,
    FINGERPRINT,
    GRID,
    N_CELLS,
    begin_trial,
    claim_cell,
    finish_cell,
    finish_trial,
    made_up_attempt,
    make_spec,
    prune_trial,
    read_cell,
    set_cell,
)
from sqlalchemy import select

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.ledger.failures import MAX_FAILURES, MAX_LOST
from fmnist_optuna.ledger.records import Attempt, Claim
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.ledger.tables import cells
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session


def failed(trial_id: int, error: str | None = None, reason: Reason = "exception") -> Attempt:
    return made_up_attempt(trial_id, State.FAILED, error=error, reason=reason)


def fail_once(session: Session, error: str | None, reason: Reason = "exception") -> Claim:
    """Claim a cell, make its trial and finish it as failed."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    assert session.ledger.finish_cell(claim.cell_id, claim.token, failed(trial_id, error, reason))
    set_cell(session.storage, claim.cell_id, position=0)  # it would be behind the others
    return claim


# Results


@pytest.mark.parametrize(("finish", "result"), [(finish_trial, "COMPLETE"), (prune_trial, "PRUNED")])
def test_a_result_is_copied_from_the_trial(session: Session, finish: Callable[..., None], result: str) -> None:
    """State and value, to the last bit."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    finish(session, trial_id, 0.1 + 0.2)
    assert finish_cell(session, claim, trial_id)
    row = read_cell(session.storage, claim.cell_id)
    assert (row.state, row.result, row.value, row.trial_id) == ("done", result, 0.1 + 0.2, trial_id)


def test_finishing_twice_changes_nothing(session: Session) -> None:
    """The retry of a commit whose answer was lost says true, and changes nothing."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    finish_trial(session, trial_id, 0.5)
    assert finish_cell(session, claim, trial_id)
    before = read_cell(session.storage, claim.cell_id)
    assert finish_cell(session, claim, trial_id)
    assert read_cell(session.storage, claim.cell_id) == before


@pytest.mark.parametrize("result", [State.COMPLETE, State.PRUNED, State.FAILED])
def test_another_token_finishes_nothing(session: Session, result: State) -> None:
    """A result under a token that the cell does not carry is dropped."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    before = read_cell(session.storage, claim.cell_id)
    assert not session.ledger.finish_cell(claim.cell_id, "0" * 32, made_up_attempt(trial_id, result, 0.5))
    assert read_cell(session.storage, claim.cell_id) == before


def test_a_result_of_a_trial_that_is_not_bound_is_not_taken(session: Session) -> None:
    """The cell names the trial that may finish it."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    other = made_up_attempt(trial_id + 1, State.COMPLETE, 0.5, number=1)
    assert not session.ledger.finish_cell(claim.cell_id, claim.token, other)
    assert read_cell(session.storage, claim.cell_id).state == "running"


# Failures and losses


def test_a_cell_fails_after_three_different_errors(session: Session) -> None:
    """Until then it waits again, without a trial; the last error and trial stay with it."""
    states = []
    for number in range(MAX_FAILURES):
        claim = fail_once(session, f"ValueError: {number}")
        states.append(read_cell(session.storage, claim.cell_id).state)
    row = read_cell(session.storage, claim.cell_id)
    assert states == ["waiting", "waiting", "failed"]
    last = max(trial_id_of(trial) for trial in session.optuna_storage.get_all_trials(session.record.study_id))
    assert (row.failures, row.lost, row.error, row.trial_id) == (3, 0, "ValueError: 2", last)
    assert [(cell.params, cell.error) for cell in session.history.failed()] == [(claim.params, "ValueError: 2")]


def test_the_same_exception_twice_fails_the_cell(session: Session) -> None:
    """The user's code is at fault; a third attempt would only take time."""
    claims = [fail_once(session, "ValueError: bad") for _ in range(2)]
    assert claims[0].cell_id == claims[1].cell_id
    assert read_cell(session.storage, claims[1].cell_id).state == "failed"


def test_the_same_limit_twice_does_not_fail_the_cell(session: Session) -> None:
    """A time or memory limit may have been bad luck: it takes three."""
    states = [read_cell(session.storage, fail_once(session, "memory", "limit").cell_id).state for _ in range(3)]
    assert states == ["waiting", "waiting", "failed"]


def test_a_lost_attempt_does_not_hide_a_repeated_exception(session: Session) -> None:
    """Exception, kill, the same exception: failed."""
    fail_once(session, "ValueError: bad")
    fail_once(session, None, "lost")
    assert read_cell(session.storage, fail_once(session, "ValueError: bad").cell_id).state == "failed"


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_cell_fails_when_it_lost_its_worker_a_hundred_times(session: Session, is_bound: bool) -> None:
    """Whether it dies in training or before its trial is bound: a cell that kills its workers ends some day."""
    claim = claim_cell(session)
    set_cell(session.storage, claim.cell_id, lost=MAX_LOST - 1)
    if is_bound:
        trial_id = begin_trial(session, claim)
        assert session.ledger.finish_cell(claim.cell_id, claim.token, failed(trial_id))
    else:
        assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=True)
    row = read_cell(session.storage, claim.cell_id)
    assert (row.state, row.lost, row.failures, row.error) == ("failed", MAX_LOST, 0, "lost its worker 100 times")


def test_a_lost_attempt_is_no_failure(session: Session) -> None:
    """It has its own count, and the cell waits again."""
    row = read_cell(session.storage, fail_once(session, None, "lost").cell_id)
    assert (row.state, row.lost, row.failures, row.error) == ("waiting", 1, 0, None)


# What waits again


@pytest.mark.parametrize("reason", ["lost", "exception", "unbound", "stopped", "moved", "given back"])
def test_a_cell_that_comes_back_goes_behind_those_that_wait(session: Session, reason: Any) -> None:
    """After a loss, a kill or a failure, as one bad cell must keep no other waiting; one given back keeps its place."""
    claim = claim_cell(session)
    if reason in ("unbound", "given back"):
        assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=reason == "unbound")
    else:
        trial_id = begin_trial(session, claim)
        error = "ValueError: bad" if reason == "exception" else None
        assert session.ledger.finish_cell(claim.cell_id, claim.token, failed(trial_id, error, reason))
    order = [claim_cell(session).cell_id for _ in range(N_CELLS)]
    assert order.index(claim.cell_id) == (0 if reason in ("stopped", "moved", "given back") else N_CELLS - 1)


def test_cells_of_a_larger_grid_wait_behind_returned_ones(session: Session) -> None:
    """Their positions are free."""
    fail_once(session, None, "lost")
    set_cell(session.storage, claim_cell(session).cell_id, position=N_CELLS + 7)
    create_or_join(session.storage, make_spec({**GRID, "dropout_rate": [0.0, 0.5, 0.75]}), FINGERPRINT)
    with session.storage.read() as connection:
        positions = connection.execute(select(cells.c.position, cells.c.params)).all()
    assert len({row.position for row in positions}) == N_CELLS + 2
    assert min(row.position for row in positions if "0.75" in row.params) > N_CELLS + 7


def test_a_new_claim_begins_a_lease_and_forgets_the_old_trial(session: Session) -> None:
    """Attempt 2 has its own token, no trial, and a lease from now."""
    first = fail_once(session, "boom")
    second = claim_cell(session)
    row = read_cell(session.storage, second.cell_id)
    with session.storage.read() as connection:
        now = connection.execute(select(session.storage.now)).scalar_one()
    assert (second.cell_id, second.attempt) == (first.cell_id, 2)
    assert row.token == second.token != first.token
    assert row.trial_id is None
    assert FAST.lease_seconds - 5.0 < row.lease_until - now <= FAST.lease_seconds


@pytest.mark.parametrize("reason", ["stopped", "moved"])
def test_a_stop_counts_nothing(session: Session, reason: Any) -> None:
    """Nor a move to another machine: the cell waits as if the attempt had never been."""
    row = read_cell(session.storage, fail_once(session, None, reason).cell_id)
    assert (row.state, row.lost, row.failures, row.error, row.trial_id, row.token) == (
        "waiting",
        0,
        0,
        None,
        None,
        None,
    )


def test_retry_lets_failed_cells_wait_with_counters_at_zero(session: Session) -> None:
    """The same exception then again has two attempts."""
    cell_id = [fail_once(session, "ValueError: bad").cell_id for _ in range(2)][-1]
    assert session.ledger.retry_failed() == 1
    row = read_cell(session.storage, cell_id)
    assert (row.state, row.failures, row.lost, row.error, row.trial_id) == ("waiting", 0, 0, None, None)
    assert read_cell(session.storage, fail_once(session, "ValueError: bad").cell_id).state == "waiting"


@pytest.mark.parametrize("count_lost", [True, False])
def test_a_cell_given_back_waits_again(session: Session, count_lost: bool) -> None:
    """With or without a count; once only."""
    claim = claim_cell(session)
    given = [session.ledger.give_back(claim.cell_id, claim.token, count_lost=count_lost) for _ in range(2)]
    row = read_cell(session.storage, claim.cell_id)
    assert given == [True, False]
    assert (row.state, row.token, row.lost) == ("waiting", None, int(count_lost))
