"""Rungs, one contract over both databases: cells are parked, decided together, and cut or let go on."""

import itertools
import logging
import math
from collections.abc import Callable

import pytest
from optuna.trial import TrialState
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
    open_session,
    read_cell,
    set_cell,
)
from sqlalchemy.engine import Connection

from fmnist_optuna.bridge.trials import fail_trial
from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.ledger.rungs import Field, Rungs
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.attempt import decide_rung, run_attempt
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work

Sessions = Callable[..., Session]
RUNG = 2


@pytest.fixture
def session(new_session: Sessions) -> Session:
    """At work on a study of four cells with rungs."""
    return new_session("worker", spec=ladder_spec(4))


def rule_of(session: Session) -> LadderRule:
    assert session.ladder is not None
    return session.ladder


def climb(session: Session, claim: Claim, values: tuple[float, ...] = (0.4, 0.5)) -> int:
    """Train a new cell to the first rung and park it; returns its trial's id."""
    trial_id = begin_trial(session, claim)
    for number, value in enumerate(values):
        assert session.ledger.record_epoch(claim, trial_id, epoch_of(number, value)) is not None
    assert session.ledger.park(claim, trial_id, RUNG)
    return trial_id


def run_next(session: Session) -> Claim | None:
    """Carry the next claim through."""
    claim = session.ledger.claim(session.name, session.record.generation)
    if claim is not None:
        run_attempt(session, claim, ladder_objective, lambda: False, session.record.generation)
    return claim


def run_all(session: Session) -> None:
    """Carry claims through until nothing is left, as the loop of a worker does."""
    while run_next(session) is not None or decide_rung(session):
        pass


class LeaveWhenIdle(LeaveRequest):
    """A worker leaves where it would wait."""

    def wait(self, seconds: float) -> None:
        self.set()


def work_on(number: int, url: str, study: str) -> WorkerEnd:
    """A worker process."""
    worker = open_session(url, f"w{number}", study)
    worker.presence.register(worker.name, fresh_seconds=60)
    end = work(worker, ladder_objective, LeaveRequest(), worker.record.generation)
    worker.storage.close()
    return end


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
    session = new_session("one", spec=ladder_spec(6))
    with caplog.at_level(logging.INFO):
        run_all(session)
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
    fail_trial(session.optuna_storage, trials[0], LOST)
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
    leader, other = claim_cell(session), claim_cell(session)
    climb(session, leader, (0.7, 0.8))
    climb(session, other)
    assert session.rungs.decide(rule_of(session)) is not None
    again = session.ledger.claim("worker", session.record.generation, [leader.cell_id])
    assert again is not None
    (held,) = session.ledger.held_cells()
    assert session.recovery.requeue(held, KILLED)
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


def test_cells_that_cannot_be_cut_go_on_ahead(new_session: Sessions) -> None:
    """With two on their way the best goes on, with one the second too; the decision cuts whom it cuts without that."""
    session = new_session("one", spec=ladder_spec(6))
    rule = rule_of(session)
    claims = [claim_cell(session) for _ in range(6)]
    curves = [(0.5, 0.6), (0.5, 0.8), (0.6, 0.7), (0.4, 0.41)]
    for claim, curve in zip(claims[:3], curves[:3], strict=True):
        climb(session, claim, curve)
    assert session.rungs.let_on_ahead(rule) is None  # three are on their way, and three are kept
    climb(session, claims[3], curves[3])
    best = session.rungs.let_on_ahead(rule)
    assert best is not None
    assert (best.rung, best.n_parked, best.n_cut, best.kept_from) == (RUNG, 1, 0, 0.8)
    assert session.rungs.let_on_ahead(rule) is None
    again = claim_cell(session)
    assert (again.cell_id, again.rung, again.attempt) == (claims[1].cell_id, RUNG, 1)
    assert session.rungs.decide(rule) is None
    climb(session, claims[4], (0.5, 0.62))
    second = session.rungs.let_on_ahead(rule)
    assert second is not None
    assert (second.n_parked, second.kept_from) == (1, 0.7)
    assert verify_study(session).problems == ()
    climb(session, claims[5], (0.5, 0.65))
    decided = session.rungs.decide(rule)
    assert decided is not None
    assert (decided.leader, decided.n_parked, decided.n_cut, decided.kept_from) == (claims[1].cell_id, 4, 3, 0.65)
    cut_at = [read_cell(session.storage, claim.cell_id).cut_at for claim in claims]
    assert cut_at == [RUNG, None, None, RUNG, RUNG, None]
    assert verify_study(session).problems == ()


@ON_SQLITE
def test_a_leader_that_was_lost_counts_as_on_its_way(new_session: Sessions) -> None:
    """It was beyond the rung, and what it has there is not known until it has come again."""
    session = new_session("one", spec=ladder_spec(2))
    leader, other = claim_cell(session), claim_cell(session)
    climb(session, leader, (0.7, 0.8))
    climb(session, other)
    assert session.rungs.decide(rule_of(session)) is not None
    again = session.ledger.claim("worker", session.record.generation, [leader.cell_id])
    assert again is not None
    (held,) = session.ledger.held_cells()
    assert session.recovery.requeue(held, KILLED)
    create_study(session.storage, ladder_spec(6))
    new = [claim for claim in (claim_cell(session) for _ in range(6)) if claim.trial_id is None and claim.rung == 0]
    for claim, last in zip(new[:2], (0.75, 0.5), strict=True):
        climb(session, claim, (0.4, last))
    assert session.rungs.let_on_ahead(rule_of(session)) is None  # two on their way, and the one that was lost


def test_a_cell_may_come_while_somebody_lets_on(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Postgres it may be seen to be parked by who has not seen its values."""
    claims = [claim_cell(session) for _ in range(4)]
    for claim, last in zip(claims[:3], (0.6, 0.8, 0.7), strict=True):
        climb(session, claim, (0.5, last))
    coming, read_field = claims[3:], Rungs._read_field

    def read_as_one_comes(rungs: Rungs, connection: Connection, rung: int) -> Field:
        field = read_field(rungs, connection, rung)
        if coming:
            climb(session, coming.pop(), (0.5, 0.9))
        return field

    monkeypatch.setattr(Rungs, "_read_field", read_as_one_comes)
    found = session.rungs.let_on_ahead(rule_of(session))
    assert found is not None
    assert (found.n_parked, found.kept_from) == (3, 0.7)


@ON_SQLITE
@pytest.mark.parametrize("is_ahead", [True, False])
def test_a_cell_that_fails_beyond_a_rung_still_counts_there(new_session: Sessions, is_ahead: bool) -> None:
    """Let on ahead and failed for good before the decision, it cuts whom it would have cut before it failed."""
    session = new_session("one", spec=ladder_spec(5))
    claims = [claim_cell(session) for _ in range(5)]
    for claim, value in zip(claims[:4], (0.81, 0.82, 0.83, 0.9), strict=True):
        climb(session, claim, (value, value))
    if is_ahead:
        assert session.rungs.let_on_ahead(rule_of(session)) is not None
        set_cell(session.storage, claims[3].cell_id, state=State.FAILED)
    climb(session, claims[4], (0.8, 0.8))
    decided = session.rungs.decide(rule_of(session))
    assert decided is not None
    assert (decided.leader, decided.kept_from, decided.n_cut) == (claims[3].cell_id, 0.82, 2)


@ON_SQLITE
def test_values_are_read_again_only_if_a_cell_has_moved(new_session: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits asks five times a second."""
    session = new_session("one", spec=ladder_spec(5))
    claims = [claim_cell(session) for _ in range(5)]
    n_reads, read_field = 0, Rungs._read_field

    def count_and_read(rungs: Rungs, connection: Connection, rung: int) -> Field:
        nonlocal n_reads
        n_reads += 1
        return read_field(rungs, connection, rung)

    monkeypatch.setattr(Rungs, "_read_field", count_and_read)
    for claim in claims[:4]:
        climb(session, claim, (math.nan, math.nan))
    for _ in range(3):
        assert session.rungs.let_on_ahead(rule_of(session)) is None
    assert n_reads == 1
    session.ledger.give_back(claims[4].cell_id, claims[4].token, count_lost=False)
    assert session.rungs.let_on_ahead(rule_of(session)) is None
    assert n_reads == 2


@ON_SQLITE
def test_a_worker_that_finds_nothing_lets_cells_on(new_session: Sessions) -> None:
    """One cell is held by somebody else; the best two of the others are trained to the next rung, and no further."""
    session = new_session("one", spec=ladder_spec(5))
    held = claim_cell(session)
    leave = LeaveWhenIdle()
    assert work(session, ladder_objective, leave, session.record.generation) is WorkerEnd.STOPPED
    assert sorted(cell.rung for cell in session.history.cells()) == [0, RUNG, RUNG, 2 * RUNG, 2 * RUNG]
    assert verify_study(session).problems == ()
    assert [decided.n_cut for decided in session.rungs.decided()] == [0]
    run_attempt(session, held, ladder_objective, lambda: False, session.record.generation)
    run_all(session)
    assert verify_study(session).problems == ()
    assert cut_cells(session) == expected_cuts(session.record.spec)
