"""Cells that go on ahead of their rung's decision, as it cannot cut them any more."""

import math
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rung_study import RUNG, climb, lose_leader, rule_of, run_all
from small_study import (
    FAST,
    ON_SQLITE,
    claim_cell,
    create_study,
    cut_cells,
    expected_cuts,
    ladder_objective,
    ladder_spec,
    read_cell,
    set_cell,
)
from sqlalchemy.engine import Connection

from fmnist_optuna.ledger.rung_records import CellsAtRung, DecidedRung
from fmnist_optuna.ledger.rungs import Rungs
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.work import loop
from fmnist_optuna.work.attempt import run_attempt
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work

pytestmark = pytest.mark.more

Sessions = Callable[..., Session]


@pytest.fixture
def session(new_session: Sessions) -> Session:
    """At work on a study of four cells with rungs."""
    return new_session("worker", spec=ladder_spec(4))


class LeaveWhenIdle(LeaveRequest):
    """A worker leaves where it would wait."""

    def wait(self, seconds: float) -> None:
        self.set()


class TenSeconds(LeaveRequest):
    """Time passes where a worker waits, and after ten seconds it is asked to leave."""

    now = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= 10:
            self.set()


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
    lose_leader(session)
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

    def read_as_one_comes(rungs: Rungs, connection: Connection, rung: int) -> CellsAtRung:
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

    def count_and_read(rungs: Rungs, connection: Connection, rung: int) -> CellsAtRung:
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


@ON_SQLITE
def test_who_waits_at_a_rung_reads_often_and_writes_seldom(
    new_session: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five looks a second; every two seconds a claim, a look at the dead and a sign of life, as without rungs."""
    session = new_session("idle", spec=ladder_spec(4), timing=replace(FAST, poll_seconds=2.0))
    for claim in [claim_cell(session) for _ in range(4)][:3]:
        climb(session, claim, (math.nan, math.nan))  # nobody goes on ahead, and the fourth never comes
    leave, n_looks, n_writes = TenSeconds(), 0, 0
    decide, write = Rungs.decide, Storage.write

    def count_and_decide(rungs: Rungs, rule: LadderRule, given_up: Collection[str]) -> DecidedRung | None:
        nonlocal n_looks
        n_looks += 1
        return decide(rungs, rule, given_up)

    def count_and_write(storage: Storage) -> AbstractContextManager[Connection]:
        nonlocal n_writes
        n_writes += 1
        return write(storage)

    monkeypatch.setattr(Rungs, "decide", count_and_decide)
    monkeypatch.setattr(Storage, "write", count_and_write)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: leave.now, perf_counter=lambda: leave.now))
    assert work(session, ladder_objective, leave, session.record.generation) is WorkerEnd.STOPPED
    assert n_looks >= 50
    assert n_writes <= 3 * 6 + 1  # the last one as it leaves
