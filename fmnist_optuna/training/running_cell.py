"""The training of one cell under way: what a worker holds while it trains, pauses, stores and ends it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import keras

from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.training.checkpoint import Checkpoint, Identity, save_checkpoint
from fmnist_optuna.training.loop import Training, TrainingResult
from fmnist_optuna.user_modules.execution import USER_MODULES

Origin = Literal["start", "checkpoint", "memory"]


class CellTraining:
    """The training of one cell, with the folder that its callbacks write into. It is the caller's to close.

    Args:
        training: Of a model of the cell.
        folder: Of this training alone; it goes when the training is closed.
        origin: Where it began in this process.
        trial: Number that its callbacks were told when they were made: of the attempt that began it.
        unusable: Why a checkpoint that was there was not used, as a predicate; None if it was, or none was there.

    Attributes:
        folder: The folder.
    """

    def __init__(
        self,
        training: Training,
        folder: tempfile.TemporaryDirectory[str],
        origin: Origin,
        trial: int = 0,
        unusable: str | None = None,
    ) -> None:
        self._training, self._temporary = training, folder
        self.folder = Path(folder.name)
        self.origin, self.trial, self.unusable = origin, trial, unusable

    @property
    def model(self) -> keras.Model:
        """The model, with the weights as they are now."""
        return self._training.model

    @property
    def n_epochs(self) -> int:
        """Epochs that are done."""
        return self._training.n_epochs

    @property
    def epochs(self) -> list[Epoch]:
        """What these epochs have measured."""
        return self._training.epochs

    @property
    def is_over(self) -> bool:
        """Whether no further epoch will run."""
        return self._training.is_over

    @property
    def n_bytes(self) -> int:
        """Memory of all its variables, and of the best weights."""
        variables = self._training.variables()
        in_variables = sum(int(variable.dtype.size * variable.shape.num_elements()) for variable in variables)
        return in_variables + self._training.n_bytes_of_best

    def run(self, until: int | None = None) -> None:
        """Train on until so many epochs are done in all, or until it is over."""
        with USER_MODULES.watching():
            self._training.run(until)

    def finish(self) -> TrainingResult:
        """End the training, once: the weights that are kept are put into the model and scored."""
        with USER_MODULES.watching():
            return self._training.finish()

    def end(self) -> None:
        """End a training that was cut: as `finish` does, and nothing is scored."""
        with USER_MODULES.watching():
            self._training.end()

    def save(self, path: Path, identity: Identity) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            SpecError: A callback holds what cannot be stored.
            OSError: The file's folder cannot be written, or is full.
        """
        save_checkpoint(path, self._training, identity, self.folder, self.trial)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where another training of the cell stood; only before the first epoch.

        Raises:
            SpecError: A callback or the model raised, as at the start of a training.
            UnusableError: The checkpoint is of another model or of other callbacks.
        """
        with USER_MODULES.watching():
            checkpoint.restore(self._training, self.folder)
        self.origin = "checkpoint"

    def go_on(self, watchers: Sequence[keras.callbacks.Callback]) -> None:
        """Be watched by others from here on: a training that was kept in memory goes on for another attempt."""
        self._training.watch(watchers)
        self.origin, self.unusable = "memory", None

    def close(self) -> None:
        """Remove the folder."""
        self._temporary.cleanup()
