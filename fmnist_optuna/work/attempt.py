"""One attempt at one cell: create its trial, bind it, run an objective, and finish the cell by what came of it.

What the objective is, Keras or a stub, is not known here; `work.objective` has the Keras one.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

import optuna

from fmnist_optuna.bridge.artifacts import discard_artifacts
from fmnist_optuna.bridge.attributes import read_attempt, read_attributes
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.orphans import fail_orphan, fail_trial
from fmnist_optuna.bridge.trials import Outcome, tell
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import StorageError, is_ctrl_c
from fmnist_optuna.ledger.holders import machine_identity
from fmnist_optuna.ledger.outages import is_of_database
from fmnist_optuna.ledger.records import Claim, TrialAttributes
from fmnist_optuna.ledger.rung_records import DecidedRung
from fmnist_optuna.ledger.states import State
from fmnist_optuna.log import bound_fields, log_event
from fmnist_optuna.search.cell import Params, trial_seed
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.study.kills import read_oom_counter
from fmnist_optuna.study.new_trial import create_trial
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.environment import CHANGES_NO_NUMBER, differences, read_environment
from fmnist_optuna.work.running_trial import LostCellError, Renewal, RunningTrial

logger = logging.getLogger(__name__)

GIVE_BACK_SECONDS = 3.0  # that the database is waited for once the place of the artifacts has failed


class Objective(Protocol):
    """Trains one cell and says what came of it."""

    def __call__(self, params: Params, seed: int, running: RunningTrial, /) -> Outcome | None:
        """Run the cell; None when `running.ending` says that it was lost or stopped."""


def run_attempt(
    session: Session, claim: Claim, objective: Objective, must_stop: Callable[[], bool], generation: int
) -> None:
    """Carry one claim through to its end, or to the next rung.

    Raises:
        StorageError: The database was away for longer than the patience; the lease then runs out. Or the place of the
            artifacts was, or refuses what is asked of it; the cell then waits again.
    """
    seed = trial_seed(session.record.spec.training.seed, claim.cell_id)
    try:
        trial = _find_trial(session, claim, seed)
    except KeyError:  # the study was deleted
        return
    if trial is None:
        return
    running = _begin(session, claim, trial, must_stop, generation)
    ids: dict[str, object] = {"trial": trial.number, "cell": claim.cell_id}
    error: str | None = None
    outcome: Outcome | None = None
    try:
        with bound_fields(**ids), Renewal(running, lambda: session.presence.touch(session.name)):
            outcome = _checked(_train(session, objective, seed, running), running.metric)
            _note_accuracy(session, running, outcome)
    except StorageError as away:
        if not is_of_database(away):
            _give_back(session, running)
        raise
    except LostCellError:
        running.ending = "lost"
    except BaseException as raised:  # sys.exit in a callback ends the attempt, not the worker
        if is_ctrl_c(raised):
            raise
        running.ending, error = "exception", describe_error(raised)
        log_event(logger, logging.ERROR, "trial_failed", raised, **ids, error=error)
    _end(session, running, outcome, error)


def _give_back(session: Session, running: RunningTrial) -> None:
    """Let the cell wait again as that of a worker that is asked to leave: nothing counts against it."""
    until = time.monotonic() + GIVE_BACK_SECONDS
    running.ending = "stopped"
    try:
        with session.storage.giving_up_when(lambda: time.monotonic() > until):
            _end(session, running, None, None)
    except StorageError as error:  # another worker takes the cell over
        log_event(logger, logging.WARNING, "not_handed_back", cell=running.claim.cell_id, error=str(error))


def _begin(
    session: Session, claim: Claim, trial: optuna.Trial, must_stop: Callable[[], bool], generation: int
) -> RunningTrial:
    """The attempt as its objective sees it, with the rung that it trains to."""
    n_recorded = 0 if claim.trial_id is None else len(session.history.curve(claim.trial_id))
    if claim.trial_id is None:
        how: dict[str, object] = {"trial": trial.number, "cell": claim.cell_id, "attempt": claim.attempt}
        log_event(logger, logging.INFO, "trial_began", **how, params=claim.params)
    pause_at = session.ladder.next_rung(claim.rung) if session.ladder and claim.cut_at is None else claim.cut_at
    metric = session.record.metric
    return RunningTrial(session.ledger, claim, trial, must_stop, generation, pause_at, n_recorded, metric)


def _end(session: Session, running: RunningTrial, outcome: Outcome | None, error: str | None) -> None:
    """Park the cell, or tell Optuna what came of the trial and copy that to the cell.

    Args:
        outcome: Of the objective; None if there is none, as `running.ending` says.
        error: What went wrong, when the attempt is to blame.
    """
    trial = running.trial
    if not running.is_there():  # nothing of what has its id now is this attempt's
        ids: dict[str, object] = {"trial": trial.number, "cell": running.claim.cell_id}
        log_event(logger, logging.INFO, "trial_dropped", **ids, reason="lost")
        return
    if outcome is not None and outcome.state is State.PARKED:
        _park(session, running)
        return
    if outcome is not None:
        tell(session.optuna_study, trial, outcome)
    else:
        loss = TrialAttributes(reason=running.ending or "lost", error=error)
        fail_trial(session.storage, trial_id_of(trial), loss)
    _finish(session, running.claim, trial_id_of(trial))


def _note_accuracy(session: Session, running: RunningTrial, outcome: Outcome | None) -> None:
    """Let the accuracy stand on a trial that is about to have a value of another metric.

    Raises:
        LostCellError: The trial was finished by somebody else.
    """
    if running.metric.is_accuracy or outcome is None or outcome.state is State.PARKED:
        return
    accuracy = outcome.val_accuracy
    if outcome.state is State.PRUNED:
        curve = session.history.curve(trial_id_of(running.trial))
        accuracy = curve[-1].val_accuracy if curve else None
    running.note(TrialAttributes(val_accuracy=accuracy))


def _checked(outcome: Outcome | None, metric: Metric) -> Outcome | None:
    """The same; a COMPLETE trial without a finite value is the objective's error (inf would be the best of all)."""
    if outcome is None or outcome.state is not State.COMPLETE:
        return outcome
    if outcome.value is None or not math.isfinite(outcome.value):
        raise ValueError(f"the {metric.name} of a finished training must be finite, but is {outcome.value}")
    return outcome


def _train(session: Session, objective: Objective, seed: int, running: RunningTrial) -> Outcome | None:
    """Run the objective, which pauses where the cell is cut too; a cell that has come there already trains no more."""
    claim = running.claim
    if claim.cut_at is None or running.n_recorded < claim.cut_at:
        if claim.trial_id is not None:
            running.go_on(session.name)
        outcome = objective(claim.params, seed, running)
        if claim.cut_at is None or outcome is None or outcome.state is not State.PARKED:
            return outcome
    running.note(TrialAttributes(reason="pruned"))
    return Outcome(State.PRUNED, reason="pruned")


def _park(session: Session, running: RunningTrial) -> None:
    """Free the worker; whoever parks the last cell of a rung decides it."""
    claim, trial, rung = running.claim, running.trial, running.pause_at
    if rung is None:
        raise RuntimeError("a cell is parked at a rung only")
    is_parked = session.ledger.park(claim, trial_id_of(trial), rung)
    event = "trial_parked" if is_parked else "trial_dropped"
    log_event(logger, logging.INFO, event, trial=trial.number, cell=claim.cell_id, rung=rung)
    decide_rung(session)


def decide_rung(session: Session) -> bool:
    """Decide the lowest rung with parked cells, unless others are on their way to it; whether this call did."""
    decided = None if session.ladder is None else session.rungs.decide(session.ladder, session.given_up)
    return _log_decided("rung_decided", decided)


def let_on_ahead(session: Session) -> bool:
    """Let cells go on that the others on their way to a rung cannot have cut any more; whether there were any."""
    decided = None if session.ladder is None else session.rungs.let_on_ahead(session.ladder)
    return _log_decided("went_on_ahead", decided)


def _log_decided(event: str, decided: DecidedRung | None) -> bool:
    if decided is None:
        return False
    how: dict[str, object] = {"rung": decided.rung, "cells": decided.n_parked, "cut": decided.n_cut}
    log_event(logger, logging.INFO, event, **how, leader=decided.leader_value)
    return True


def _find_trial(session: Session, claim: Claim, seed: int) -> optuna.Trial | None:
    """A new trial, bound to the cell, or the one that it was parked with; None if there is nothing to train.

    Raises:
        KeyError: The study was deleted.
    """
    if claim.trial_id is None:
        return _create_trial(session, claim, seed)
    return _go_on(session, claim, claim.trial_id)


def _go_on(session: Session, claim: Claim, trial_id: int) -> optuna.Trial | None:
    """The trial that the cell was parked with; None if it has ended, which is then copied to the cell.

    It ends here where the numbers of what is trained from here would be others: else its curve would be a mixture.
    """
    try:
        trial = session.optuna_storage.get_trial(trial_id)
    except KeyError:  # somebody deleted the trial in the database
        session.ledger.give_back(claim.cell_id, claim.token, count_lost=True)
        return None
    if not trial.state.is_finished():
        is_trained = claim.cut_at is None
        reasons = _find_differences(session, read_attributes(trial)) if is_trained else []
        if not reasons:
            return optuna.Trial(session.optuna_study, trial_id)
        how: dict[str, object] = {"trial": trial.number, "cell": claim.cell_id, "differences": "; ".join(reasons)}
        log_event(logger, logging.WARNING, "trial_begins_anew", **how)
        fail_trial(session.storage, trial_id, TrialAttributes(reason="moved"))
    _finish(session, claim, trial_id)
    return None


def _find_differences(session: Session, noted: TrialAttributes) -> list[str]:
    """Why a trial would go on with other numbers here, a line each; none where what it began with is not known."""
    lines = [] if noted.environment is None else differences(noted.environment, read_environment())
    found = [line for line in lines if line.partition(":")[0] not in CHANGES_NO_NUMBER]
    if None not in (noted.code, session.code) and noted.code != session.code:
        found.append("the user's code: then another")
    return found


def _create_trial(session: Session, claim: Claim, seed: int) -> optuna.Trial | None:
    """One transaction makes a RUNNING trial with what ties it to the claim; None if the cell is another's by then."""
    attributes = TrialAttributes(
        worker=session.name,
        attempt=claim.attempt,
        seed=seed,
        environment=read_environment(),
        code=session.code,
        machine=machine_identity(),
        oom_counter=read_oom_counter(),
    )
    trial_id = create_trial(session, claim.cell_id, claim.token, claim.params, attributes)
    trial = optuna.Trial(session.optuna_study, trial_id)
    if session.ledger.bind(claim, trial_id, trial.number):  # nothing trains, reports or tells before this
        return trial
    fail_orphan(session.storage, trial_id, claim.token)
    session.ledger.give_back(claim.cell_id, claim.token, count_lost=False)  # a crash of Postgres took the trial alone
    log_event(logger, logging.INFO, "trial_dropped", trial=trial.number, cell=claim.cell_id, reason="lost")
    return None


def _finish(session: Session, claim: Claim, trial_id: int) -> None:
    """Copy the trial as it now stands, whoever finished it, to the cell if that is still this claim's."""
    try:
        trial = session.optuna_storage.get_trial(trial_id)
    except KeyError:  # the study was deleted
        return
    attempt = read_attempt(trial, metric=session.record.metric)
    is_finished = session.ledger.finish_cell(claim.cell_id, claim.token, attempt)
    if attempt.state is State.FAILED:  # fenced, or its objective failed after it had stored its weights
        discard_artifacts(session.store, session.optuna_storage, trial)
    if attempt.state.has_result:  # or the next attempt may go on from it
        session.checkpoints.remove(claim.cell_id)
    event = "trial_ended" if is_finished else "trial_dropped"
    how: dict[str, object] = {
        "state": attempt.state.optuna_name,
        "value": attempt.value,
        "val_accuracy": attempt.val_accuracy,
        "reason": attempt.attributes.reason,
    }
    log_event(logger, logging.INFO, event, trial=trial.number, cell=claim.cell_id, **how)
