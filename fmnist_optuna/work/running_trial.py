"""What an objective sees of its attempt: where it reports its epochs, and who holds the lease meanwhile."""

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Sequence

import optuna

from fmnist_optuna.bridge.attributes import read_legs
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.orphans import is_made_for, token_of
from fmnist_optuna.bridge.trials import note
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.records import Claim, Leg, TrialAttributes
from fmnist_optuna.ledger.states import Reason
from fmnist_optuna.log import log_event
from fmnist_optuna.search.metric import VAL_ACCURACY, Epoch, Metric

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
        pause_at: Number of epochs after which the training pauses; None if it goes on to its end.
        n_recorded: Number of epochs that the trial has already.
        metric: That the study compares by: what the pruner is told.
    """

    def __init__(
        self,
        ledger: Ledger,
        claim: Claim,
        trial: optuna.Trial,
        must_stop: Callable[[], bool],
        generation: int,
        pause_at: int | None = None,
        n_recorded: int = 0,
        metric: Metric = VAL_ACCURACY,
    ) -> None:
        self.ledger = ledger
        self.trial = trial
        self.claim = claim
        self.pause_at = pause_at
        self.n_recorded = n_recorded
        self.metric = metric
        self.last_progress = time.monotonic()
        self._must_stop = must_stop
        self._generation = generation
        self._is_lost = threading.Event()
        self._token = token_of(trial)
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
        if generation is not None:
            self._log_epoch(epoch)
        if generation is None:
            self.ending = "lost"
        elif generation > self._generation or self._must_stop():
            self.ending = "stopped"
        elif epoch.epoch >= self.n_recorded and self._tell_pruner(epoch) and can_prune:
            self.ending = "pruned"
        return self.ending is None

    def _log_epoch(self, epoch: Epoch) -> None:
        measured = {name: number for name, number in vars(epoch).items() if name != "objective"}
        ids: dict[str, object] = {"trial": self.trial.number, "cell": self.claim.cell_id}
        log_event(logger, logging.DEBUG, "epoch_ended", **ids, **measured, value=self.metric.value_of(epoch))

    def keep(self, epochs: Sequence[Epoch]) -> bool:
        """Record the epochs of an earlier attempt that this one goes on from; False when the cell is lost."""
        new = epochs[self.n_recorded : self.pause_at]
        if new:
            self.note(TrialAttributes(kept_epochs=self.n_recorded + len(new)))
            if not self.ledger.keep_epochs(self.claim, trial_id_of(self.trial), new):
                self.ending = "lost"
            for epoch in new:
                self._tell_pruner(epoch)
            self.n_recorded += len(new)
        return self.ending is None

    def go_on(self, worker: str) -> None:
        """Note that a worker trains the trial from here, after a pause.

        Raises:
            LostCellError: The trial was finished by somebody else.
        """
        legs = read_legs(self.trial)
        self.note(TrialAttributes(legs=(*legs, Leg(self.n_recorded, time.time(), worker))))

    def log_going_on(self, origin: str) -> None:
        """Say in the log that the trial goes on after a pause, if it does.

        Args:
            origin: Where the objective has it from: "memory", "checkpoint", or "start" where it trains it once more.
        """
        claim = self.claim
        if claim.trial_id is not None:
            how: dict[str, object] = {"trial": self.trial.number, "cell": claim.cell_id, "attempt": claim.attempt}
            how |= {"params": claim.params, "epochs": self.n_recorded, "origin": origin}
            log_event(logger, logging.INFO, "trial_goes_on", **how)

    def _tell_pruner(self, epoch: Epoch) -> bool:
        try:
            self.trial.report(self.metric.value_of(epoch), epoch.epoch)
            return self.trial.should_prune()
        except (optuna.exceptions.UpdateFinishedTrialError, KeyError):
            self._is_lost.set()  # somebody failed or deleted the trial: the next look at the ledger agrees
            return False

    def note(self, attributes: TrialAttributes) -> None:
        """Note something on the trial.

        Raises:
            LostCellError: The trial was finished or deleted by somebody else.
        """
        if not self.is_there():
            raise LostCellError
        try:
            note(self.trial, attributes)
        except (optuna.exceptions.UpdateFinishedTrialError, KeyError) as error:
            raise LostCellError from error

    def is_there(self) -> bool:
        """Whether its trial's id is not that of another trial by now.

        After a study is deleted, SQLite gives the ids of its trials to those of the next one, perhaps of the same name.
        Sequences of Postgres do so after a crash alone, and then for trials that `bind` has refused.
        """
        storage = self.ledger.storage
        if self._token is None or not storage.is_sqlite:
            return True
        return is_made_for(storage, trial_id_of(self.trial), self._token)

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


class Renewal:
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
