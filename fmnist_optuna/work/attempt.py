"""One attempt at one cell: create its trial, bind it, run an objective, and finish the cell by what came of it.

What the objective is, Keras or a stub, is not known here; `work.objective` has the Keras one.
"""

import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

import optuna

from fmnist_optuna.bridge.artifacts import remove_artifacts
from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.trials import Outcome, fail_trial, note, tell
from fmnist_optuna.errors import StorageError, is_ctrl_c
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.holders import machine_identity
from fmnist_optuna.ledger.records import Claim, TrialAttributes
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.log import bound_fields, log_event
from fmnist_optuna.search.cell import Params, trial_seed
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.kills import read_oom_counter
from fmnist_optuna.study.new_trial import create_trial
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import describe_error
from fmnist_optuna.work.environment import read_environment

logger = logging.getLogger(__name__)


class LostCellError(Exception):
    """The cell is no longer this attempt's; everything it did is dropped quietly."""


class RunningTrial:
    """What an objective sees of its attempt.

    Args:
        ledger: The cells.
        claim: The right to this one.
        trial: Optuna's trial, bound to the cell.
        must_stop: Whether this process was asked to leave.
        generation: The study's stop generation when this worker began.
    """

    def __init__(
        self, ledger: Ledger, claim: Claim, trial: optuna.Trial, must_stop: Callable[[], bool], generation: int
    ) -> None:
        self.ledger = ledger
        self.trial = trial
        self.claim = claim
        self.last_progress = time.monotonic()
        self._must_stop = must_stop
        self._generation = generation
        self._is_lost = threading.Event()
        self.ending: Reason | None = None

    def report(self, epoch: Epoch, *, can_prune: bool = True) -> bool:
        """Record an epoch: renew the lease, store it, tell Optuna, ask the pruner.

        Args:
            can_prune: False when training ends with this epoch anyway.

        Returns:
            Whether training is to go on. When not, `ending` says why: pruned, stopped, or lost.
        """
        self.last_progress = time.monotonic()
        generation = None
        if not self._is_lost.is_set():
            generation = self.ledger.record_epoch(self.claim, trial_id_of(self.trial), epoch)
        if generation is None:
            self.ending = "lost"
        elif generation > self._generation or self._must_stop():
            self.ending = "stopped"
        elif self._tell_pruner(epoch) and can_prune:
            self.ending = "pruned"
        return self.ending is None

    def _tell_pruner(self, epoch: Epoch) -> bool:
        try:
            self.trial.report(epoch.val_accuracy, epoch.epoch)
            return self.trial.should_prune()
        except (optuna.exceptions.UpdateFinishedTrialError, KeyError):
            self._is_lost.set()  # somebody failed or deleted the trial: the next look at the ledger agrees
            return False

    def note(self, attributes: TrialAttributes) -> None:
        """Note something on the trial.

        Raises:
            LostCellError: The trial was finished by somebody else.
        """
        try:
            note(self.trial, attributes)
        except (optuna.exceptions.UpdateFinishedTrialError, KeyError) as error:
            raise LostCellError from error

    def renew(self) -> bool:
        """Renew the lease from the small thread, unless progress is older than the stall limit; False when lost."""
        if self._is_lost.is_set():
            return False
        if time.monotonic() - self.last_progress > self.ledger.storage.timing.stall_seconds:
            ids: dict[str, object] = {"trial": self.trial.number, "cell": self.claim.cell_id}
            log_event(logger, logging.WARNING, "training_stalled", **ids, note="its lease is renewed no more")
            self._is_lost.set()
        elif not self.ledger.renew(self.claim):
            self._is_lost.set()
        return not self._is_lost.is_set()


class Objective(Protocol):
    """Trains one cell and says what came of it."""

    def __call__(self, params: Params, seed: int, running: RunningTrial, /) -> Outcome | None:
        """Run the cell; None when `running.ending` says that it was lost or stopped."""


def run_attempt(
    session: Session, claim: Claim, objective: Objective, must_stop: Callable[[], bool], generation: int
) -> None:
    """Carry one claim through to its end.

    Raises:
        StorageError: The database was away for longer than the patience; the lease then runs out.
    """
    seed = trial_seed(session.record.spec.training.seed, claim.cell_id)
    try:
        trial = _create_trial(session, claim, seed)
    except KeyError:  # the study was deleted
        return
    # Nothing trains, reports or tells before this.
    if not session.ledger.bind(claim, trial_id_of(trial), trial.number):
        fail_trial(session.optuna_storage, trial_id_of(trial), TrialAttributes(reason="lost"))
        return
    ids: dict[str, object] = {"trial": trial.number, "cell": claim.cell_id}
    log_event(logger, logging.INFO, "trial_began", **ids, attempt=claim.attempt, params=claim.params)
    running = RunningTrial(session.ledger, claim, trial, must_stop, generation)
    error: str | None = None
    outcome: Outcome | None = None
    try:
        with bound_fields(**ids), _Renewal(running, lambda: session.presence.touch(session.name)):
            outcome = _checked(objective(claim.params, seed, running))
    except StorageError:
        raise
    except LostCellError:
        running.ending = "lost"
    except BaseException as raised:  # sys.exit in a callback ends the attempt, not the worker
        if is_ctrl_c(raised):
            raise
        running.ending, error = "exception", describe_error(raised)
        log_event(logger, logging.ERROR, "trial_failed", raised, **ids, error=error)
    if outcome is not None:
        tell(session.optuna_study, trial, outcome)
    else:
        loss = TrialAttributes(reason=running.ending or "lost", error=error)
        fail_trial(session.optuna_storage, trial_id_of(trial), loss)
    _finish(session, claim, trial_id_of(trial))


def _checked(outcome: Outcome | None) -> Outcome | None:
    """The same; a COMPLETE trial without a finite value is the objective's error (inf would be the best of all)."""
    if outcome is None or outcome.state is not State.COMPLETE:
        return outcome
    if outcome.val_accuracy is None or not math.isfinite(outcome.val_accuracy):
        raise ValueError(f"the val_accuracy of a finished training must be finite, but is {outcome.val_accuracy}")
    return outcome


def _create_trial(session: Session, claim: Claim, seed: int) -> optuna.Trial:
    """One transaction makes a RUNNING trial with its parameters and what ties it to the claim."""
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
    return optuna.Trial(session.optuna_study, trial_id)


def _finish(session: Session, claim: Claim, trial_id: int) -> None:
    """Copy the trial as it now stands, whoever finished it, to the cell if that is still this claim's."""
    try:
        trial = session.optuna_storage.get_trial(trial_id)
    except KeyError:  # the study was deleted
        return
    attempt = read_attempt(trial)
    is_finished = session.ledger.finish_cell(claim.cell_id, claim.token, attempt)
    if attempt.state is State.FAILED:  # fenced, or its objective failed after it had stored its weights
        remove_artifacts(session.storage.artifacts, session.optuna_storage, trial)
    event = "trial_ended" if is_finished else "trial_dropped"
    how: dict[str, object] = {
        "state": attempt.state.optuna_name,
        "val_accuracy": attempt.val_accuracy,
        "reason": attempt.attributes.reason,
    }
    log_event(logger, logging.INFO, event, trial=trial.number, cell=claim.cell_id, **how)


class _Renewal:
    """The small thread that renews the lease while an epoch lasts long.

    Args:
        running: Whose lease it is.
        touch: Says that the worker is still there.
    """

    def __init__(self, running: RunningTrial, touch: Callable[[], None]) -> None:
        self._running = running
        self._touch = touch
        self._done = threading.Event()
        in_context = contextvars.copy_context().run  # what it logs carries the fields of the attempt
        self._thread = threading.Thread(target=in_context, args=(self._renew,), name="renewal", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._done.wait(self._running.ledger.storage.timing.renewal_seconds):
            try:
                if self._running.renew():
                    self._touch()
            except StorageError:
                return  # the training thread meets the same outage and says so
