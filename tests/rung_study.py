"""Studies with rungs, of a stub objective: their cells climb by hand, one after another, or by workers."""

from small_study import KILLED, begin_trial, claim_cell, epoch_of, ladder_objective, open_session

from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.attempt import Objective, decide_rung, run_attempt
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work

RUNG = 2  # the first


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


def run_next(session: Session, objective: Objective = ladder_objective) -> Claim | None:
    """Carry the next claim through."""
    claim = session.ledger.claim(session.name, session.record.generation, given_up=session.given_up)
    if claim is not None:
        run_attempt(session, claim, objective, lambda: False, session.record.generation)
    return claim


def run_all(session: Session, objective: Objective = ladder_objective) -> None:
    """Carry claims through until nothing is left, as the loop of a worker does."""
    while run_next(session, objective) is not None or decide_rung(session):
        pass


def lose_leader(session: Session) -> tuple[Claim, Claim]:
    """The best of two cells is beyond the first rung when its worker is killed; returns its claim and the other one."""
    leader, other = claim_cell(session), claim_cell(session)
    climb(session, leader, (0.7, 0.8))
    climb(session, other)
    assert session.rungs.decide(rule_of(session)) is not None
    again = session.ledger.claim("worker", session.record.generation, [leader.cell_id])
    assert again is not None
    (held,) = session.ledger.held_cells()
    assert session.recovery.requeue(held, KILLED)
    return leader, other


def work_on(number: int, url: str, study: str) -> WorkerEnd:
    """A worker process."""
    worker = open_session(url, f"w{number}", study)
    worker.presence.register(worker.name, fresh_seconds=60)
    end = work(worker, ladder_objective, LeaveRequest(), worker.record.generation)
    worker.storage.close()
    return end
