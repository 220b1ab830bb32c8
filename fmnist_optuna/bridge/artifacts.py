"""The artifacts of trials and studies: which files or objects of a store are whose, as Optuna notes it."""

import contextlib
import io
import json
import logging
import mimetypes
import uuid
from dataclasses import asdict
from pathlib import Path

import optuna
from optuna.artifacts import ArtifactMeta, get_all_artifact_meta, upload_artifact
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, DEFAULT_MIME_TYPE
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from fmnist_optuna.artifacts.soft_labels import SoftLabels, describe_missing
from fmnist_optuna.artifacts.store import Store
from fmnist_optuna.artifacts.written import files_in
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.storage import open_optuna
from fmnist_optuna.errors import ArtifactsError, MismatchError
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "trial.weights.h5"  # Keras' own suffix
SOFT_LABELS_FILE = "soft-labels.npy"
FOLDER = "folder"  # names of what callbacks wrote begin with it, so that none is taken for the weights


@retrying
def store_weights(storage: Storage, store: Store, trial: Trial, file: Path) -> str:
    """Make the weights of a trial durable and note them on the trial; returns the artifact's id."""
    return upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial)


@retrying
def store_folder(storage: Storage, store: Store, trial: Trial, written: Path) -> None:
    """Make the files that a trial's callbacks wrote durable, each an artifact of the trial by its path in `written`.

    After an outage it goes on with the files that are not there yet.
    """
    there = {meta.filename for meta in get_all_artifact_meta(trial) if store.holds(meta.artifact_id)}
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
def store_soft_labels(storage: Storage, store: Store, study_id: int, artifact: str, content: bytes) -> None:
    """Make what a study learns from durable, an artifact of the study itself; after an outage the same one again."""
    meta = ArtifactMeta(artifact, SOFT_LABELS_FILE, DEFAULT_MIME_TYPE, None)
    open_optuna(storage).set_study_system_attr(study_id, *_note_of(meta))
    store.write(artifact, io.BytesIO(content))


def remove_other_soft_labels(storage: Storage, store: Store, study_name: str, kept: str) -> None:
    """Remove what others left who were to make the same study: they were too late, or died before its row was there.

    Args:
        kept: The artifact that the row names.
    """
    trials = open_optuna(storage)
    study = optuna.load_study(study_name=study_name, storage=trials)
    for meta in get_all_artifact_meta(study, storage=trials):
        if meta.filename == SOFT_LABELS_FILE and meta.artifact_id != kept:
            remove_artifact(storage, store, meta.artifact_id)


@retrying
def read_soft_labels(storage: Storage, store: Store, artifact: str, sha256: str) -> SoftLabels:
    """What a study learns from, as it lies there.

    Raises:
        MismatchError: There is no such file, or its name leads out of the store.
    """
    try:
        with store.open_reader(artifact) as file:
            return SoftLabels(store.describe(artifact), file.read(), sha256)
    except ArtifactNotFound as error:
        raise describe_missing(store.describe(artifact), "there is no such file") from error
    except OSError as error:
        raise describe_missing(store.describe(artifact), error.strerror or str(error)) from error


def _note_of(meta: ArtifactMeta) -> tuple[str, str]:
    """The attribute by which Optuna knows an artifact: name and value."""
    return ARTIFACTS_ATTR_PREFIX + meta.artifact_id, json.dumps(asdict(meta))


@retrying
def remove_artifact(storage: Storage, store: Store, artifact: str) -> None:
    """Remove one artifact, if it is there."""
    with contextlib.suppress(ArtifactNotFound):
        store.remove(artifact)


def kept_files(store: Store, storage: BaseStorage, trial: FrozenTrial) -> dict[str, str]:
    """What a trial's callbacks wrote and was kept: where it is, by the paths in the folder of the attempt."""
    files: dict[str, str] = {}
    for meta in get_all_artifact_meta(trial, storage=storage):
        with contextlib.suppress(MismatchError):  # a name that leads out of the store
            if meta.filename.startswith(f"{FOLDER}/") and _may_hold(store, meta.artifact_id):
                files[meta.filename.removeprefix(f"{FOLDER}/")] = store.describe(meta.artifact_id)
    return dict(sorted(files.items()))


def _may_hold(store: Store, artifact: str) -> bool:
    """Whether an artifact is there, or nobody can say so now."""
    try:
        return store.holds(artifact)
    except ArtifactsError:
        return True


@retrying
def find_weights_artifact(storage: Storage, store: Store, trials: BaseStorage, trial: FrozenTrial) -> str:
    """The id of the stored weights of a finished trial.

    Raises:
        MismatchError: The trial names none, they are not there, or their name leads out of the store.
    """
    metas = [meta for meta in get_all_artifact_meta(trial, storage=trials) if meta.filename == WEIGHTS_FILE]
    if not metas:
        raise MismatchError(f"Trial {trial.number} must have stored weights, but names none.")
    places = [store.describe(meta.artifact_id) for meta in metas]
    # A write that was tried again after an outage is noted twice, and one of the two may have no file.
    for meta in metas:
        if store.holds(meta.artifact_id):
            return meta.artifact_id
    raise MismatchError(f"The weights of trial {trial.number} must be at {places[0]}, but there is no such file.")


@retrying
def bring_artifact(storage: Storage, store: Store, artifact: str, folder: Path) -> Path:
    """The file with an artifact on this machine: its own, or a copy in a folder of the caller's.

    Raises:
        ArtifactNotFound: It is not there.
    """
    return store.bring(artifact, folder)


def remove_artifacts(storage: Storage, store: Store, trials: BaseStorage, owner: FrozenTrial | Study) -> None:
    """Remove every artifact of a trial, or of a study itself; what a name outside the store stands for is left."""
    for meta in get_all_artifact_meta(owner, storage=trials):
        try:
            remove_artifact(storage, store, meta.artifact_id)
        except MismatchError as error:
            _say_not_removed(meta, error)


def discard_artifacts(store: Store, trials: BaseStorage, trial: FrozenTrial) -> None:
    """The same of a trial without a result, at once: what a bucket does not remove now, it removes with the study."""
    for meta in get_all_artifact_meta(trial, storage=trials):
        try:
            with contextlib.suppress(ArtifactNotFound):
                store.remove(meta.artifact_id)
        except (MismatchError, ArtifactsError) as error:
            _say_not_removed(meta, error)


def _say_not_removed(meta: ArtifactMeta, error: Exception) -> None:
    log_event(logger, logging.WARNING, "artifact_not_removed", file=meta.filename, error=str(error))
