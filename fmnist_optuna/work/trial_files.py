"""Files of a trial, made durable: checkpoints, weights, what callbacks wrote. Waits for room and for buckets."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from optuna.exceptions import UpdateFinishedTrialError

from fmnist_optuna.artifacts.bucket_checkpoints import BucketCheckpoints
from fmnist_optuna.artifacts.checkpoints import Checkpoints
from fmnist_optuna.artifacts.store import Store
from fmnist_optuna.artifacts.written import is_small
from fmnist_optuna.bridge.artifacts import store_folder, store_weights
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.training.checkpoint import Identity
from fmnist_optuna.training.running_cell import CellTraining
from fmnist_optuna.training.weights import save_weights
from fmnist_optuna.work.running_trial import LostCellError, RunningTrial

Kept = Checkpoints | BucketCheckpoints

N_TRIES = 3  # to write a checkpoint into a folder that others may remove, which they do once


@retrying
def make_folder(_storage: Storage) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder; on a full disk it waits for room, as it does for the database."""
    return tempfile.TemporaryDirectory(prefix="fmnist-optuna-")


@retrying
def bring_checkpoint(_storage: Storage, checkpoints: Kept, cell_id: str, folder: Path) -> Path:
    """The file with the checkpoint of a cell, which need not be there; a bucket that does not answer is waited for."""
    return checkpoints.bring(cell_id, folder)


def write_checkpoint(_storage: Storage, cell: CellTraining, checkpoints: Kept, identity: Identity) -> None:
    """Write a checkpoint; a folder that is removed meanwhile is made anew."""
    for n_tries_left in reversed(range(N_TRIES)):
        try:
            with checkpoints.written(identity.cell_id) as file:
                cell.save(file, identity)
            return
        except FileNotFoundError:
            if not n_tries_left:
                raise


save_checkpoint = retrying(write_checkpoint)  # on a full disk it waits for room, and for a bucket


@retrying
def _save_weights(_storage: Storage, cell: CellTraining, file: Path) -> str:
    """Write the weights and return their hash; on a full disk it waits for room."""
    return save_weights(cell.model, file)


def keep_results(store: Store, cell: CellTraining, file: Path, running: RunningTrial) -> None:
    """Make the kept weights, and what callbacks wrote, durable before anything says that there is a result.

    Args:
        file: Where the weights are written first.
    """
    storage = running.ledger.storage
    running.note(TrialAttributes(weights_sha256=_save_weights(storage, cell, file)))
    with _lost_with_its_trial():
        store_weights(storage, store, running.trial, file)
    keep_folder(store, cell.folder, running)


def keep_folder(store: Store, kept: Path, running: RunningTrial) -> None:
    """Make what callbacks wrote durable, where it is small."""
    with _lost_with_its_trial():
        if is_small(kept, "folder_not_kept"):
            store_folder(running.ledger.storage, store, running.trial, kept)


@contextlib.contextmanager
def _lost_with_its_trial() -> Iterator[None]:
    """Whoever finished or deleted the trial meanwhile has the cell."""
    try:
        yield
    except (UpdateFinishedTrialError, KeyError) as error:
        raise LostCellError from error
