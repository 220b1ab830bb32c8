"""The proof of a study's cuts: no correct study is accused, whatever became of its cells, and every edit is found."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from rung_study import climb, rule_of, work_on
from small_study import (
    KILLED,
    ON_SQLITE,
    POSTGRES_SLOW,
    begin_trial,
    claim_cell,
    create_study,
    epoch_of,
    in_processes,
    ladder_curve,
    ladder_objective,
    ladder_spec,
    set_cell,
)
from sqlalchemy import insert, select, update

from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import decisions
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.cuts import explain_cut, verify_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.attempt import decide_rung, let_on_ahead, run_attempt
from fmnist_optuna.work.running_trial import RunningTrial

pytestmark = pytest.mark.more

Sessions = Callable[..., Session]
N_CELLS = 6


@dataclass
class Disorder:
    """Several workers on one study, in an order that is drawn; what goes wrong is drawn as well.

    Args:
        n_workers: How many hold a claim at once.
        kills: Share of the legs in which a worker is killed.
        errors: Share of the legs that raise.
        other_machines: Whether each attempt has numbers of its own, as processors of several kinds give them.
        gives_up: Share of the steps in which a rung is decided without waiting for a cell.
    """

    session: Session
    draw: random.Random
    n_workers: int = 3
    kills: float = 0.0
    errors: float = 0.0
    other_machines: bool = False
    gives_up: float = 0.0
    held: list[Claim] = field(default_factory=list)

    def step(self) -> bool:
        """Do something; False when nothing is left."""
        while len(self.held) < self.n_workers and (claim := self._claim()) is not None:
            self.held.append(claim)
        if self.draw.random() < self.gives_up:
            cell_id = self.draw.choice(self.session.history.cells()).cell_id
            decide_rung(replace(self.session, given_up=frozenset([cell_id])))
        has_let_on = self.draw.random() < 0.5 and let_on_ahead(self.session)
        if not self.held:
            return has_let_on or decide_rung(self.session)
        claim = self.held.pop(self.draw.randrange(len(self.held)))
        if self.draw.random() < self.kills:
            self._die_with(claim)
        else:
            generation = self.session.record.generation
            run_attempt(self.session, claim, self._train, lambda: False, generation)
        return True

    def _claim(self) -> Claim | None:
        return self.session.ledger.claim(self.session.name, self.session.record.generation)

    def _die_with(self, claim: Claim) -> None:
        """A worker is killed at once, or after an epoch."""
        trial_id = begin_trial(self.session, claim) if claim.trial_id is None else claim.trial_id
        n_epochs = len(self.session.history.curve(trial_id)) + self.draw.randrange(2)
        for number, value in enumerate(self._curve(claim)[: min(n_epochs, claim.cut_at or n_epochs)]):
            self.session.ledger.record_epoch(claim, trial_id, epoch_of(number, value))
        held = next(each for each in self.session.ledger.held_cells() if each.cell_id == claim.cell_id)
        assert self.session.recovery.requeue(held, KILLED)

    def _train(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        if self.draw.random() < self.errors:
            raise ValueError(f"drawn {self.draw.random()}")
        if not self.other_machines:
            return ladder_objective(params, seed, running)
        curve, end = self._curve(running.claim), running.pause_at or len(ladder_curve(params))
        for number in range(running.n_recorded, min(end, len(curve))):
            running.report(epoch_of(number, curve[number]))
        return Outcome(State.PARKED) if len(curve) >= end == running.pause_at else Outcome(State.COMPLETE, max(curve))

    def _curve(self, claim: Claim) -> list[float]:
        shift = 0.01 * claim.attempt if self.other_machines else 0.0
        return [value + shift for value in ladder_curve(claim.params)]


def problems(session: Session) -> tuple[str, ...]:
    return verify_study(session).problems


DISORDERS: dict[str, dict[str, Any]] = {
    "order": {},
    "one worker": {"n_workers": 1},
    "kills": {"kills": 0.3},
    "errors": {"errors": 0.2, "kills": 0.1},
    "other machines": {"kills": 0.3, "other_machines": True},
    "given up": {"kills": 0.2, "gives_up": 0.3},
    "all at once": {"kills": 0.2, "errors": 0.15, "other_machines": True, "gives_up": 0.1},
}
OFTEN = ("order", "given up", "all at once")
SELDOM = sorted(set(DISORDERS) - set(OFTEN))


@ON_SQLITE
@pytest.mark.parametrize("grows", [pytest.param(False, id="as it is"), pytest.param(True, id="grows")])
@pytest.mark.parametrize("disorder", [*OFTEN, *SELDOM])
def test_no_correct_study_is_accused(new_session: Sessions, disorder: str, grows: bool) -> None:
    """Neither on its way nor at its end, whether its grid grows at either or cells that failed are retried."""
    session = new_session("one", spec=ladder_spec(N_CELLS))
    drawn = Disorder(session, random.Random(f"{disorder} {grows}"), **DISORDERS[disorder])
    for n_cells in (0, *((N_CELLS + 3, N_CELLS + 4) if grows else ())):
        if n_cells:
            create_study(session.storage, ladder_spec(n_cells))
        n_steps = 0
        while drawn.step():
            n_steps += 1
            assert n_steps % 3 or problems(session) == ()
            if grows and not n_cells and n_steps == 6:
                break
    session.ledger.retry_failed()
    drawn.errors = 0.0
    while drawn.step():
        pass
    assert verify_study(session).ok


@POSTGRES_SLOW
def test_no_study_of_several_processes_is_accused(storage_url: str, new_session: Sessions) -> None:
    """Four workers side by side; then the grid grows, and two go on."""
    session = new_session("reader", spec=ladder_spec(12))
    in_processes(4, work_on, storage_url, session.record.name)
    assert problems(session) == ()
    create_study(session.storage, ladder_spec(16))
    in_processes(2, work_on, storage_url, session.record.name)
    assert verify_study(session).ok


@pytest.fixture
def finished(new_session: Sessions) -> Session:
    """A study that is over, of whose decisions some cut and some let cells on ahead."""
    session = new_session("one", spec=ladder_spec(16))
    drawn = Disorder(session, random.Random(5), kills=0.2)
    while drawn.step():
        pass
    assert verify_study(session).ok
    return session


def decided(session: Session) -> list[Any]:
    with session.storage.read() as connection:
        return list(connection.execute(select(decisions).order_by(decisions.c.decision_id)))


def set_decision(session: Session, decision_id: int, **values: Any) -> None:
    """Write into the row of a decision by hand."""
    with session.storage.write() as connection:
        connection.execute(update(decisions).where(decisions.c.decision_id == decision_id).values(**values))


@ON_SQLITE
def test_every_edit_of_a_decision_is_found(finished: Session) -> None:
    """By a bit or by much, to nothing, to the value of another cell: in each decision, whatever it was about."""
    rows = decided(finished)
    assert {row.n_cut > 0 for row in rows} == {True, False}
    for row in rows:
        curves = [ladder_curve(cell.params) for cell in finished.history.cells() if cell.n_epochs >= row.rung]
        others = sorted({max(curve[: row.rung]) for curve in curves} - {row.kept_from, row.leader_value})
        edits = [
            *({"kept_from": value} for value in (row.kept_from + 1e-12, row.kept_from - 0.01, None, 0.0, 1.0)),
            *({"leader_value": value} for value in (row.leader_value - 1e-12, row.leader_value + 0.01, None, *others)),
            {"leader": ""}, {"leader": "0" * 64}, {"margin": 0.5}, {"n_parked": row.n_parked + 1}, {"n_cut": 0.5},
            *({"kept_from": value} for value in others if row.n_cut),
            *({"kept_from": value} for value in others[:-3]),
        ]  # fmt: skip
        for edit in edits:
            set_decision(finished, row.decision_id, **edit)
            assert problems(finished) != (), (row, edit)
            set_decision(finished, row.decision_id, **{name: getattr(row, name) for name in edit})
    assert problems(finished) == ()


@ON_SQLITE
def test_every_edit_of_a_cut_is_found(finished: Session) -> None:
    """A cell that is cut elsewhere, by another decision or not at all, and one that is not and was said to be."""
    rows = [row for row in decided(finished) if row.n_cut]
    for cell in finished.history.cells():
        for cut_at in {None, 1, 2, 4, 8} - {cell.cut_at}:
            set_cell(finished.storage, cell.cell_id, cut_at=cut_at)
            assert problems(finished) != (), (cell, cut_at)
            set_cell(finished.storage, cell.cell_id, cut_at=cell.cut_at)
        for decision_id in {None, *(row.decision_id for row in rows)} - {cell.decision_id}:
            set_cell(finished.storage, cell.cell_id, decision_id=decision_id)
            assert problems(finished) != (), (cell, decision_id)
            set_cell(finished.storage, cell.cell_id, decision_id=cell.decision_id)
    assert problems(finished) == ()


@ON_SQLITE
def test_a_decision_that_is_gone_is_missed(finished: Session) -> None:
    """Whoever went on or was cut by it has no reason any more."""
    for row in decided(finished):
        with finished.storage.write() as connection:
            connection.execute(decisions.delete().where(decisions.c.decision_id == row.decision_id))
        assert problems(finished) != ()
        with finished.storage.write() as connection:
            connection.execute(insert(decisions).values(row._asdict()))
    assert problems(finished) == ()


@ON_SQLITE
def test_a_cut_is_told_while_its_cell_is_trained_again(new_session: Sessions) -> None:
    """The worker of a cut cell dies before it tells: the new trial has not come to the rung, and the numbers stay."""
    session = new_session("one", spec=ladder_spec(5))
    claims = [claim_cell(session) for _ in range(5)]
    for claim, value in zip(claims, (0.5, 0.6, 0.7, 0.8, 0.9), strict=True):
        climb(session, claim, (value, value))
    assert session.rungs.decide(rule_of(session)) is not None
    first, generation = claims[0].cell_id, session.record.generation
    cut = session.ledger.claim("worker", generation, [first])
    assert cut is not None
    assert cut.trial_id is not None
    told = explain_cut(session, cut.trial_id)
    assert told is not None
    assert told.startswith("cut at epoch 2: 50.0 %")
    assert told.endswith("the best had 90.0 %")
    (held,) = session.ledger.held_cells()
    assert session.recovery.requeue(held, KILLED)
    again = session.ledger.claim("worker", generation, [first])
    assert again is not None
    trial_id = begin_trial(session, again)
    assert explain_cut(session, trial_id) == told
    assert session.ledger.record_epoch(again, trial_id, epoch_of(0, 0.5)) is not None
    assert explain_cut(session, trial_id) == told
