"""The ledger of cells, one contract over both databases: claim, bind, renew, finish, give back, take over."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from small_study import (
    FAST,
    FINGERPRINT,
    GRID,
    N_CELLS,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    create_study,
    create_trial,
    epoch_of,
    expire,
    finish_cell,
    finish_everything,
    finish_trial,
    in_threads,
    made_up_attempt,
    make_spec,
    open_session,
    prune_trial,
    read_cell,
    set_cell,
)
from sqlalchemy import func, select

from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.failures import MAX_FAILURES, MAX_LOST
from fmnist_optuna.ledger.records import Attempt, Claim, HeldCell
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells, epochs
from fmnist_optuna.search.cell import make_point
from fmnist_optuna.study.joining import create_or_join, ordered_points
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import raise_generation

Sessions = Callable[..., Session]


def count_cells(session: Session) -> tuple[int, int, int, int]:
    """Waiting, running, done and failed ones."""
    counts = session.history.counts()
    return counts.waiting, counts.running, counts.done, counts.failed


def stranger(claim: Claim) -> Claim:
    """The same cell under a token that nobody made."""
    return Claim(claim.cell_id, "0" * 32, claim.params, claim.attempt)


def held_cell(session: Session, cell_id: str) -> HeldCell:
    return next(cell for cell in session.ledger.held_cells() if cell.cell_id == cell_id)


def failed(trial_id: int, error: str | None = None, reason: Reason = "exception") -> Attempt:
    return made_up_attempt(trial_id, State.FAILED, error=error, reason=reason)


def fail_once(session: Session, error: str | None, reason: Reason = "exception") -> Claim:
    """Claim a cell, bind a made-up trial and finish it as failed."""
    claim = claim_cell(session)
    assert session.ledger.bind(claim, 10_000 + claim.attempt, claim.attempt)
    assert session.ledger.finish_cell(claim.cell_id, claim.token, failed(10_000 + claim.attempt, error, reason))
    set_cell(session.storage, claim.cell_id, position=0)  # it would be behind the others
    return claim


# Seeding


def test_seeding_twice_inserts_nothing(storage: Storage) -> None:
    """The second create_or_join of the same grid finds every cell there."""
    assert [create_or_join(storage, make_spec(), FINGERPRINT)[1] for _ in range(2)] == [N_CELLS, 0]


def test_processes_that_create_a_study_at_once_make_one(storage_url: str, new_session: Sessions) -> None:
    """Every cell is inserted by exactly one of them, and all get the same study."""
    sessions = [new_session(f"w{n}", spec=make_spec(name=f"other{n}")) for n in range(4)]
    results = in_threads(4, lambda n: create_or_join(sessions[n].storage, make_spec(), FINGERPRINT))
    assert sum(n_new for _, n_new in results) == N_CELLS
    assert len({record.study_id for record, _ in results}) == 1


@ON_SQLITE
def test_a_cell_is_named_by_its_parameters(session: Session) -> None:
    """The identity that a claim gives can be recomputed from its parameters."""
    claim = claim_cell(session)
    assert make_point(claim.params).cell_id == claim.cell_id


# Claim


def test_without_a_waiting_cell_there_is_no_claim(session: Session) -> None:
    """None, not an error."""
    finish_everything(session)
    assert session.ledger.claim("worker", 0) is None


@ON_SQLITE
def test_without_a_study_there_is_no_claim_and_no_generation(session: Session) -> None:
    """A study that was deleted looks like one that is over."""
    ledger = Ledger(session.storage, 4711)
    assert ledger.claim("worker", 0) is None
    assert ledger.generation() is None


def test_a_stopped_study_gives_no_claim(session: Session) -> None:
    """A worker of the old generation gets nothing; one that starts after the stop does."""
    generation = session.record.generation
    raise_generation(session.storage, session.record.study_id)
    assert session.ledger.claim("worker", generation) is None
    assert session.ledger.claim("worker", generation + 1) is not None


@ON_SQLITE
def test_cells_are_claimed_in_the_order_of_a_stock_grid_sampler(session: Session) -> None:
    """Shuffled, but the same for everybody, so that a pruner soon sees a mixture."""
    claimed = [claim_cell(session).cell_id for _ in range(N_CELLS)]
    assert claimed == [cell.cell_id for cell in ordered_points(make_spec())]


def test_a_claim_carries_the_parameters_with_their_types(session: Session) -> None:
    """hidden_size stays an integer, dropout_rate a float."""
    for _ in range(N_CELLS):
        params = claim_cell(session).params
        assert {name: type(value) for name, value in params.items()} == {"hidden_size": int, "dropout_rate": float}


def test_a_claim_repeated_after_a_lost_connection_is_the_same(session: Session) -> None:
    """Its commit may have happened: the token finds the cell, and nothing is counted twice."""
    claims = [session.ledger._claim("worker", session.record.generation, "1" * 32) for _ in range(2)]
    assert claims[0] == claims[1]
    assert claims[0] is not None
    assert claims[0].attempt == 1
    assert count_cells(session) == (N_CELLS - 1, 1, 0, 0)


def test_no_cell_is_claimed_twice(new_session: Sessions) -> None:
    """Eight workers at once over 60 cells: every cell once, none left."""
    spec = make_spec({"hidden_size": list(range(1, 61))})
    sessions = [new_session(f"w{number}", spec=spec) for number in range(8)]

    def claim_all(number: int) -> list[str]:
        found = []
        while (claim := sessions[number].ledger.claim(f"w{number}", sessions[number].record.generation)) is not None:
            found.append(claim.cell_id)
        return found

    claimed = [cell_id for found in in_threads(8, claim_all) for cell_id in found]
    assert sorted(claimed) == sorted(cell.cell_id for cell in ordered_points(spec))


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


# Settle


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


def test_a_cell_fails_after_three_different_errors(session: Session) -> None:
    """Until then it waits again, without a trial; the last error and trial stay with it."""
    states = []
    for number in range(MAX_FAILURES):
        claim = fail_once(session, f"ValueError: {number}")
        states.append(read_cell(session.storage, claim.cell_id).state)
    row = read_cell(session.storage, claim.cell_id)
    assert states == ["waiting", "waiting", "failed"]
    assert (row.failures, row.lost, row.error, row.trial_id) == (3, 0, "ValueError: 2", 10_003)
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
        assert session.ledger.bind(claim, 5, 0)
        assert session.ledger.finish_cell(claim.cell_id, claim.token, failed(5))
    else:
        assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=True)
    row = read_cell(session.storage, claim.cell_id)
    assert (row.state, row.lost, row.failures, row.error) == ("failed", MAX_LOST, 0, "lost its worker 100 times")


@pytest.mark.parametrize("reason", ["lost", "exception", "unbound", "stopped", "moved", "given back"])
def test_a_cell_that_comes_back_goes_behind_those_that_wait(session: Session, reason: Any) -> None:
    """After a loss, a kill or a failure, as one bad cell must keep no other waiting; one given back keeps its place."""
    claim = claim_cell(session)
    if reason in ("unbound", "given back"):
        assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=reason == "unbound")
    else:
        assert session.ledger.bind(claim, 10_001, 1)
        error = "ValueError: bad" if reason == "exception" else None
        assert session.ledger.finish_cell(claim.cell_id, claim.token, failed(10_001, error, reason))
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


def test_a_lost_attempt_is_no_failure(session: Session) -> None:
    """It has its own count, and the cell waits again."""
    row = read_cell(session.storage, fail_once(session, None, "lost").cell_id)
    assert (row.state, row.lost, row.failures, row.error) == ("waiting", 1, 0, None)


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


def test_studies_in_one_storage_do_not_touch_one_another(storage_url: str, new_session: Sessions) -> None:
    """The same grid under another name has the same cell ids, and cells of its own."""
    one = new_session("worker")
    other = new_session("worker", spec=make_spec(name="other"))
    finish_everything(one)
    assert count_cells(other) == (N_CELLS, 0, 0, 0)
    raise_generation(one.storage, one.record.study_id)
    assert other.ledger.claim("worker", other.record.generation) is not None


def test_a_deleted_study_and_its_successor_are_two(storage_url: str, new_session: Sessions) -> None:
    """A worker that slept through a delete gets no cell of a new study, even where the database reuses the id."""
    from fmnist_optuna.study.deletion import delete_study

    sleeper = new_session("sleeper")
    delete_study(sleeper.storage, sleeper.record)
    create_study(sleeper.storage, make_spec(training={"seed": 1}))
    fresh = open_session(storage_url, "fresh")
    assert sleeper.ledger.claim("sleeper", sleeper.record.generation) is None
    assert fresh.ledger.claim("fresh", fresh.record.generation) is not None
    fresh.storage.close()


def test_a_claim_costs_the_same_in_a_large_study(storage_url: str, new_session: Sessions) -> None:
    """One transaction with two statements, however many cells there are."""
    from sqlalchemy import event

    n_statements = []
    for n_cells in (10, 1000):
        spec = make_spec({"hidden_size": list(range(1, n_cells + 1))}, name=f"s{n_cells}")
        session = new_session("worker", spec=spec)
        claim_cell(session)
        seen: list[str] = []
        event.listen(session.storage.engine, "before_cursor_execute", lambda *a, seen=seen: seen.append(a[2]))
        session.ledger.claim("worker", session.record.generation)
        n_statements.append(len([statement for statement in seen if not statement.startswith("BEGIN")]))
    assert n_statements == [2, 2]


@ON_SQLITE
def test_the_grid_of_these_tests_has_four_cells(session: Session) -> None:
    """2 x 2, all waiting."""
    assert len(GRID["hidden_size"]) * len(GRID["dropout_rate"]) == N_CELLS
    assert count_cells(session) == (N_CELLS, 0, 0, 0)
    with session.storage.read() as connection:
        assert connection.execute(select(func.count()).select_from(epochs)).scalar_one() == 0
