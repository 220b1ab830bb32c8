"""One attempt at a cell of the small study with a stub objective: carried through, and what it leaves."""

from collections.abc import Callable, Mapping
from typing import Any

from optuna.trial import FrozenTrial
from small_study import LOST, claim_cell

from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.ledger.states import State
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.attempt import Objective, run_attempt
from fmnist_optuna.work.running_trial import RunningTrial

COMPLETE = Outcome(State.COMPLETE, 0.5)


def attempt(session: Session, objective: Objective, must_stop: Callable[[], bool] = lambda: False) -> Claim:
    """Claim the next cell and carry the claim through."""
    claim = claim_cell(session)
    run_attempt(session, claim, objective, must_stop, session.record.generation)
    return claim


def last_trial(session: Session) -> FrozenTrial:
    return session.optuna_storage.get_all_trials(session.record.study_id)[-1]


def requeue_all(session: Session) -> None:
    """What a healer does that takes every holder to be dead."""
    for cell in session.ledger.held_cells():
        assert session.recovery.requeue(cell, LOST)


def boom(_params: Mapping[str, Any], _seed: int, _running: RunningTrial) -> Outcome | None:
    raise ValueError("bad value\nand more")


BOOM = f"ValueError: bad value and more (one_attempt.py, line {boom.__code__.co_firstlineno + 1})"
