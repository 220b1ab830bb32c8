"""Rungs, one contract over both databases: cells are parked, decided together, and cut or let go on."""

import itertools
import logging
from collections.abc import Callable

import pytest
from optuna.trial import TrialState
from rung_study import RUNG, climb, lose_leader, rule_of, run_all, work_on
from small_study import (
    KILLED,
    LOST,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    create_study,
    cut_cells,
    epoch_of,
    expected_cuts,
    in_processes,
    ladder_curve,
    ladder_objective,
    ladder_spec,
    read_cell,
)

from fmnist_optuna.bridge.orphans import fail_trial
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.attempt import decide_rung, run_attempt
from fmnist_optuna.work.loop import WorkerEnd
from fmnist_optuna.work.running_trial import RunningTrial

Sessions = Callable[..., Session]


@pytest.fixture
def session(new_session: Sessions) -> Session:
    """At work on a study of four cells with rungs."""
    return new_session("worker", spec=ladder_spec(4))


def test_a_parked_cell_keeps_its_trial(session: Session) -> None:
    """It has no token and no lease; its trial runs, no sweep fails it, and verify knows whose it is."""
    claim = claim_cell(session)
    trial_id = climb(session, claim)
    row = read_cell(session.storage, claim.cell_id)
    assert (row.state, row.token, row.lease_until, row.trial_id, row.rung) == ("parked", None, None, trial_id, RUNG)
    assert session.recovery.sweep() == 0
    assert session.optuna_storage.get_trial(trial_id).state is TrialState.RUNNING
    assert verify(session.storage, session.optuna_storage, session.record.study_id).n_surplus == 0


def test_a_cell_is_parked_under_its_token_only(session: Session) -> None:
    """Whoever lost it changes nothing and leaves the trial alone."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    stranger = Claim(claim.cell_id, "0" * 32, claim.params, claim.attempt)
    assert not session.ledger.park(stranger, trial_id, RUNG)
    assert not session.ledger.park(claim, trial_id + 1, RUNG)
    assert read_cell(session.storage, claim.cell_id).state == State.RUNNING
    assert session.ledger.park(claim, trial_id, RUNG)
    assert not session.ledger.park(claim, trial_id, RUNG)  # a second time, as after a lost answer
    assert read_cell(session.storage, claim.cell_id).state == State.PARKED


@ON_SQLITE
def test_nothing_is_decided_while_a_cell_is_on_its_way(session: Session) -> None:
    """Neither while one waits nor while one runs; the last one that comes, or fails, decides."""
    rule = rule_of(session)
    assert session.rungs.decide(rule) is None
    for _ in range(3):
        climb(session, claim_cell(session))
        assert session.rungs.decide(rule) is None
    last = claim_cell(session)
    assert session.rungs.decide(rule) is None
    climb(session, last)
    decided = session.rungs.decide(rule)
    assert decided is not None
    assert (decided.rung, decided.n_parked, decided.n_cut) == (RUNG, 4, 0)
    assert session.rungs.decide(rule) is None  # once more finds nothing
    assert session.rungs.decided() == [decided]


@ON_SQLITE
def test_the_rule_says_who_goes_on(session: Session) -> None:
    """Those who go on wait with their trial for the next rung; the others for their end."""
    claims = [claim_cell(session) for _ in range(4)]
    curves = [(0.5, 0.8), (0.75, 0.79), (0.5, 0.5), (0.4, 0.62)]
    trials = [climb(session, claim, curve) for claim, curve in zip(claims, curves, strict=True)]
    decided = session.rungs.decide(rule_of(session))
    assert decided is not None
    assert (decided.leader, decided.leader_value, decided.n_cut) == (claims[0].cell_id, 0.8, 1)
    assert decided.margin == pytest.approx((0.8 * 0.2 / 2000) ** 0.5)
    went_on = {row.cell_id: row for row in (read_cell(session.storage, claim.cell_id) for claim in claims)}
    assert [went_on[claim.cell_id].cut_at for claim in claims] == [None, None, RUNG, None]
    assert {row.state for row in went_on.values()} == {State.WAITING}
    assert [went_on[claim.cell_id].trial_id for claim in claims] == trials
    again = [claim_cell(session) for _ in range(4)]
    assert {(claim.trial_id, claim.rung, claim.attempt) for claim in again} == {(trial, RUNG, 1) for trial in trials}


@ON_SQLITE
def test_a_worker_takes_what_it_has_in_memory_first(session: Session) -> None:
    """Else the first that waits."""
    claims = [claim_cell(session) for _ in range(4)]
    for claim in claims:
        climb(session, claim)
    session.rungs.decide(rule_of(session))
    taken = session.ledger.claim("worker", session.record.generation, [claims[2].cell_id, claims[3].cell_id])
    assert taken is not None
    assert taken.cell_id == claims[2].cell_id
    assert claim_cell(session).cell_id == claims[0].cell_id


@ON_SQLITE
def test_the_log_tells_each_leg(new_session: Sessions, caplog: pytest.LogCaptureFixture) -> None:
    """A trial begins once and goes on from each rung; where it was cut it trains no more, and nothing is said."""

    def train(params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        running.log_going_on("memory")
        return ladder_objective(params, seed, running)

    session = new_session("one", spec=ladder_spec(6))
    with caplog.at_level(logging.INFO):
        run_all(session, train)
    events = [vars(record) for record in caplog.records]
    began = [each["trial"] for each in events if each.get("event") == "trial_began"]
    goes_on = [(each["trial"], each["epochs"]) for each in events if each.get("event") == "trial_goes_on"]
    assert set(began) == {cell.trial_number for cell in session.history.cells()}
    assert len(began) == 6
    for cell in session.history.cells():
        legs = [epochs for number, epochs in goes_on if number == cell.trial_number]
        assert legs == [rung for rung in rule_of(session).rungs() if rung < (cell.cut_at or cell.n_epochs)]


def test_one_worker_ends_a_study_with_rungs(session: Session) -> None:
    """Every cell has one result, and the cut ones are PRUNED with as many epochs as their rung."""
    run_all(session)
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    assert (found.ok, found.problems) == (True, ())
    for cell in session.history.cells():
        assert cell.state is (State.COMPLETE if cell.cut_at is None else State.PRUNED)
        assert cell.cut_at in (None, cell.n_epochs)
        assert cell.state is State.PRUNED or cell.val_accuracy == max(ladder_curve(cell.params))


@pytest.mark.more
@ON_SQLITE
def test_the_same_cells_are_cut_by_any_number_of_workers(storage_url: str, new_session: Sessions) -> None:
    """One process or three: those that the rule cuts where every cell has come to each rung."""
    for n_workers in (1, 3):
        session = new_session("reader", spec=ladder_spec(12, f"ladder{n_workers}"))
        arguments = (storage_url, session.record.name)
        ends = in_processes(n_workers, work_on, *arguments) if n_workers > 1 else [work_on(0, *arguments)]
        assert ends == [WorkerEnd.DONE] * n_workers
        assert verify(session.storage, session.optuna_storage, session.record.study_id).ok
        cut = cut_cells(session)
        assert cut == expected_cuts(session.record.spec)
        assert 5 < len(cut) < 12
        assert len(set(cut.values())) > 1


@ON_SQLITE
def test_a_loss_between_rungs_changes_no_cut(new_session: Sessions) -> None:
    """A worker that dies before, on and after every rung: a new attempt comes to where the old one was."""
    session = new_session("one", spec=ladder_spec(12))
    for number in itertools.count():
        claim = session.ledger.claim(session.name, session.record.generation)
        if claim is None:
            if decide_rung(session):
                continue
            break
        if number % 3:
            run_attempt(session, claim, ladder_objective, lambda: False, session.record.generation)
            continue
        if claim.trial_id is None and number % 2:
            begin_trial(session, claim)
        (held,) = session.ledger.held_cells()
        assert session.recovery.requeue(held, KILLED)
    assert cut_cells(session) == expected_cuts(session.record.spec)
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok


def test_a_parked_trial_that_somebody_failed_is_tried_anew(session: Session) -> None:
    """As `fail_stale_trials` of another program does it, or as it is deleted by hand."""
    claims = [claim_cell(session) for _ in range(4)]
    trials = [climb(session, claim) for claim in claims]
    session.rungs.decide(rule_of(session))
    fail_trial(session.storage, trials[0], LOST)
    run_all(session)
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    assert (found.ok, found.problems) == (True, ())
    assert read_cell(session.storage, claims[0].cell_id).trial_id != trials[0]


@ON_SQLITE
def test_a_grid_that_grows_waits_for_nobody_who_is_through(new_session: Sessions) -> None:
    """New cells climb alone, meet the leaders of before, and change no earlier decision."""
    session = new_session("one", spec=ladder_spec(6))
    run_all(session)
    before = cut_cells(session)
    create_study(session.storage, ladder_spec(12))
    run_all(session)
    assert before.items() <= cut_cells(session).items()
    assert verify(session.storage, session.optuna_storage, session.record.study_id).n_results == 12
    assert cut_cells(session) == expected_cuts(ladder_spec(12))


@ON_SQLITE
def test_a_decision_waits_for_a_leader_that_was_lost(new_session: Sessions) -> None:
    """The best was beyond the rung when its worker was killed; who comes later meets its value all the same."""
    session = new_session("one", spec=ladder_spec(2))
    leader, other = lose_leader(session)
    create_study(session.storage, ladder_spec(3))
    claims = {claim.cell_id: claim for claim in (claim_cell(session) for _ in range(3))}
    climb(session, claims.pop(next(cell_id for cell_id in claims if cell_id not in (leader.cell_id, other.cell_id))))
    assert session.rungs.decide(rule_of(session)) is None
    anew = claims[leader.cell_id]
    trial_id = begin_trial(session, anew)
    for number, value in enumerate((0.7, 0.8)):
        session.ledger.record_epoch(anew, trial_id, epoch_of(number, value))
    decided = session.rungs.decide(rule_of(session))
    assert decided is not None
    assert (decided.leader, decided.leader_value, decided.n_parked) == (leader.cell_id, 0.8, 1)
