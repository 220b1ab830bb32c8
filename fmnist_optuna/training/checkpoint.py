"""A training in one file: all that it needs to go on as if it had never been interrupted.

The model's variables and the optimizer's, those of random generators, the random states of the process, the best
weights, the epochs so far, what callbacks have counted, and the files that they wrote.

A checkpoint has the trust of the weights beside it, and no more: nothing in it is executed. Its arrays are numbers, and
its callbacks' attributes are plain values by the list in `plain_state`; Python's pickle is not used, as a file of
somebody else's would run whatever it names.
"""

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow as tf

from fmnist_optuna import __version__
from fmnist_optuna.artifacts.written import files_in, is_small
from fmnist_optuna.json_value import Json
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.training.array_file import Array, DamagedFileError, read_arrays, write_arrays
from fmnist_optuna.training.callback_state import known_objects, read_callbacks, reopen_files, write_callbacks
from fmnist_optuna.training.loop import Training
from fmnist_optuna.training.plain_reading import StateReader
from fmnist_optuna.training.plain_state import NoCounterpartError, StateWriter
from fmnist_optuna.training.random_states import (
    RandomStates,
    find_global_generator,
    forget_global_generator,
    make_global_generator,
)

VERSION = 1  # of what the head says; raised when an older program would misread it


@dataclass(frozen=True)
class Identity:
    """Which training a checkpoint is of. Two strings are compared and not read.

    Args:
        cell_id: Of the cell.
        seed: Of the training.
        code: Fingerprint of code, data and training settings.
        environment: What else its numbers depend on: versions, processor, settings.
    """

    cell_id: str
    seed: int
    code: str
    environment: str


OTHER = {
    "cell_id": "is of another cell",
    "seed": "is of another seed",
    "code": "is of other code, data or settings",
    "environment": "is of another environment",
}


class UnusableError(Exception):
    """A checkpoint cannot be used; the text is a predicate, such as "is damaged"."""


@dataclass(frozen=True)
class Unusable:
    """Why a file is not the checkpoint that was asked for.

    Args:
        reason: A predicate, such as "is damaged".
    """

    reason: str


def save_checkpoint(path: Path, training: Training, identity: Identity, folder: Path, trial: int = 0) -> None:
    """Write a training as it stands after its last epoch, whole or not at all.

    Args:
        folder: What callbacks wrote. More than is kept with a trial is left out, with a warning.
        trial: Number that the callbacks were told when they were made.

    Raises:
        SpecError: A callback holds what cannot be stored.
        OSError: The file's folder cannot be written, or is full.
    """
    callbacks = training.callbacks
    writer = StateWriter(known_objects(training.model, callbacks), folder)
    generator = find_global_generator()
    head: dict[str, Json] = {
        "version": VERSION,
        "program": __version__,
        "identity": asdict(identity),
        "trial": trial,
        "epochs": [list(astuple(epoch)) for epoch in training.epochs],
        "is_stopped": training.model.stop_training,
        "logs": writer.write(training.logs),
        "random": writer.write(dict(vars(RandomStates.read()))),
        "callbacks": write_callbacks(callbacks, writer),
        "variables": [writer.add(np.asarray(variable.numpy())) for variable in training.variables()],
        "generator": None if generator is None else writer.add(np.asarray(generator.numpy())),
        "files": {name: writer.add(content) for name, content in _read_files(folder).items()},
    }
    write_arrays(path, head, writer.arrays)


def read_checkpoint(path: Path, identity: Identity) -> "Checkpoint | Unusable":
    """The checkpoint in a file, if it is of this training, or the reason why it cannot be used.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        head, arrays = read_arrays(path)
    except DamagedFileError:
        return Unusable("is damaged")
    if (version := head.get("version")) != VERSION:
        return Unusable(f"is of version {version}, and this program reads version {VERSION}")
    if (program := head.get("program")) != __version__:
        return Unusable(f"is of fmnist-optuna {program}, and this is {__version__}")
    found = head.get("identity")
    for name, value in asdict(identity).items():
        if not isinstance(found, Mapping) or found.get(name) != value:
            return Unusable(OTHER[name])
    return Checkpoint(head, arrays)


class Checkpoint:
    """What a file holds, for a training that was made as the first one was.

    Args:
        head: Of the file.
        arrays: What it refers to.
    """

    def __init__(self, head: Mapping[str, Any], arrays: list[Array]) -> None:
        self._head, self._arrays = head, arrays

    @property
    def n_epochs(self) -> int:
        """Epochs that were done; 0 where an altered head does not say."""
        epochs = self._head.get("epochs")
        return len(epochs) if isinstance(epochs, list) else 0

    @property
    def trial(self) -> int | None:
        """Number that the callbacks were told when they were made; None where the head does not say."""
        trial = self._head.get("trial")
        return trial if isinstance(trial, int) else None

    def restore(self, training: Training, folder: Path) -> None:
        """Let a training that was just made stand where the stored one stood.

        Args:
            folder: Of this attempt, empty.

        Raises:
            SpecError: A callback or the model raised, as at the start of a training.
            UnusableError: The model or the callbacks are others. The training is of no use any more.
        """
        training.prepare()
        callbacks = training.callbacks
        reader = StateReader(known_objects(training.model, callbacks), folder, self._arrays)
        try:
            self._put_variables(training)
            self._put_files(folder)
            reopen_files(callbacks, folder)
            read_callbacks(self._head["callbacks"], callbacks, reader)
            epochs = [Epoch(*values) for values in self._head["epochs"]]
            training.put_back(epochs, reader.read(self._head["logs"]), self._head["is_stopped"])
            RandomStates(**reader.read(self._head["random"])).set_back()  # last, as all before may draw
        except NoCounterpartError as error:
            raise UnusableError("is of other callbacks") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:  # whatever an altered head provokes
            raise UnusableError("is damaged") from error

    def _put_variables(self, training: Training) -> None:
        stored, variables = self._head["variables"], training.variables()
        values = [self._arrays[index] for index in stored]
        if [_form_of(value) for value in values] != [_form_of(variable) for variable in variables]:
            raise UnusableError("is of another model")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        if self._head["generator"] is None:
            forget_global_generator()
        else:
            make_global_generator().assign(self._arrays[self._head["generator"]])

    def _put_files(self, folder: Path) -> None:
        for name, index in self._head["files"].items():
            relative = PurePosixPath(name)
            if relative.is_absolute() or ".." in relative.parts:
                raise UnusableError("is damaged")
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._arrays[index].tobytes())


def _form_of(value: Array | tf.Variable) -> tuple[tuple[int, ...], str]:
    return tuple(value.shape), tf.as_dtype(value.dtype).name


def _read_files(folder: Path) -> dict[str, Array]:
    """The files in a folder by their paths in it, as bytes; none if they are too many or too large."""
    files = files_in(folder) if is_small(folder, "files_not_in_checkpoint") else []
    return {path.relative_to(folder).as_posix(): np.frombuffer(path.read_bytes(), np.uint8) for path in files}
