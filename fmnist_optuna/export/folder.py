"""A winner as files: stored weights as SavedModel and `.keras`, checked against recorded answers, whole or not at all.

<out>/<study>/<version>/     the layout of TensorFlow Serving
    saved_model.pb, variables/, fingerprint.pb
    model.keras              on request
    manifest.json            what it is, in figures, with a SHA-256 of every other file
    MODEL_CARD.md, confusion_matrix.png
"""

import contextlib
import errno
import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fmnist_optuna.bridge.artifacts import weights_path
from fmnist_optuna.durable import whole_folder
from fmnist_optuna.errors import MismatchError, StorageError, UsageError
from fmnist_optuna.export.card import write_card, write_confusion_matrix
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.processes.children import Call
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.results.changed_code import explained_by_code
from fmnist_optuna.results.confirmation import find_confirmation
from fmnist_optuna.results.evaluation import Evaluation, open_weights, recorded_seed, summarize
from fmnist_optuna.results.winner import finished_attempt, winning_attempt
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.splits import load_splits_of

FORMATS = ("savedmodel", "keras")
MANIFEST, CARD, PICTURE = "manifest.json", "MODEL_CARD.md", "confusion_matrix.png"
PARITY_SCRIPT = Path(__file__).with_name("parity.py")
TOLERANCE = 1e-6  # of a probability
GATE_SECONDS = 600.0  # for 10,000 images on a busy machine


@dataclass(frozen=True)
class Export:
    """What was written.

    Args:
        folder: `<out>/<study>/<version>`.
        manifest: Content of its manifest.json.
        evaluation: The recorded score of these weights on the test images.
    """

    folder: Path
    manifest: dict[str, Any]
    evaluation: Evaluation


def export_model(
    session: Session,
    out: Path,
    trial: int | None = None,
    formats: Sequence[str] = ("savedmodel",),
    version: int | None = None,
    data_dir: Path | None = None,
) -> Export:
    """Write the stored weights of the winner, or of another COMPLETE trial, as files that other programs load.

    Nothing is trained. The SavedModel must give the answers that were recorded when its weights were opened, in a fresh
    process that has TensorFlow and nothing of ours; a failure of any kind leaves no file. Weights that were never
    opened are opened here, once.

    Args:
        out: Folder of all exports.
        trial: Number of the trial; None for the winner.
        formats: "savedmodel" and "keras".
        version: >= 1; None for the next after those that are there.
        data_dir: Folder with the IDX files, or None for the search order.

    Raises:
        NotFoundError: No such trial, or none is complete.
        UsageError: The trial is not COMPLETE, or the version exists.
        MismatchError: The weights are missing or altered, or the model gives other answers than the recorded ones.
        DataError: The data is not there.
        StorageError: `out` cannot be written, or is full.
    """
    name = session.record.name
    if session.record.is_confirmation:
        raise UsageError(f"STUDY must be a study of a grid, but {name} is a confirmation; export what it chose.")
    if trial is None:
        attempt = winning_attempt(session, find_confirmation(session))
    else:
        attempt = _complete_attempt(session, trial)
    target = out / name / str(version or _next_version(out / name))
    if target.exists():
        raise UsageError(f"--version must be new, but {target} exists; leave it out for the next one.")
    opening = open_weights(session, attempt, data_dir, purpose="export")
    with explained_by_code(session, attempt), _writing_to(target), whole_folder(target) as folder:
        manifest = _write(session, attempt, opening, folder, formats, data_dir)
    return Export(target, manifest, summarize(opening, session.record.info.class_names))


def _complete_attempt(session: Session, trial: int) -> Attempt:
    attempt = finished_attempt(session, trial)
    if attempt.state is not State.COMPLETE:
        raise UsageError(f"--trial must be COMPLETE, but trial {trial} was pruned and kept no weights.")
    return attempt


def _next_version(folder: Path) -> int:
    try:
        versions = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    except FileNotFoundError:
        return 1
    except OSError as error:
        raise _unwritable(folder, error) from error
    return max(versions, default=0) + 1


def _write(
    session: Session, attempt: Attempt, opening: Opening, folder: Path, formats: Sequence[str], data_dir: Path | None
) -> dict[str, Any]:
    """Everything into a folder; returns the manifest."""
    record, info = session.record, session.record.info
    evaluation = summarize(opening, info.class_names)
    trial = session.optuna_storage.get_trial(attempt.trial_id)
    weights = weights_path(session.storage.artifacts, session.optuna_storage, trial)
    seed = recorded_seed(attempt)
    arguments = (record.spec, info, attempt.params, seed, weights, opening.weights_sha256, folder, tuple(formats))
    has_logits = Call(_write_models, *arguments, doing="writing the model").result()
    confirmation = find_confirmation(session)
    is_confirmed = confirmation is not None and confirmation.chosen.original.trial_id == attempt.trial_id
    manifest = {
        "schema": 1,
        "study": record.name,
        "trial": attempt.number,
        "params": attempt.params,
        "architecture": {"name": record.spec.model.architecture, **record.spec.model.arguments},
        "synthetic": info.is_demo,
        "data": {"source": record.data_source, "fingerprint": record.data_fingerprint},
        "val_accuracy": attempt.val_accuracy,
        "test_accuracy": evaluation.accuracy,
        "test_interval": list(evaluation.interval),
        "n_test_images": evaluation.n_images,
        "n_cells": session.history.counts().total,
        "confirmed": confirmation.figures() if confirmation is not None and is_confirmed else None,
        "weights_sha256": opening.weights_sha256,
        "formats": list(formats),
        "keras_model_ends_in": "logits" if has_logits else "probabilities",
        "labels": list(info.class_names),
        "dataset": info.to_content(),
        "parity": _check_parity(session, opening, folder, data_dir) if "savedmodel" in formats else None,
        "trained_with": attempt.attributes.environment,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_confusion_matrix(folder / PICTURE, evaluation, info)
    write_card(folder / CARD, manifest, info, evaluation, PICTURE)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest["files"] = {str(path.relative_to(folder)): _sha256(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
    return manifest


def _write_models(*arguments: object) -> object:
    from fmnist_optuna.export.saved_model import write_models

    return write_models(*arguments)  # type: ignore[arg-type]


def _check_parity(session: Session, opening: Opening, folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """Let a fresh process with TensorFlow alone answer for every test image, and compare with what was recorded."""
    splits = load_splits_of(session.record, data_dir)
    arrays = temporary_folder() / f"{uuid.uuid4().hex}.npz"
    try:
        np.savez(arrays, images=splits.test_images, probabilities=opening.probabilities, labels=opening.labels)
        command = [sys.executable, "-I", str(PARITY_SCRIPT), str(folder), str(arrays)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=GATE_SECONDS, check=False)
    finally:
        arrays.unlink(missing_ok=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise MismatchError(
            f"The exported model must load in a process with TensorFlow alone, but that said {last:.300}"
        )
    measured: dict[str, Any] = json.loads(done.stdout)
    is_equal = measured["accuracy"] == opening.accuracy and not measured["n_other_classes"]
    if not is_equal or measured["n_odd_batches"] or not measured["max_difference"] <= TOLERANCE:
        raise MismatchError(
            "The exported model must give the recorded answers, but probabilities differ by up to "
            f"{measured['max_difference']:.2g} (allowed {TOLERANCE:g}), {measured['n_other_classes']} of "
            f"{measured['n_images']:,} images get another class, accuracy is {measured['accuracy']:.4f} instead of "
            f"{opening.accuracy:.4f}, and {measured['n_odd_batches']} of 2 small batches get other answers."
        )
    return measured


@contextlib.contextmanager
def _writing_to(target: Path) -> Iterator[None]:
    """Let a failure to write within this block be an error of ours that names the option."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(f"--version must be new, but {target} was written meanwhile.") from error
        raise _unwritable(target, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"--out must be a folder that can be written, but {path}: {error.strerror or error}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
