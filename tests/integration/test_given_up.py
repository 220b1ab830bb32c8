"""A cell that a run gives up: the others are decided and finished without it, and it may come later."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from rung_study import RUNG, climb, rule_of, run_all
from small_study import KILLED, POSTGRES_MORE, begin_trial, claim_cell, epoch_of, ladder_curve, ladder_spec, read_cell

from fmnist_optuna.ledger.records import Attempt, Claim, Leg, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.kills import Tally, is_to_blame, tally_attempts
from fmnist_optuna.study.session import Session

Sessions = Callable[..., Session]
N_CELLS = 4


@pytest.fixture
def session(new_session: Sessions) -> Session:
    """At work on a study of four cells with rungs."""
    return new_session("worker", spec=ladder_spec(N_CELLS))


def kill(session: Session, claim: Claim) -> None:
    """Its worker dies in the first epoch."""
    begin_trial(session, claim)
    (held,) = [held for held in session.ledger.held_cells() if held.cell_id == claim.cell_id]
    assert session.recovery.requeue(held, KILLED)


def giving_up(session: Session, claim: Claim) -> Session:
    return replace(session, given_up=frozenset([claim.cell_id]))


def test_a_cell_that_was_given_up_is_not_claimed(session: Session) -> None:
    """Nor counted among those that wait; whoever has not given it up takes it."""
    bad = claim_cell(session)
    kill(session, bad)
    for _ in range(N_CELLS - 1):
        climb(session, claim_cell(session))
    assert session.ledger.claim("worker", session.record.generation, given_up=[bad.cell_id]) is None
    assert session.ledger.claim("worker", session.record.generation, [bad.cell_id], [bad.cell_id]) is None
    counts = session.history.counts([bad.cell_id])
    assert (counts.total, counts.waiting, counts.parked, counts.is_over) == (N_CELLS - 1, 0, N_CELLS - 1, False)
    assert claim_cell(session).cell_id == bad.cell_id


def test_a_rung_is_decided_without_it(session: Session) -> None:
    """The decision names it; who has not given it up waits."""
    bad = claim_cell(session)
    kill(session, bad)
    for _ in range(N_CELLS - 1):
        climb(session, claim_cell(session))
    assert session.rungs.decide(rule_of(session)) is None
    decided = session.rungs.decide(rule_of(session), [bad.cell_id])
    assert decided is not None
    assert (decided.rung, decided.n_parked, decided.absent) == (RUNG, N_CELLS - 1, (bad.cell_id,))
    assert session.rungs.decided() == [decided]


def test_one_that_has_come_is_part_of_the_decision(session: Session) -> None:
    """It was given up, and another worker brought it to the rung all the same."""
    claims = [claim_cell(session) for _ in range(N_CELLS)]
    for claim in claims:
        climb(session, claim)
    decided = session.rungs.decide(rule_of(session), [claims[0].cell_id])
    assert decided is not None
    assert (decided.n_parked, decided.absent) == (N_CELLS, ())


@POSTGRES_MORE
@pytest.mark.parametrize("place", range(N_CELLS))
def test_the_others_finish_and_it_may_follow(session: Session, place: int) -> None:
    """Whichever it is, the best one too: the study ends with a result for each, and no decision is accused."""
    claims = [claim_cell(session) for _ in range(N_CELLS)]
    bad = claims[place]
    kill(session, bad)
    for claim in claims:
        if claim is not bad:
            assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=False)
    others = giving_up(session, bad)
    run_all(others)
    assert others.history.counts(others.given_up).is_over
    row = read_cell(session.storage, bad.cell_id)
    assert (row.state, row.failures, row.lost) == (State.WAITING, 0, 1)
    problems = [problem for problem in verify_study(session).problems if problem.startswith("decision")]
    assert problems == []
    run_all(session)
    assert verify_study(session).ok
    best = max(max(ladder_curve(cell.params)) for cell in session.history.cells())
    assert session.history.best_value() == pytest.approx(best)


def test_one_lost_beyond_a_rung_is_not_waited_for(session: Session) -> None:
    """It was the leader of the first rung, and is trained anew: later comers are decided without its value."""
    claims = [claim_cell(session) for _ in range(2)]
    for claim, values in zip(claims, ((0.7, 0.8), (0.4, 0.5)), strict=True):
        climb(session, claim, values)
    late = [claim_cell(session) for _ in range(2)]
    for claim in late:
        climb(session, claim)
    assert session.rungs.decide(rule_of(session)) is not None
    again = session.ledger.claim("worker", session.record.generation, [claims[0].cell_id])
    assert again is not None
    trial_id = read_cell(session.storage, again.cell_id).trial_id
    session.ledger.record_epoch(again, trial_id, epoch_of(2, 0.85))
    (held,) = session.ledger.held_cells()
    assert session.recovery.requeue(held, KILLED)
    run_all(giving_up(session, again))
    assert session.history.counts([again.cell_id]).is_over
    assert {each.absent for each in session.rungs.decided() if each.rung > RUNG} <= {(again.cell_id,)}
    assert any(each.absent for each in session.rungs.decided())
    run_all(session)
    assert session.history.counts().is_over


def attempt(cell: str, number: int, noted: TrialAttributes | None = None) -> Attempt:
    """One that ended on this machine: killed, or with a result."""
    state = State.COMPLETE if noted is None else State.FAILED
    attributes = replace(noted or TrialAttributes(), machine="here", reason=None if noted is None else "killed")
    return Attempt(number, number, cell, {}, state, None, attributes)


def test_a_rung_speaks_for_others_only() -> None:
    """A cell that dies beyond a rung each time is to blame; its kills before that rung no longer count."""
    killed, gone_on = TrialAttributes(), TrialAttributes(legs=(Leg(4, 0.0, "worker"),))
    attempts = [
        *(attempt(f"other {number}", number) for number in range(30)),
        *(attempt("bad", 100 + number, killed) for number in range(3)),
        attempt("bad", 200, gone_on),
        *(attempt("bad", 201 + number, TrialAttributes(kept_epochs=4)) for number in range(3)),
    ]
    climbed = {"bad": 4, "other 1": 4}
    tallies = tally_attempts(attempts, "here", climbed, accused="bad")
    assert tallies["bad"] == Tally(n_killed=4)
    assert tallies["other 1"] == Tally(n_through=2)
    assert is_to_blame("bad", tallies)
    assert not is_to_blame("bad", tally_attempts(attempts, "here", climbed, accused="other 1"))
