"""How long a study has taken, and who is at work on it, where cells wait at their rungs."""

from collections.abc import Callable

import pytest
from small_study import begin_trial, claim_cell, finish_cell, ladder_spec, set_cell
from sqlalchemy import update

from fmnist_optuna.bridge.orphans import fail_trial
from fmnist_optuna.ledger.records import Claim, TrialAttributes
from fmnist_optuna.ledger.states import Reason
from fmnist_optuna.ledger.tables import cells, decisions, workers
from fmnist_optuna.pages.time_left import make_remaining_time
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.attempt import decide_rung

SECONDS = 100.0  # of an epoch
NEAR = 5.0  # seconds that a test itself may take


@pytest.fixture
def session(new_session: Callable[..., Session]) -> Session:
    """A study of two cells with rungs, and nobody on the list of workers."""
    return new_session("worker", spec=ladder_spec(2))


def climb(session: Session, claim: Claim, rungs: tuple[int, int]) -> None:
    """Train a cell from one rung to the next, and park it there."""
    trial_id = claim.trial_id or begin_trial(session, claim)
    for number in range(*rungs):
        epoch = Epoch(number, 1.0, 0.5, 1.0, 0.5 + 0.01 * number, SECONDS)
        assert session.ledger.record_epoch(claim, trial_id, epoch) is not None
    assert session.ledger.park(claim, trial_id, rungs[1])


def shift(session: Session, seconds: float) -> None:
    """Let everything have happened so much earlier."""
    times = ((cells, "first_claimed_at"), (cells, "claimed_at"), (cells, "lease_until"), (decisions, "decided_at"))
    with session.storage.write() as connection:
        for table, column in (*times, (workers, "last_seen")):
            connection.execute(update(table).values({column: table.c[column] - seconds}))


def test_parked_cells_of_which_nobody_takes_care(session: Session) -> None:
    """The study took until the last one came to its rung: its claim and the epochs since then."""
    for _ in range(2):
        climb(session, claim_cell(session), (0, 2))
    shift(session, 1_000)
    assert session.history.elapsed_seconds() == pytest.approx(2 * SECONDS, abs=NEAR)
    assert decide_rung(session)
    for claim in [claim_cell(session) for _ in range(2)]:
        climb(session, claim, (2, 4))
    shift(session, 2_000)
    assert session.history.elapsed_seconds() == pytest.approx(1_000 + 2 * SECONDS, abs=NEAR)


def test_a_decided_rung_is_an_event(session: Session) -> None:
    """Where nobody has claimed its cells since."""
    for _ in range(2):
        climb(session, claim_cell(session), (0, 2))
    shift(session, 1_000)
    assert decide_rung(session)
    shift(session, 500)
    assert session.history.elapsed_seconds() == pytest.approx(1_000, abs=NEAR)


@pytest.mark.parametrize("reason", ["stopped", "lost", "blamed"])
def test_an_attempt_without_a_result_is_an_event(session: Session, reason: Reason) -> None:
    """The study took until a stop in the middle of its first training, or until a cell failed, and no longer."""
    trial_id = begin_trial(session, claim := claim_cell(session))
    shift(session, 1_000)
    fail_trial(session.storage, trial_id, TrialAttributes(reason=reason))
    assert finish_cell(session, claim, trial_id)
    assert session.history.counts().failed == (reason == "blamed")
    for _ in range(2):
        assert session.history.elapsed_seconds() == pytest.approx(1_000, abs=NEAR)
        shift(session, 500)


def test_a_cell_that_is_given_back_is_an_event(session: Session) -> None:
    """Before its trial was made, by whoever found its worker dead."""
    claim = claim_cell(session)
    shift(session, 1_000)
    assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=True)
    shift(session, 500)
    assert session.history.elapsed_seconds() == pytest.approx(1_000, abs=NEAR)


def test_a_worker_that_waits_is_at_work(session: Session) -> None:
    """So time goes on while all cells are parked; it stops where the worker was seen last, a lease after that."""
    lease_seconds = session.storage.timing.lease_seconds
    for _ in range(2):
        climb(session, claim_cell(session), (0, 2))
    shift(session, 1_000)
    session.presence.register("worker", fresh_seconds=lease_seconds)
    assert session.history.elapsed_seconds() == pytest.approx(1_000, abs=NEAR)
    assert len(session.history.workers()) == 1
    shift(session, lease_seconds + NEAR)
    assert session.history.elapsed_seconds() == pytest.approx(1_000, abs=NEAR)
    assert session.history.workers() == []


def test_a_dead_study_does_not_go_on(session: Session) -> None:
    """A cell whose lease is over runs by its name only."""
    session.presence.register("worker", fresh_seconds=60)
    claim_cell(session)
    assert session.history.elapsed_seconds() < NEAR
    shift(session, 5_000)
    assert session.history.elapsed_seconds() < NEAR


def test_who_holds_a_cell_is_at_work(session: Session) -> None:
    """Whatever lease it was given, and however seldom it says that it is there."""
    session.presence.register("worker", fresh_seconds=60)
    claim = claim_cell(session)
    shift(session, 600)
    assert session.history.workers() == []
    set_cell(session.storage, claim.cell_id, lease_until=session.storage.now + 100)
    assert [worker.worker_id for worker in session.history.workers()] == ["worker"]


def test_the_time_left_is_told_while_a_rung_is_decided(session: Session) -> None:
    """Nobody trains then, and those who are about to are there; nothing is told where nobody is."""
    for _ in range(2):
        climb(session, claim_cell(session), (0, 2))
    assert decide_rung(session)
    remaining = make_remaining_time(session)
    assert remaining.estimate(session.history.counts(), session.history.running()) is None
    session.presence.register("worker", fresh_seconds=60)
    # Both have 14 epochs left at most, of which at least one trains all.
    seconds = remaining.estimate(session.history.counts(), session.history.running())
    assert seconds is not None
    assert 14 * SECONDS <= seconds <= 28 * SECONDS
