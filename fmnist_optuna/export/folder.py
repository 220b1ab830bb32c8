"""A winner as files: stored weights as SavedModel and `.keras`, checked against recorded answers, whole or not at all.

<out>/<study>/<version>/     the layout of TensorFlow Serving
    saved_model.pb, variables/, fingerprint.pb
    model.keras              on request
    manifest.json            what it is, in figures, with a SHA-256 of every other file
    MODEL_CARD.md, confusion_matrix.png (but for many classes, whose confusions the card lists)
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.arguments import check_count
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.durable import TAKEN, remove_left_folders, whole_folder
from fmnist_optuna.errors import MismatchError, StorageError, UsageError
from fmnist_optuna.export.card import write_card
from fmnist_optuna.export.confusion_matrix import write_confusion_matrix
from fmnist_optuna.export.facts import Facts, Parity
from fmnist_optuna.export.source import Source, choose_source
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.processes.children import Call
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.results.evaluation import StoredWeights, find_weights, open_weights, summarize
from fmnist_optuna.search.cell import TRAINING_SEED
from fmnist_optuna.settings import ONEDNN, prepare_training_environment
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import count, reason_of
from fmnist_optuna.work.environment import SETTING
from fmnist_optuna.work.splits import load_splits_of

FORMATS = ("savedmodel", "keras")
MANIFEST, CARD, PICTURE = "manifest.json", "MODEL_CARD.md", "confusion_matrix.png"
PARITY_SCRIPT = Path(__file__).with_name("parity.py")
TOLERANCE = 1e-6  # of a probability
GATE_SECONDS, GATE_IMAGES = 600.0, 10_000  # for the answers of one net on a busy machine; more images have more


@dataclass(frozen=True)
class Export:
    """What was written.

    Args:
        folder: `<out>/<study>/<version>`.
        facts: What it is and where it comes from.
        manifest: Content of its manifest.json.
    """

    folder: Path
    facts: Facts
    manifest: Mapping[str, Json]


def export_model(
    session: Session,
    out: Path,
    trial: int | None = None,
    formats: Sequence[str] = ("savedmodel",),
    version: int | None = None,
    data_dir: Path | None = None,
    all_data: bool = False,
    ensemble: int | None = None,
) -> Export:
    """Write stored weights as files that other programs load; nothing is trained.

    The SavedModel must give the answers that were recorded when its weights were opened, in a fresh process that has
    TensorFlow alone; a failure of any kind leaves no file. Weights that were never opened are opened here, once.

    Args:
        out: Folder of all exports.
        trial: As `choose_source` has it, as all_data and ensemble.
        formats: "savedmodel" and "keras"; an ensemble is the first alone.
        version: >= 1; None for the next after those that are there.
        data_dir: Folder with the IDX files, or None for the search order.

    Raises:
        NotFoundError: No such trial, none is complete, or what is asked for was not trained yet.
        UsageError: The trial is not COMPLETE, or the format, version or number of seeds cannot be.
        MismatchError: The weights are missing or altered, or the model gives other answers than the recorded ones.
        DataError: The data is not there.
        StorageError: `out` cannot be written, or is full.
    """
    chosen, of_study = _choose_formats(formats, ensemble is not None), out / session.record.name
    check_count("version", version, 1)
    source = choose_source(session, trial, all_data, ensemble)
    place = _Place(of_study, version)
    opening = open_weights(source.session, source.attempts, data_dir, source.purpose)
    with source.explained(), _writing_to(place) as folder:
        facts, manifest = _write(session, source, opening, folder, chosen, data_dir)
    remove_left_folders(of_study)
    return Export(place.folder, facts, manifest)


class _Place:
    """Where an export goes: to a version that is asked for, or to the next one, even where others are at it too.

    Args:
        of_study: Folder of the versions.
        version: None for the next after those that are there.

    Raises:
        UsageError: The version is there.
    """

    def __init__(self, of_study: Path, version: int | None) -> None:
        self._of_study, self.is_next = of_study, version is None
        self.folder = of_study / str(version or _next_version(of_study))
        if self.folder.exists():
            raise UsageError(
                f"version (--version) must be new, but {self.folder} exists; leave it out for the next one."
            )

    def take_next(self) -> Path:
        """The next version, where another export has had the number of this one meanwhile."""
        self.folder = self._of_study / str(_next_version(self._of_study))
        return self.folder


def _choose_formats(names: Sequence[str], is_ensemble: bool) -> tuple[str, ...]:
    """Each format once; a text alone is one of them."""
    formats = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    if unknown := [name for name in formats or ("",) if name not in FORMATS]:
        raise UsageError(f"formats (--format) must be of {', '.join(FORMATS)}, but got {unknown[0] or 'none'!r}.")
    if is_ensemble and formats != ("savedmodel",):
        raise UsageError(f"formats (--format) must be savedmodel for an ensemble, but got {', '.join(formats)}.")
    return formats


def _next_version(folder: Path) -> int:
    try:
        versions = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    except FileNotFoundError:
        return 1
    except OSError as error:
        raise _unwritable(folder, error) from error
    return max(versions, default=0) + 1


def _write(
    session: Session, source: Source, opening: Opening, folder: Path, formats: tuple[str, ...], data_dir: Path | None
) -> tuple[Facts, dict[str, Json]]:
    """Everything into a folder; returns what the export is, and the content of its manifest."""
    record = source.session.record
    stored = [find_weights(source.session, attempt) for attempt in source.attempts]
    arguments = record.spec, record.info, stored, folder, formats, len(opening.labels)
    ends_in_logits, batch = Call(_write_models, *arguments, doing="writing the model").result()
    facts = Facts(
        record=session.record,
        source=source,
        evaluation=summarize(opening, record.info.class_names),
        n_cells=session.history.counts().total,
        weights_sha256=opening.weights_sha256,
        formats=formats,
        ends_in_logits=ends_in_logits,
        parity=_check_parity(source, opening, folder, data_dir, batch) if "savedmodel" in formats else None,
    )
    if facts.evaluation.has_matrix:
        write_confusion_matrix(folder / PICTURE, facts.evaluation, facts.info)
    write_card(folder / CARD, facts, PICTURE if facts.evaluation.has_matrix else None)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = facts.to_manifest({str(path.relative_to(folder)): _sha256(path) for path in files})
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
    return facts, manifest


def _write_models(
    spec: StudySpec,
    info: DatasetInfo,
    stored: Sequence[StoredWeights],
    folder: Path,
    formats: tuple[str, ...],
    n_test_images: int,
) -> tuple[bool, int]:
    from fmnist_optuna.export.saved_model import write_models  # loads TensorFlow

    return write_models(spec, info, stored, folder, formats, n_test_images)


def _check_parity(source: Source, opening: Opening, folder: Path, data_dir: Path | None, batch: int) -> Parity:
    """Let a fresh process with TensorFlow alone answer for every test image, and compare with what was recorded.

    Args:
        batch: Images to answer at once.
    """
    splits = load_splits_of(source.session.record, data_dir)
    n_nets = len(source.attempts) * (2 if source.session.record.spec.confirm.flip else 1)
    seconds = GATE_SECONDS * n_nets * max(1.0, len(splits.test_images) / GATE_IMAGES)
    recorded, accuracy = _recorded_answers(source, opening)
    arrays = temporary_folder() / f"{uuid.uuid4().hex}.npz"
    try:
        np.savez(arrays, images=splits.test_images, probabilities=recorded, labels=opening.labels)
        command = [sys.executable, "-I", str(PARITY_SCRIPT), str(folder), str(arrays), str(batch)]
        environment = _environment_of(source)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise MismatchError(
            f"The exported model must answer {count(len(splits.test_images), splits.info.noun)} within {seconds:.0f} "
            "s, but did not; export it again when the machine is less busy."
        ) from error
    finally:
        arrays.unlink(missing_ok=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise MismatchError(
            f"The exported model must load in a process with TensorFlow alone, but that said {last:.300}"
        )
    measured = Parity(**json.loads(done.stdout))
    is_equal = measured.accuracy == accuracy and not measured.n_other_classes
    if not is_equal or measured.n_odd_batches or not measured.max_difference <= TOLERANCE:
        raise MismatchError(
            "The exported model must give the recorded answers, but probabilities differ by up to "
            f"{measured.max_difference:.2g} (allowed {TOLERANCE:g}), {measured.n_other_classes} of "
            f"{count(measured.n_images, splits.info.noun)} get another class, accuracy is {measured.accuracy:.4f} "
            f"instead of {accuracy:.4f}, and {measured.n_odd_batches} of 2 small batches get other answers."
        )
    return measured


def _environment_of(source: Source) -> dict[str, str]:
    """Of a process that computes with the kernels that the recorded answers were computed with.

    Of a trial that recorded no settings, as those of the first versions, they are not known: the shell decides.
    """
    environment = dict(os.environ)
    prepare_training_environment(environment)
    recorded = source.attempts[0].attributes.environment or {}
    if SETTING in recorded:
        environment.pop(ONEDNN, None)
        if isinstance(then := recorded.get(ONEDNN), str):
            environment[ONEDNN] = then
    return environment


def _recorded_answers(source: Source, opening: Opening) -> tuple[NDArray[np.float32], float]:
    """What the exported model must answer to the test images, and the accuracy of that.

    Raises:
        UsageError: The weights were opened before the study asked for mirror images.
    """
    record = source.session.record
    if not record.spec.confirm.flip:
        return opening.probabilities, opening.accuracy
    averaged, accuracy = opening.scores.averaged, opening.scores.flip_accuracy
    if averaged is None or accuracy is None:
        raise UsageError(
            f"study {record.name}: confirm.flip must be true before the test set is opened, but the weights of "
            f"{_name_members(source)} were scored without mirror images; set it to false, or give the study another "
            "name (--name NEW)."
        )
    return averaged, accuracy


def _name_members(source: Source) -> str:
    """Whose weights they are: one trial by its number, or the seeds of those that answer together."""
    if not source.is_ensemble:
        return f"trial {source.attempts[0].number}"
    return f"the seeds {', '.join(str(attempt.params[TRAINING_SEED]) for attempt in source.attempts)}"


@contextlib.contextmanager
def _writing_to(place: _Place) -> Iterator[Path]:
    """Let a failure to write within this block be an error of ours that names the option."""
    try:
        with whole_folder(place.folder, place.take_next if place.is_next else None) as folder:
            yield folder
    except OSError as error:
        if error.errno in TAKEN:
            raise UsageError(f"version (--version) must be new, but {place.folder} was written meanwhile.") from error
        raise _unwritable(place.folder, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"out (--out) must be a folder that can be written, but {path}: {reason_of(error)}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
