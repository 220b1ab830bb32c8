"""Artifacts on disk through optuna.artifacts: whole or not at all, and durable before anything refers to them."""

import contextlib
import logging
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from fmnist_optuna.errors import MismatchError
from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "trial.weights.h5"  # Keras' own suffix
ARTIFACT_ID = re.compile(r"[0-9A-Za-z-]{1,100}")  # Optuna's are UUIDs; a database may say anything


class DurableStore(FileSystemArtifactStore):
    """A folder of artifacts in which a file is written beside, flushed to disk, and renamed into place."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write one artifact; after a failure nothing is left.

        Raises:
            MismatchError: The id leads out of the folder.
        """
        final = self._get_filepath(artifact_id)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f".{final.name}.{uuid.uuid4().hex}.part")
        try:
            with part.open("wb") as file:
                shutil.copyfileobj(content_body, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)
        flush(self._folder)

    def remove(self, artifact_id: str) -> None:
        """Remove one artifact, and what a process that died left of its writing."""
        final = self._get_filepath(artifact_id)
        for part in self._folder.glob(f".{final.name}.*.part"):
            part.unlink(missing_ok=True)
        super().remove(artifact_id)

    def _get_filepath(self, artifact_id: str) -> Path:
        """Where Optuna's reading, writing and removing look; its own version follows symbolic links."""
        path = self._folder / str(artifact_id)
        if not ARTIFACT_ID.fullmatch(str(artifact_id)) or path.is_symlink():
            raise MismatchError(f"An artifact must be a file of {self._folder} itself, but {artifact_id!r:.80} is not.")
        return path


def flush(path: Path) -> None:
    """Let a file, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def store_weights(folder: Path, trial: Trial, file: Path) -> str:
    """Make the weights of a trial durable and note them on the trial; returns the artifact's id."""
    return upload_artifact(artifact_store=DurableStore(folder), file_path=str(file), study_or_trial=trial)


def weights_path(folder: Path, storage: BaseStorage, trial: FrozenTrial) -> Path:
    """The file with the stored weights of a finished trial.

    Raises:
        MismatchError: The trial names none, the file is not there, or its name leads out of the folder.
    """
    store = DurableStore(folder)
    metas = [meta for meta in get_all_artifact_meta(trial, storage=storage) if meta.filename == WEIGHTS_FILE]
    if not metas:
        raise MismatchError(f"Trial {trial.number} must have stored weights, but names none.")
    paths = [store._get_filepath(meta.artifact_id) for meta in metas]
    # A write that was tried again after an outage is noted twice, and one of the two may have no file.
    for path in paths:
        if path.is_file():
            return path
    raise MismatchError(f"The weights of trial {trial.number} must be at {paths[0]}, but there is no such file.")


def remove_artifacts(folder: Path, storage: BaseStorage, owner: FrozenTrial | Study) -> None:
    """Remove every artifact of a trial, or of a study itself; what a name outside the folder stands for is left."""
    store = DurableStore(folder)
    for meta in get_all_artifact_meta(owner, storage=storage):
        try:
            with contextlib.suppress(ArtifactNotFound):
                store.remove(meta.artifact_id)
        except MismatchError as error:
            log_event(logger, logging.WARNING, "artifact_not_removed", file=meta.filename, error=str(error))
