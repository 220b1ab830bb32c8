"""The openings of the test set: one set of weights is scored once, and every later answer is read from here."""

import io
import json
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update

from fmnist_optuna.errors import MismatchError, StorageError
from fmnist_optuna.ledger.holders import Process
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.part import StudyPart
from fmnist_optuna.ledger.storage import insert_or_ignore
from fmnist_optuna.ledger.tables import StoredRow, openings, predictions, studies

OPENING_SECONDS = 120.0  # for one model: a small one takes about a second; after this its process is taken to be dead
POLL_SECONDS = 0.2

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Scores:
    """What one set of weights answered to the test images.

    Args:
        probabilities: float32 (n_images, n_classes).
        labels: Integers (n_images,), the true ones.
        mirrored: The probabilities of the mirror images; None where they were not asked for.
        objective: The study's metric on the same images, where it is not the accuracy; None where it is, and of answers
            that are averaged over several models. What is no finite number becomes None too.
        flip_objective: The same of the means of answers to images and to their mirror images; None likewise, and where
            these were not asked for or probabilities are not enough for the metric.
    """

    probabilities: NDArray[np.float32]
    labels: Labels
    mirrored: NDArray[np.float32] | None = None
    objective: float | None = None
    flip_objective: float | None = None

    def __post_init__(self) -> None:
        for name in ("objective", "flip_objective"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                object.__setattr__(self, name, None)

    @property
    def accuracy(self) -> float:
        """Share of the images whose most probable class is the true one, 0..1."""
        return _accuracy(self.probabilities, self.labels)

    @property
    def averaged(self) -> NDArray[np.float32] | None:
        """The mean of an image's probabilities and those of its mirror image."""
        return None if self.mirrored is None else (self.probabilities + self.mirrored) / np.float32(2)

    @property
    def flip_accuracy(self) -> float | None:
        """The accuracy of these means."""
        averaged = self.averaged
        return None if averaged is None else _accuracy(averaged, self.labels)


def _accuracy(probabilities: NDArray[np.float32], labels: Labels) -> float:
    return float(np.mean(probabilities.argmax(axis=1) == labels))


@dataclass(frozen=True)
class Opening:
    """One scoring of one set of weights on the test images.

    Args:
        accuracy: 0..1, as it was recorded.
        opened_at: Seconds since 1970 UTC.
        scores: What was answered.
    """

    trial_id: int
    weights_sha256: str
    purpose: str
    accuracy: float
    opened_at: float
    scores: Scores

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 (n_images, n_classes)."""
        return self.scores.probabilities

    @property
    def labels(self) -> Labels:
        """Integers (n_images,)."""
        return self.scores.labels


class Openings(StudyPart):
    """The openings of one study."""

    def open(
        self, trial_id: int, weights_sha256: str, purpose: str, score: Callable[[], Scores], n_models: int = 1
    ) -> Opening:
        """The opening of these weights: the recorded one, or what `score` says, by one process at a time.

        Args:
            score: Scores the weights.
            n_models: That it asks: so many times longer may it take.

        Raises:
            StorageError: Another process reserved the opening, lives, and does not finish.
        """
        opener = json.dumps({**asdict(Process.current()), "token": uuid.uuid4().hex})
        seconds = n_models * OPENING_SECONDS
        deadline = time.monotonic() + 2 * seconds
        while time.monotonic() < deadline:
            recorded = self.find(weights_sha256)
            if recorded is None and self._reserve(trial_id, weights_sha256, purpose, opener, seconds):
                recorded = self._score(weights_sha256, opener, score)
            if recorded is not None:
                return recorded
            time.sleep(POLL_SECONDS)
        raise StorageError(f"Another process must finish scoring weights {weights_sha256[:12]}, but does not.")

    def _score(self, weights_sha256: str, opener: str, score: Callable[[], Scores]) -> Opening | None:
        """Score and record; None for who took so long that another has the reservation, whose answer is waited for."""
        try:
            scores = score()
        except BaseException:
            self._release(weights_sha256, opener)
            raise
        self._record(weights_sha256, opener, scores)
        return self.find(weights_sha256)

    @retrying
    def find(self, weights_sha256: str) -> Opening | None:
        """The recorded opening of these weights, or None.

        Raises:
            MismatchError: Its predictions are not what an opening records.
        """
        query = _RECORDED.where(self._of(weights_sha256))
        with self.storage.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _opening(row)

    @retrying
    def recorded(self, purpose: str | None = None) -> list[Opening]:
        """All recorded openings, the oldest first.

        Args:
            purpose: Only those of this purpose; None for all.

        Raises:
            MismatchError: The predictions of one are not what an opening records.
        """
        mine = _RECORDED.where(openings.c.study_id == self.study_id).order_by(openings.c.opened_at)
        if purpose is not None:
            mine = mine.where(openings.c.purpose == purpose)
        with self.storage.read() as connection:
            rows = connection.execute(mine).all()
        return [_opening(row) for row in rows]

    @retrying
    def count_all(self) -> int:
        """How many are recorded, of this study and of those that follow from it."""
        family = select(studies.c.study_id).where(
            or_(studies.c.study_id == self.study_id, studies.c.parent_id == self.study_id)
        )
        recorded = and_(openings.c.study_id.in_(family), openings.c.accuracy.is_not(None))
        with self.storage.read() as connection:
            return int(connection.execute(select(func.count()).where(recorded)).scalar_one())

    @retrying
    def _reserve(self, trial_id: int, weights_sha256: str, purpose: str, opener: str, seconds: float) -> bool:
        """Take the one scoring of these weights; who is dead, or has had it for so many seconds, loses it."""
        is_old = (openings.c.opened_at < self.storage.now - seconds).label("is_old")
        with self.storage.write() as connection:
            values = {
                "study_id": self.study_id,
                "trial_id": trial_id,
                "weights_sha256": weights_sha256,
                "purpose": purpose,
                "opener": opener,
                "opened_at": connection.execute(select(self.storage.now)).scalar_one(),
            }
            connection.execute(insert_or_ignore(self.storage, openings), values)
            row = connection.execute(select(openings, is_old).where(self._of(weights_sha256))).one_or_none()
            if row is None:  # released between the two statements
                return False
            if row.opener == opener:
                return row.accuracy is None
            if row.accuracy is not None or not (row.is_old or _is_dead(row.opener)):
                return False
            taken = update(openings).where(self._of(weights_sha256), openings.c.opener == row.opener)
            values = {"opener": opener, "opened_at": self.storage.now}
            return connection.execute(taken.where(openings.c.accuracy.is_(None)).values(values)).rowcount == 1

    @retrying
    def _release(self, weights_sha256: str, opener: str) -> None:
        mine = and_(self._of(weights_sha256), openings.c.opener == opener, openings.c.accuracy.is_(None))
        with self.storage.write() as connection:
            connection.execute(delete(openings).where(mine))

    @retrying
    def _record(self, weights_sha256: str, opener: str, scores: Scores) -> None:
        buffer = io.BytesIO()
        answers, labels, mirrored = scores.probabilities, scores.labels, scores.mirrored
        if mirrored is None:
            np.savez_compressed(buffer, probabilities=answers, labels=labels)
        else:
            flipped = np.float64(math.nan if scores.flip_objective is None else scores.flip_objective)
            np.savez_compressed(buffer, probabilities=answers, labels=labels, mirrored=mirrored, flip_objective=flipped)
        mine = and_(self._of(weights_sha256), openings.c.opener == opener)
        with self.storage.write() as connection:
            values = {"accuracy": scores.accuracy, "objective": scores.objective, "opened_at": self.storage.now}
            scored = update(openings).where(mine).values(values)
            opening_id = connection.execute(scored.returning(openings.c.opening_id)).scalar_one_or_none()
            if opening_id is not None:
                statement = insert_or_ignore(self.storage, predictions)  # an earlier try may have committed
                connection.execute(statement.values(opening_id=opening_id, predictions=buffer.getvalue()))

    def _of(self, weights_sha256: str) -> ColumnElement[bool]:
        return and_(openings.c.study_id == self.study_id, openings.c.weights_sha256 == weights_sha256)


_RECORDED = (
    select(openings, predictions.c.predictions)
    .outerjoin(predictions, predictions.c.opening_id == openings.c.opening_id)
    .where(openings.c.accuracy.is_not(None))
)


def _opening(row: StoredRow) -> Opening:
    scores = replace(_unpack(row.weights_sha256, row.predictions), objective=row.objective)
    return Opening(row.trial_id, row.weights_sha256, row.purpose, row.accuracy, row.opened_at, scores)


def _unpack(weights_sha256: str, predictions: bytes | None) -> Scores:
    rule = f"The recorded predictions of weights {weights_sha256[:12]} must be probabilities and labels"
    try:
        with np.load(io.BytesIO(predictions or b""), allow_pickle=False) as arrays:
            probabilities, labels, mirrored = arrays["probabilities"], arrays["labels"], arrays.get("mirrored")
            flipped = arrays.get("flip_objective")  # openings of earlier versions have none
    except Exception as error:  # NumPy and zipfile raise whatever damaged bytes provoke
        raise MismatchError(f"{rule}, but cannot be read ({type(error).__name__}).") from error
    are_numbers = probabilities.dtype.kind == "f" and labels.dtype.kind in "iu"
    if not are_numbers or probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise MismatchError(
            f"{rule}, but are {probabilities.dtype} {probabilities.shape} and {labels.dtype} {labels.shape}."
        )
    if mirrored is not None and (mirrored.dtype.kind != "f" or mirrored.shape != probabilities.shape):
        raise MismatchError(f"{rule}, but those of mirror images are {mirrored.dtype} {mirrored.shape}.")
    if flipped is not None and (flipped.dtype.kind != "f" or flipped.shape != ()):
        raise MismatchError(f"{rule}, and flip_objective one number, but that is {flipped.dtype} {flipped.shape}.")
    return Scores(probabilities, labels, mirrored, flip_objective=None if flipped is None else float(flipped))


def _is_dead(opener: str) -> bool:
    process = json.loads(opener)
    return Process(process["host_id"], process["pid"], process["started"]).is_dead()
