"""What an epoch measures, and which of it a search makes as good as it can: one name from the engine to the JSON."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fmnist_optuna.json_value import Json
from fmnist_optuna.wording import ABSENT, format_interval, format_percent, format_points

Direction = Literal["maximize", "minimize"]

OF_VALIDATION = "val_"  # what begins the name of whatever is measured on validation images, as in the logs of `fit`
# Words of a metric's name that say which way is better, in the names that Keras gives to its own metrics.
RISING = frozenset(
    {"accuracy", "acc", "auc", "f1", "fbeta", "iou", "io_u", "precision", "recall", "sensitivity", "specificity", "top"}
)
FALLING = frozenset(
    {"loss", "crossentropy", "entropy", "divergence", "error", "hinge", "logcosh", "poisson", "mse", "mae"}
)
WORD = re.compile(r"f1|io_u|[a-z]+")  # `top5` and `auc_1` are the words top and auc; Keras writes IoU as `io_u`


@dataclass(frozen=True)
class Metric:
    """A number that attempts are compared by.

    Args:
        name: In the engine's logs, the tables, Optuna's studies and the answers in JSON.
        direction: Which way is better, in Optuna's words.
    """

    name: str
    direction: Direction

    @property
    def name_in_logs(self) -> str:
        """Its name where a model measures it, whatever the images are."""
        return self.name.removeprefix(OF_VALIDATION)

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the share of right answers, which stands beside any other."""
        return self == VAL_ACCURACY

    @property
    def is_compiled(self) -> bool:
        """Whether the model brings it: accuracy and loss are measured of every model."""
        return self.name not in ALWAYS_MEASURED

    @property
    def is_share(self) -> bool:
        """Whether it is one of 0..1 that rises, so that its sampling error may be taken for that of an accuracy."""
        return self.direction == "maximize" and find_direction(self.name) == "maximize"

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value that is possible; infinite where they are not known.

        An accuracy is a share, 0..1. A loss may be negative with terms of a model's own, and what a model brings may be
        anything whatever its name says, such as an accuracy in percent.
        """
        return (0.0, 1.0) if self.is_accuracy else (-math.inf, math.inf)

    @property
    def short_name(self) -> str:
        """At the head of a column: `acc`, `loss`, `f1`."""
        return "acc" if self.is_accuracy else self.name_in_logs

    def score(self, value: float) -> float:
        """The value, or its negative where less is better: of two scores the larger one is better."""
        return value if self.direction == "maximize" else -value

    def value(self, score: float) -> float:
        """The value that has a score."""
        return self.score(score)  # each is the other's negative, or both are one

    def rank(self, value: float | None) -> float:
        """Sort key of a value: the better one comes first, and what is no finite number last."""
        return -self.score(value) if value is not None and math.isfinite(value) else math.inf

    def best_of(self, values: Iterable[float | None]) -> float | None:
        """The best of the values that are finite numbers; None if none is."""
        ranked = sorted((value for value in values if value is not None and math.isfinite(value)), key=self.rank)
        return ranked[0] if ranked else None

    def answer(self, value: float | None) -> dict[str, Json]:
        """A value with what it is of, as answers in JSON have it."""
        return {"metric": self.name, "direction": self.direction, "value": value}

    def value_of(self, epoch: "Epoch") -> float:
        """What an epoch measured of it; NaN where that was not finite."""
        if self.is_compiled:
            return math.nan if epoch.objective is None else epoch.objective
        return epoch.val_accuracy if self.is_accuracy else epoch.val_loss

    def format(self, value: float | None, n_digits: int = 2) -> str:
        """A value for people: an accuracy as `91.23 %`, any other number as `0.3012`; `-` for None and for NaN.

        Args:
            n_digits: Of a percentage; another number has two more.
        """
        if self.is_accuracy:
            return format_percent(value, n_digits)
        return ABSENT if value is None or math.isnan(value) else f"{value:.{n_digits + 2}f}"

    def format_distance(self, distance: float, n_digits: int = 2) -> str:
        """A distance between two values, such as a standard deviation; of accuracies in points of percent."""
        return format_points(distance, n_digits) if self.is_accuracy else f"{distance:.{n_digits + 2}f}"

    def format_interval(self, ends: Iterable[float]) -> str:
        """The two ends of an interval; of accuracies in percent."""
        return format_interval(ends) if self.is_accuracy else " to ".join(f"{end:.4f}" for end in ends)


VAL_ACCURACY = Metric("val_accuracy", "maximize")  # share of the validation images, 0..1, of the weights that are kept
VAL_LOSS = Metric("val_loss", "minimize")  # mean over the validation images, of the same weights
ALWAYS_MEASURED = {metric.name: metric for metric in (VAL_ACCURACY, VAL_LOSS)}


def find_direction(name: str) -> Direction | None:
    """Which way a metric of this name is better, by the words of it; None where they do not say, or disagree."""
    words = set(WORD.findall(name.removeprefix(OF_VALIDATION).lower()))
    rises, falls = bool(words & RISING), bool(words & FALLING)
    if rises == falls:
        return None
    return "maximize" if rises else "minimize"


@dataclass(frozen=True)
class Epoch:
    """What one epoch of a training measured.

    Args:
        epoch: 0-based.
        train_loss: Mean over all training images, with dropout; NaN as read from tables for one that was not finite.
            Where images have weights, it is that of the weighted losses.
        train_accuracy: 0..1.
        val_loss: Mean over all validation images; NaN as read from tables for one that was not finite.
        val_accuracy: 0..1.
        seconds: That it took.
        objective: The metric that the study compares by, where that is neither val_accuracy nor val_loss; None where it
            is one of these, and as read from tables for one that was not finite.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    objective: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether neither loss, nor the metric that the study compares by, is NaN or infinite."""
        return all(map(math.isfinite, (self.train_loss, self.val_loss, self.objective or 0.0)))
