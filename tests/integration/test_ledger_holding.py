"""Holding a cell of the ledger, one contract over both databases: bind, renew, record epochs, take over."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
from small_study import (
    begin_trial,
    claim_cell,
    create_trial,
    epoch_of,
    expire,
    in_threads,
    made_up_attempt,
    make_spec,
    read_cell,
)
from sqlalchemy import select

from fmnist_optuna.ledger.records import Claim, HeldCell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import epochs
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import raise_generation

Sessions = Callable[..., Session]


def stranger(claim: Claim) -> Claim:
    """The same cell under a token that nobody made."""
    return Claim(claim.cell_id, "0" * 32, claim.params, claim.attempt)


def held_cell(session: Session, cell_id: str) -> HeldCell:
    return next(cell for cell in session.ledger.held_cells() if cell.cell_id == cell_id)


# Bind


def test_a_trial_is_bound_once_and_may_be_bound_again(session: Session) -> None:
    """A repeated bind of the same trial is the retry of one that was lost on the way."""
    claim = claim_cell(session)
    trial_id, number = create_trial(session, claim)
    assert [session.ledger.bind(claim, trial_id, number) for _ in range(2)] == [True, True]


def test_a_second_trial_is_not_bound(session: Session) -> None:
    """A cell has one trial an attempt, however often creating it was retried."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    assert not session.ledger.bind(claim, trial_id + 1, 1)
    assert read_cell(session.storage, claim.cell_id).trial_id == trial_id


@pytest.mark.parametrize("change", ["other token", "taken over", "given back"])
def test_a_claim_that_is_not_held_binds_nothing(session: Session, change: str) -> None:
    """Nothing trains before its bind, so a fenced worker trains nothing."""
    claim = claim_cell(session)
    if change == "taken over":
        assert session.ledger.take_over(held_cell(session, claim.cell_id), "healer", "2" * 32)
    elif change == "given back":
        assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=True)
    asked = stranger(claim) if change == "other token" else claim
    assert not session.ledger.bind(asked, 1, 0)
    assert read_cell(session.storage, claim.cell_id).trial_id is None


# Renew and record


def test_a_renewal_moves_the_end_of_the_lease(session: Session) -> None:
    """To a full lease from now."""
    claim = claim_cell(session)
    expire(session.storage, claim.cell_id)
    assert session.ledger.renew(claim)
    assert not held_cell(session, claim.cell_id).is_expired


def test_a_renewal_by_another_token_changes_nothing(session: Session) -> None:
    """False, and the lease ends when it did."""
    claim = claim_cell(session)
    before = read_cell(session.storage, claim.cell_id)
    assert not session.ledger.renew(stranger(claim))
    assert read_cell(session.storage, claim.cell_id) == before


def test_an_epoch_renews_is_stored_and_returns_the_generation(session: Session) -> None:
    """All three in one transaction."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    expire(session.storage, claim.cell_id)
    assert session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5)) == session.record.generation
    assert not held_cell(session, claim.cell_id).is_expired
    assert session.history.curve(trial_id) == [epoch_of(0, 0.5)]


def test_an_epoch_sees_a_stop(session: Session) -> None:
    """The generation that `stop` raised comes back with the next epoch."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    raise_generation(session.storage, session.record.study_id)
    assert session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5)) == session.record.generation + 1


def test_an_epoch_is_stored_once(session: Session) -> None:
    """A retry keeps what is there."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5))
    session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.9))
    assert session.history.curve(trial_id) == [epoch_of(0, 0.5)]


def test_a_fenced_worker_stores_no_epoch(session: Session) -> None:
    """None, and not a row."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    assert session.ledger.take_over(held_cell(session, claim.cell_id), "healer", "2" * 32)
    assert session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5)) is None
    assert session.history.curve(trial_id) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_stored_as_null(session: Session, value: float) -> None:
    """So that no ORDER BY meets it; it reads back as NaN."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    session.ledger.record_epoch(claim, trial_id, epoch_of(0, value))
    with session.storage.read() as connection:
        assert connection.execute(select(epochs.c.val_accuracy)).scalar_one() is None
    (epoch,) = session.history.curve(trial_id)
    assert epoch.val_accuracy != epoch.val_accuracy


# Take over


def test_a_cell_is_taken_over_if_it_is_as_it_was_seen(session: Session) -> None:
    """Under the taker's token, with a lease of its own; repeating it is the same take-over."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    seen = held_cell(session, claim.cell_id)
    assert [session.ledger.take_over(seen, "healer", "2" * 32) for _ in range(2)] == [True, True]
    row = read_cell(session.storage, claim.cell_id)
    assert (row.token, row.worker, row.trial_id, row.state) == ("2" * 32, "healer", trial_id, "running")


@pytest.mark.parametrize("change", ["bound", "renewed", "taken over", "given back", "done"])
def test_a_cell_changed_since_it_was_seen_is_not_taken_over(session: Session, change: str) -> None:
    """A renewal or a bind proves that the holder lives; another token that somebody else is at work."""
    claim = claim_cell(session)
    expire(session.storage, claim.cell_id)
    seen = held_cell(session, claim.cell_id)
    trial_id = begin_trial(session, claim)
    if change != "bound":
        seen = held_cell(session, claim.cell_id)
    if change == "renewed":
        session.ledger.renew(claim)
    elif change == "taken over":
        session.ledger.take_over(seen, "first", "2" * 32)
    elif change == "given back":
        session.ledger.give_back(claim.cell_id, claim.token, count_lost=False)
    else:
        session.ledger.finish_cell(claim.cell_id, claim.token, made_up_attempt(trial_id, State.COMPLETE, 0.5))
    before = read_cell(session.storage, claim.cell_id)
    assert not session.ledger.take_over(seen, "second", "3" * 32)
    assert read_cell(session.storage, claim.cell_id) == before


def take_over_at_once(sessions: Sequence[Session], seen: HeldCell, number: int, taker: int) -> bool:
    """What one of two takers does, each in a thread of its own."""
    name = "ab"[taker]
    return sessions[taker].ledger.take_over(seen, name, f"{name}{number:031d}")


def test_of_two_takers_one_wins(new_session: Sessions) -> None:
    """Twenty times at the same instant."""
    sessions = [new_session("a", spec=make_spec({"hidden_size": list(range(1, 21))})), new_session("b")]
    for number in range(20):
        claim = claim_cell(sessions[0])
        seen = held_cell(sessions[0], claim.cell_id)
        taken = in_threads(
            2,
            partial(take_over_at_once, sessions, seen, number),
        )
        assert sorted(taken) == [False, True]


def test_held_cells_are_those_of_one_worker_or_of_all(session: Session) -> None:
    """With the token, the trial and whether the lease is past."""
    first = claim_cell(session)
    second = session.ledger.claim("other", session.record.generation)
    assert second is not None
    expire(session.storage, second.cell_id)
    assert {cell.token for cell in session.ledger.held_cells()} == {first.token, second.token}
    (own,) = session.ledger.held_cells("other")
    assert (own.token, own.worker, own.trial_id, own.is_expired) == (second.token, "other", None, True)
