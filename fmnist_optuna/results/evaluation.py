"""Stored weights on the test images: each set is scored once, in a process of its own, and replayed ever after."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmnist_optuna.bridge.artifacts import weights_path
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.processes.children import Call
from fmnist_optuna.results.changed_code import explained_by_code
from fmnist_optuna.search.cell import Params
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.splits import DataPlace, find_place

Z_95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class ClassResult:
    """One class on the test images.

    Args:
        label: Its name.
        n_images: Of the test images that show it.
        recall: Share (0..1) of its images that were found; NaN without images.
        precision: Share (0..1) of the answers that name it which were right; NaN without such answers.
    """

    label: str
    n_images: int
    recall: float
    precision: float


@dataclass(frozen=True)
class Evaluation:
    """The score of one set of weights on the test images, or of several whose answers are averaged.

    Args:
        accuracy: 0..1.
        interval: 95 % interval of the accuracy (Wilson), over other test images of the same kind.
        n_images: Test images.
        classes: One entry a class, in the order of the labels.
        confusion: How many images of each true class (rows) got each answer (columns), in the same order.
        flip_accuracy: The same of answers that are averaged over an image and its mirror image; None if not measured.
    """

    accuracy: float
    interval: tuple[float, float]
    n_images: int
    classes: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    flip_accuracy: float | None = None

    def confusion_shares(self) -> list[list[float]]:
        """Share (0..1) of each true class (rows) that got each answer (columns); 0.0 for a class without images."""
        return [[n_images / max(sum(row), 1) for n_images in row] for row in self.confusion]


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a COMPLETE trial, and what was recorded of them.

    Args:
        trial: Its number.
        seed: What its function draws beside its weights is the same from it.
        path: Of the .weights.h5 file.
        sha256: Of their content.
        val_accuracy: 0..1.
        environment: What they were trained in; None for a trial that recorded none.
    """

    trial: int
    params: Params
    seed: int
    path: Path
    sha256: str
    val_accuracy: float
    environment: Mapping[str, Json] | None


def find_opening(session: Session, attempt: Attempt) -> Opening | None:
    """The recorded opening of a complete attempt's weights; nothing is scored."""
    return session.openings.find(hash_together([attempt]))


def hash_together(attempts: Sequence[Attempt]) -> str:
    """What the opening of some attempts' weights is known by, 64 hex digits: of one its hash, else that of all hashes.

    Args:
        attempts: Complete; the answers of several are averaged, and their order counts.
    """
    hashes = [str(attempt.attributes.weights_sha256) for attempt in attempts]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def open_weights(session: Session, attempts: Sequence[Attempt], data_dir: Path | None, purpose: str) -> Opening:
    """Score the stored weights of complete attempts once on the test images, or replay what was recorded.

    Args:
        attempts: One, or several whose answers are averaged.
        data_dir: Folder with the IDX files, or None for the search order.
        purpose: "winner", "confirmation", "all-data", "export" or "ensemble"; kept with the opening.

    Raises:
        MismatchError: The stored weights are missing or altered, or do not score their recorded val_accuracy.
        DataError: The data is not there.
    """

    def score() -> Scores:
        stored = [find_weights(session, attempt) for attempt in attempts]
        place = find_place(session.record, data_dir)
        return Call(_score_weights, session.record.spec, stored, place, doing="scoring the weights").result()

    with explained_by_code(session, attempts[0]):
        sha256 = hash_together(attempts)
        return session.openings.open(attempts[0].trial_id, sha256, purpose, score, n_models=len(attempts))


def find_weights(session: Session, attempt: Attempt) -> StoredWeights:
    """The stored weights of a complete attempt.

    Raises:
        MismatchError: They are missing, or the attempt recorded no seed.
    """
    trial = session.optuna_storage.get_trial(attempt.trial_id)
    return StoredWeights(
        trial=attempt.number,
        params=attempt.params,
        seed=recorded_seed(attempt),
        path=weights_path(session.storage.artifacts, session.optuna_storage, trial),
        sha256=str(attempt.attributes.weights_sha256),
        val_accuracy=attempt.val_accuracy or 0.0,
        environment=attempt.attributes.environment,
    )


def recorded_seed(attempt: Attempt) -> int:
    """The seed that an attempt was trained with.

    Raises:
        MismatchError: It recorded none: somebody has changed the database.
    """
    if attempt.attributes.seed is None:
        raise MismatchError(f"Trial {attempt.number} must have recorded the seed of its training, but has none.")
    return attempt.attributes.seed


def _score_weights(spec: StudySpec, stored: Sequence[StoredWeights], place: DataPlace) -> Scores:
    from fmnist_optuna.results.scoring import score_weights  # loads TensorFlow

    return score_weights(spec, stored, place)


def summarize(opening: Opening, class_names: Sequence[str]) -> Evaluation:
    """Accuracy, interval, classes and confusion of an opening.

    Args:
        class_names: In the order of the labels.
    """
    n_classes = len(class_names)
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (opening.labels.astype(np.int64), opening.probabilities.argmax(axis=1)), 1)
    hits = counts.diagonal()
    return Evaluation(
        accuracy=opening.accuracy,
        interval=wilson_interval(int(hits.sum()), len(opening.labels)),
        n_images=len(opening.labels),
        classes=tuple(
            ClassResult(label, int(n_images), _share(int(n_hits), int(n_images)), _share(int(n_hits), int(n_answers)))
            for label, n_images, n_answers, n_hits in zip(
                class_names, counts.sum(axis=1), counts.sum(axis=0), hits, strict=True
            )
        ),
        confusion=tuple(tuple(int(n_images) for n_images in row) for row in counts),
        flip_accuracy=opening.scores.flip_accuracy,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def wilson_interval(n_hits: int, n_items: int) -> tuple[float, float]:
    """95 % interval of a share.

    Source: Wilson (1927), Journal of the American Statistical Association 22, 209-212.

    Args:
        n_hits: 0 <= n_hits <= n_items.
        n_items: >= 1.
    """
    share, z_squared = n_hits / n_items, Z_95**2
    center = (share + z_squared / (2 * n_items)) / (1 + z_squared / n_items)
    spread = math.sqrt(share * (1 - share) / n_items + z_squared / (4 * n_items**2))
    half = Z_95 * spread / (1 + z_squared / n_items)
    return max(0.0, center - half), min(1.0, center + half)  # rounding may step over the bounds by 1e-17
