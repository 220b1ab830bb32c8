"""The artifacts of trials and studies: which files of the folder are whose, as Optuna notes it."""

import contextlib
import io
import json
import logging
import mimetypes
import uuid
from dataclasses import asdict
from pathlib import Path

from optuna.artifacts import ArtifactMeta, get_all_artifact_meta, upload_artifact
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, DEFAULT_MIME_TYPE
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from fmnist_optuna.artifacts.folder import DurableStore
from fmnist_optuna.artifacts.written import files_in
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.storage import open_optuna
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "trial.weights.h5"  # Keras' own suffix
SOFT_LABELS_FILE = "soft-labels.npy"
FOLDER = "folder"  # names of what callbacks wrote begin with it, so that none is taken for the weights


@retrying
def store_weights(storage: Storage, trial: Trial, file: Path) -> str:
    """Make the weights of a trial durable and note them on the trial; returns the artifact's id."""
    return upload_artifact(artifact_store=DurableStore(storage.artifacts), file_path=str(file), study_or_trial=trial)


@retrying
def store_folder(storage: Storage, trial: Trial, written: Path) -> None:
    """Make the files that a trial's callbacks wrote durable, each an artifact of the trial by its path in `written`.

    After an outage it goes on with the files that are not there yet.
    """
    folder = storage.artifacts
    store = DurableStore(folder)
    there = {meta.filename for meta in get_all_artifact_meta(trial) if (folder / meta.artifact_id).is_file()}
    for file in files_in(written):
        name = f"{FOLDER}/{file.relative_to(written).as_posix()}"
        if name not in there:
            kind, encoding = mimetypes.guess_type(name)
            meta = ArtifactMeta(str(uuid.uuid4()), name, kind or DEFAULT_MIME_TYPE, encoding)
            # As upload_artifact does it, which knows a file by the last part of its path only.
            trial.storage.set_trial_system_attr(trial_id_of(trial), *_note_of(meta))
            with file.open("rb") as content:
                store.write(meta.artifact_id, content)


@retrying
def store_soft_labels(storage: Storage, study_id: int, artifact: str, content: bytes) -> None:
    """Make what a study learns from durable, an artifact of the study itself; after an outage the same one again."""
    meta = ArtifactMeta(artifact, SOFT_LABELS_FILE, DEFAULT_MIME_TYPE, None)
    open_optuna(storage).set_study_system_attr(study_id, *_note_of(meta))
    DurableStore(storage.artifacts).write(artifact, io.BytesIO(content))


def _note_of(meta: ArtifactMeta) -> tuple[str, str]:
    """The attribute by which Optuna knows an artifact: name and value."""
    return ARTIFACTS_ATTR_PREFIX + meta.artifact_id, json.dumps(asdict(meta))


def remove_artifact(folder: Path, artifact: str) -> None:
    """Remove one artifact, if it is there."""
    with contextlib.suppress(ArtifactNotFound):
        DurableStore(folder).remove(artifact)


def kept_files(folder: Path, storage: BaseStorage, trial: FrozenTrial) -> dict[str, Path]:
    """What a trial's callbacks wrote and was kept: the files by their paths in the folder of the attempt."""
    store = DurableStore(folder)
    files: dict[str, Path] = {}
    for meta in get_all_artifact_meta(trial, storage=storage):
        with contextlib.suppress(MismatchError):  # a name that leads out of the folder
            path = store.find(meta.artifact_id)
            if meta.filename.startswith(f"{FOLDER}/") and path.is_file():
                files[meta.filename.removeprefix(f"{FOLDER}/")] = path
    return dict(sorted(files.items()))


def weights_path(folder: Path, storage: BaseStorage, trial: FrozenTrial) -> Path:
    """The file with the stored weights of a finished trial.

    Raises:
        MismatchError: The trial names none, the file is not there, or its name leads out of the folder.
    """
    store = DurableStore(folder)
    metas = [meta for meta in get_all_artifact_meta(trial, storage=storage) if meta.filename == WEIGHTS_FILE]
    if not metas:
        raise MismatchError(f"Trial {trial.number} must have stored weights, but names none.")
    paths = [store.find(meta.artifact_id) for meta in metas]
    # A write that was tried again after an outage is noted twice, and one of the two may have no file.
    for path in paths:
        if path.is_file():
            return path
    raise MismatchError(f"The weights of trial {trial.number} must be at {paths[0]}, but there is no such file.")


def remove_artifacts(folder: Path, storage: BaseStorage, owner: FrozenTrial | Study) -> None:
    """Remove every artifact of a trial, or of a study itself; what a name outside the folder stands for is left."""
    for meta in get_all_artifact_meta(owner, storage=storage):
        try:
            remove_artifact(folder, meta.artifact_id)
        except MismatchError as error:
            log_event(logger, logging.WARNING, "artifact_not_removed", file=meta.filename, error=str(error))
