"""Stored weights on the test images: each set is scored once, in a process of its own, and replayed ever after."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.bridge.artifacts import bring_artifact, find_weights_artifact
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.processes.children import Call
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.results.changed_code import explained_by_code
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.splits import DataPlace, find_place

MOST_IN_MATRIX = 50  # classes; of more the worst confusions are listed
COPIES = "artifacts"  # folder of what was brought from a bucket, among the temporary files
N_WORST = 20  # confusions that are listed, and classes
Z_95 = 1.959964  # two-sided 95 % quantile of the normal distribution

Indices = NDArray[np.int64]


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
class Confusion:
    """One class that was taken for another on the test images.

    Args:
        label: Name of the true one.
        answer: Name of the other.
        n_images: Of the true one that got this answer.
        share: 0..1, of all test images of the true one.
    """

    label: str
    answer: str
    n_images: int
    share: float


@dataclass(frozen=True)
class Evaluation:
    """The score of one set of weights on the test images, or of several whose answers are averaged.

    Args:
        accuracy: 0..1.
        interval: 95 % interval of the accuracy (Wilson), over other test images of the same kind.
        n_images: Test images.
        classes: One entry a class, in the order of the labels.
        confusion: How many images of each true class (rows) got each answer (columns), in the same order; empty where
            there are more than MOST_IN_MATRIX classes.
        flip_accuracy: The same of answers that are averaged over an image and its mirror image; None if not measured.
        worst: The commonest confusions, the commonest first.
        objective: The study's metric, where it is not the accuracy; None where it is, and of several sets of weights.
        flip_objective: The same of the averaged answers; None likewise, and where it was not measured.
    """

    accuracy: float
    interval: tuple[float, float]
    n_images: int
    classes: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    flip_accuracy: float | None = None
    worst: tuple[Confusion, ...] = ()
    objective: float | None = None
    flip_objective: float | None = None

    @property
    def has_matrix(self) -> bool:
        """Whether there are few enough classes for a matrix that can be read."""
        return len(self.classes) <= MOST_IN_MATRIX

    @property
    def weakest(self) -> tuple[ClassResult, ...]:
        """The N_WORST classes that are found least often, of those that the test has images of, the weakest first."""
        found = sorted((result for result in self.classes if result.n_images), key=lambda result: result.recall)
        return tuple(found[:N_WORST])

    @property
    def shown_classes(self) -> tuple[ClassResult, ...]:
        """What a table has: all classes, or of many the weakest."""
        return self.classes if self.has_matrix else self.weakest

    @property
    def shown_note(self) -> str:
        """What is said above a table of the weakest; empty above one of all."""
        if self.has_matrix:
            return ""
        return f"The {len(self.weakest)} of {len(self.classes):,} classes that are found least often:"

    def value_of(self, metric: Metric) -> float | None:
        """What the study compares by, on the test images; None of another metric than the accuracy for several sets."""
        return self.accuracy if metric.is_accuracy else self.objective

    def flip_value_of(self, metric: Metric) -> float | None:
        """The same of the answers averaged with those to mirror images; None where it was not measured."""
        return self.flip_accuracy if metric.is_accuracy else self.flip_objective

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
        name: Where they lie, for people: a path or a URL; empty for `path`.
    """

    trial: int
    params: Params
    seed: int
    path: Path
    sha256: str
    val_accuracy: float
    environment: Mapping[str, Json] | None
    name: str = ""


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
        place = find_place(session.record, data_dir, attempts[0].params)
        return Call(_score_weights, session.record.spec, stored, place, doing="scoring the weights").result()

    with explained_by_code(session, attempts[0]):
        sha256 = hash_together(attempts)
        return session.openings.open(attempts[0].trial_id, sha256, purpose, score, n_models=len(attempts))


def find_weights(session: Session, attempt: Attempt) -> StoredWeights:
    """The stored weights of a complete attempt; of those in a bucket a copy, which goes with this process.

    Raises:
        MismatchError: They are missing, or the attempt recorded no seed.
        ArtifactsError: The bucket does not let this machine read them.
    """
    storage, store = session.storage, session.store
    trial = session.optuna_storage.get_trial(attempt.trial_id)
    artifact = find_weights_artifact(storage, store, session.optuna_storage, trial)
    return StoredWeights(
        trial=attempt.number,
        params=attempt.params,
        seed=recorded_seed(attempt),
        path=bring_artifact(storage, store, artifact, temporary_folder() / COPIES),
        sha256=str(attempt.attributes.weights_sha256),
        val_accuracy=attempt.val_accuracy or 0.0,
        environment=attempt.attributes.environment,
        name=store.describe(artifact),
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
    labels, answers = opening.labels.astype(np.int64), opening.probabilities.argmax(axis=1)
    n_of_class, n_of_answer, hits = (
        np.bincount(each, minlength=n_classes) for each in (labels, answers, labels[labels == answers])
    )
    return Evaluation(
        accuracy=opening.accuracy,
        interval=wilson_interval(int(hits.sum()), len(opening.labels)),
        n_images=len(opening.labels),
        classes=tuple(
            ClassResult(label, int(n_images), _share(int(n_hits), int(n_images)), _share(int(n_hits), int(n_answers)))
            for label, n_images, n_answers, n_hits in zip(class_names, n_of_class, n_of_answer, hits, strict=True)
        ),
        confusion=_count_confusions(labels, answers, n_classes) if n_classes <= MOST_IN_MATRIX else (),
        flip_accuracy=opening.scores.flip_accuracy,
        worst=_find_worst(labels, answers, class_names, n_of_class),
        objective=opening.scores.objective,
        flip_objective=opening.scores.flip_objective,
    )


def _count_confusions(labels: Indices, answers: Indices, n_classes: int) -> tuple[tuple[int, ...], ...]:
    counts = np.bincount(labels * n_classes + answers, minlength=n_classes**2)
    return tuple(map(tuple, counts.reshape(n_classes, n_classes).tolist()))


def _find_worst(
    labels: Indices, answers: Indices, class_names: Sequence[str], n_of_class: Indices
) -> tuple[Confusion, ...]:
    """The commonest confusions; among equal ones the lower label is first."""
    n_classes, is_wrong = len(class_names), labels != answers
    pairs, counts = np.unique(labels[is_wrong] * n_classes + answers[is_wrong], return_counts=True)
    worst = []
    for place in np.argsort(-counts, kind="stable")[:N_WORST].tolist():
        label, answer = divmod(int(pairs[place]), n_classes)
        n_images = int(counts[place])
        worst.append(Confusion(class_names[label], class_names[answer], n_images, n_images / int(n_of_class[label])))
    return tuple(worst)


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
