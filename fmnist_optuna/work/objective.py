"""The Keras objective: builds, trains, reports and stores one cell. The only place where Keras meets Optuna."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import keras
from optuna.exceptions import UpdateFinishedTrialError

from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE, is_small, store_folder, store_weights
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.cell_training import train_cell
from fmnist_optuna.training.engine import ResidentData
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.training.weights import save_weights
from fmnist_optuna.work.running_trial import LostCellError, RunningTrial


class KerasObjective:
    """Trains one cell after another on the same resident data.

    Args:
        spec: The study's specification.
        data: Training and validation images.
    """

    def __init__(self, spec: StudySpec, data: ResidentData) -> None:
        self._code = UserCode(spec, data.info)
        self._data = data

    def __call__(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        """Train one cell; the same seed gives the same curve, bit for bit, on the same machine."""
        try:
            return self._train(params, seed, running)
        finally:  # the model is nobody's any more
            self._code.end()

    def _train(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        storage = running.ledger.storage
        with _make_folder(storage) as temporary, _make_folder(storage) as kept:
            return self._train_in(Path(temporary), Path(kept), params, seed, running)

    def _train_in(
        self, temporary: Path, kept: Path, params: Params, seed: int, running: RunningTrial
    ) -> Outcome | None:
        """Train with a folder for the weights, and one for what callbacks write, which is kept with the trial."""
        callbacks = [StudyCallback(running)]
        model, result = train_cell(self._code, params, seed, self._data, callbacks, running.trial.number, kept)
        if running.ending in ("lost", "stopped"):
            return None
        if result.is_diverged or running.ending == "pruned":
            reason: Reason = "diverged" if result.is_diverged else "pruned"
            running.note(TrialAttributes(reason=reason))
            return Outcome(State.PRUNED, reason=reason)
        running.note(TrialAttributes(best_epoch=result.best_epoch, n_parameters=model.count_params()))
        _store(model, temporary / WEIGHTS_FILE, kept, running)
        return Outcome(State.COMPLETE, result.val_accuracy)


@retrying
def _make_folder(_storage: Storage) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder; on a full disk it waits for room, as it does for the database."""
    return tempfile.TemporaryDirectory(prefix="fmnist-optuna-")


@retrying
def _save_weights(_storage: Storage, model: keras.Model, file: Path) -> str:
    """Write the weights and return their hash; on a full disk it waits for room."""
    return save_weights(model, file)


def _store(model: keras.Model, file: Path, kept: Path, running: RunningTrial) -> None:
    """Make the kept weights, and what callbacks wrote, durable before anything says that there is a result."""
    storage = running.ledger.storage
    running.note(TrialAttributes(weights_sha256=_save_weights(storage, model, file)))
    try:
        store_weights(storage, running.trial, file)
        if is_small(kept):
            store_folder(storage, running.trial, kept)
    except (UpdateFinishedTrialError, KeyError) as error:
        raise LostCellError from error


class StudyCallback(keras.callbacks.Callback):
    """Reports each epoch to the study and stops the training when it is pruned, stopped or lost.

    It never raises out of an epoch, so that EarlyStopping still restores the best weights.
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
        metrics = logs or {}
        measured = Epoch(
            epoch=epoch,
            train_loss=metrics["loss"],
            train_accuracy=metrics["accuracy"],
            val_loss=metrics["val_loss"],
            val_accuracy=metrics["val_accuracy"],
            seconds=time.perf_counter() - self._began,
        )
        is_last = self.model.stop_training or epoch + 1 >= self.params["epochs"]
        if not self._running.report(measured, can_prune=not is_last):
            self.model.stop_training = True
