"""The Keras objective: builds, trains, reports and stores one cell. The only place where Keras meets Optuna."""

import hashlib
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

import keras
import psutil

from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE
from fmnist_optuna.bridge.attributes import read_told_number
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.errors import ArtifactsError, SpecError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.log import log_event
from fmnist_optuna.search.cell import Params, canonical_json
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.session import Session
from fmnist_optuna.training.cell_training import go_on_with_cell
from fmnist_optuna.training.checkpoint import Identity
from fmnist_optuna.training.paused import BYTES_AT_MOST, PausedTrainings
from fmnist_optuna.training.resident_data import FoldedData, ResidentData
from fmnist_optuna.training.running_cell import CellTraining
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.work.environment import CHANGES_NO_NUMBER, read_environment
from fmnist_optuna.work.running_trial import RunningTrial
from fmnist_optuna.work.trial_files import (
    bring_checkpoint,
    keep_folder,
    keep_results,
    make_folder,
    save_checkpoint,
    write_checkpoint,
)

logger = logging.getLogger(__name__)

SHARE_FOR_PAUSED = 0.25  # of what a memory limit leaves: the rest is for the cell that trains
LONG_SECONDS = 3.5  # of an epoch: a worker that has ten to leave may not come to the end of the next one


class KerasObjective:
    """Trains one cell after another on the same resident data, each to its end or to the next rung.

    Args:
        session: The study's, at whose storage the checkpoints are.
        data: Training and validation images.
        memory_limit_bytes: Resident size beyond which this process is replaced, or is killed while it trains.
    """

    def __init__(
        self, session: Session, data: ResidentData | FoldedData, memory_limit_bytes: int | None = None
    ) -> None:
        record = session.record
        self._seconds = record.spec.training.checkpoint_seconds
        self._must_keep = session.ladder is not None  # a study without rungs may have callbacks that cannot be stored
        self._checkpoints = session.checkpoints
        self._store = session.store
        self._history = session.history
        self._code = UserCode(record.spec, data.info)
        self._data = data
        self._memory_limit = math.inf if memory_limit_bytes is None else memory_limit_bytes
        room = SHARE_FOR_PAUSED * max(0.0, self._memory_limit - _read_size())
        self._paused = PausedTrainings(self._code, bytes_at_most=min(BYTES_AT_MOST, room))
        trained_with: dict[str, Json] = {
            "spec": record.spec.trained_part(),
            "data": record.data_fingerprint,
            "code": session.code,
        }
        if record.is_on_all_data:  # of the same cells and seeds as a confirmation, on more images
            trained_with["is_on_all_data"] = True
        if record.teacher is not None:
            trained_with["soft_labels"] = record.teacher.sha256
        self._fingerprint = hashlib.sha256(canonical_json(trained_with).encode()).hexdigest()

    def in_memory(self) -> list[str]:
        """The cells whose trainings wait in memory."""
        return self._paused.cells()

    def __call__(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        """Train one cell; the same seed gives the same curve, bit for bit, on the same machine."""
        try:
            return self._train(params, seed, running)
        finally:
            if _read_size() > self._memory_limit:  # what waits here can be had from files, without a new process
                self._paused.drop_all()
            self._code.end(keep_models=running.claim.cell_id in self._paused)  # else the model is nobody's any more

    def _train(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        """Go on with a cell where it was paused, or begin it; a cell that pauses again stays in memory."""
        cell_id, storage = running.claim.cell_id, running.ledger.storage
        self.let_go(but=cell_id)
        self._checkpoints.remove_parts(cell_id)
        identity = Identity(cell_id, seed, self._fingerprint, _describe_environment())
        with make_folder(storage) as brought:
            cell = go_on_with_cell(
                self._code,
                params,
                self._data.of(params),
                [StudyCallback(running)],
                identity,
                trial=read_told_number(running.trial),
                n_epochs=running.n_recorded,
                paused=self._paused,
                checkpoint=lambda: bring_checkpoint(storage, self._checkpoints, cell_id, Path(brought)),
                make_folder=lambda: make_folder(storage),
            )
        outcome: Outcome | None = None
        try:
            outcome = self._run(cell, running, identity)
            return outcome
        finally:
            if outcome is not None and outcome.state is State.PARKED:
                self._paused.keep(cell_id, cell)
            else:
                cell.close()

    def let_go(self, but: str | None = None) -> None:
        """End trainings in memory that were cut, and free the memory of those that are trained elsewhere.

        Args:
            but: The cell that is trained now.
        """
        others = [each for each in self._paused.cells() if each != but]
        if others:
            self._paused.end(self._history.cut(others))
            self._paused.drop_idle(others, self._history.resting(others))

    def _run(self, cell: CellTraining, running: RunningTrial, identity: Identity) -> Outcome | None:
        """Train to the next rung or to the end, as far as the study lets it."""
        running.log_going_on(cell.origin)
        if cell.unusable:
            log_event(logger, logging.WARNING, "checkpoint_not_used", reason=f"it {cell.unusable}")
        if not running.keep(cell.epochs):
            return None
        if cell.trial != read_told_number(running.trial):
            running.note(TrialAttributes(told_number=cell.trial))
        saved = time.monotonic()
        until = running.pause_at or math.inf
        while running.ending is None and not cell.is_over and cell.n_epochs < until:
            began = time.monotonic()
            cell.run(cell.n_epochs + 1)
            if running.ending is None and not cell.is_over and self._is_due(began, saved):
                self._save(cell, running, identity, is_needed=False)
                saved = time.monotonic()
        if running.ending == "stopped":
            self._save(cell, running, identity, is_needed=False)
        if running.ending in ("lost", "stopped"):
            return None
        if running.ending is None and not cell.is_over:
            self._save(cell, running, identity, is_needed=True)
            return Outcome(State.PARKED)
        return self._finish(cell, running)

    def _is_due(self, began: float, saved: float) -> bool:
        """Whether the last checkpoint is old enough for another, or the epoch too long to be trained once more.

        Args:
            began: When the epoch that has just ended began.
        """
        now = time.monotonic()
        return now - saved > self._seconds or now - began > LONG_SECONDS

    def _finish(self, cell: CellTraining, running: RunningTrial) -> Outcome:
        """End the training and keep what came of it."""
        result = cell.finish()
        if result.is_diverged or running.ending == "pruned":
            reason: Reason = "diverged" if result.is_diverged else "pruned"
            running.note(TrialAttributes(reason=reason))
            keep_folder(self._store, cell.folder, running)
            return Outcome(State.PRUNED, reason=reason)
        running.note(TrialAttributes(best_epoch=result.best_epoch, n_parameters=cell.model.count_params()))
        with make_folder(running.ledger.storage) as folder:
            keep_results(self._store, cell, Path(folder) / WEIGHTS_FILE, running)
        return Outcome(State.COMPLETE, result.value, val_accuracy=result.val_accuracy)

    def _save(self, cell: CellTraining, running: RunningTrial, identity: Identity, *, is_needed: bool) -> None:
        """Write a checkpoint; where nothing rests on it, one that cannot be written is let be.

        Args:
            is_needed: Whether the cell is about to be parked; otherwise no bucket is waited for, as the training goes
                on, or the worker is to leave.
        """
        is_waited_for = is_needed or not self._checkpoints.is_remote
        save = save_checkpoint if is_waited_for else write_checkpoint
        try:
            save(running.ledger.storage, cell, self._checkpoints, identity)
        except ArtifactsError as error:
            if is_needed:
                raise
            log_event(logger, logging.WARNING, "no_checkpoint", reason=str(error))
        except (SpecError, OSError) as error:
            if self._must_keep and is_waited_for:
                raise
            level = logging.WARNING if isinstance(error, OSError) else logging.INFO
            log_event(logger, level, "no_checkpoint", reason=str(error))
        else:
            log_event(logger, logging.DEBUG, "checkpoint_written", epochs=cell.n_epochs)
        if self._history.is_over():  # or deleted: whoever removes the checkpoints then may have done so before
            self._checkpoints.remove_all()


def _read_size() -> int:
    """Resident size of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


def _describe_environment() -> str:
    """What the numbers of a training depend on beside seed, data and code, as one string."""
    return canonical_json({name: value for name, value in read_environment().items() if name not in CHANGES_NO_NUMBER})


class StudyCallback(keras.callbacks.Callback):
    """Reports each epoch to the study, which may let the training end with it: `running.ending` says so.

    It never raises out of an epoch and stops nothing itself, as a training that pauses or is stopped goes on later.
    """

    def __init__(self, running: RunningTrial) -> None:
        super().__init__()
        self._running = running
        self._began = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report the epoch; a metric that is missing is an error."""
        metrics, metric = logs or {}, self._running.metric
        measured = Epoch(
            epoch=epoch,
            train_loss=metrics["loss"],
            train_accuracy=metrics["accuracy"],
            val_loss=metrics["val_loss"],
            val_accuracy=metrics["val_accuracy"],
            seconds=time.perf_counter() - self._began,
            objective=float(metrics[metric.name]) if metric.is_compiled else None,
        )
        is_last = self.model.stop_training or epoch + 1 >= self.params["epochs"]
        self._running.report(measured, can_prune=not is_last)
