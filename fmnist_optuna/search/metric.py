"""What an epoch measures, and which of it a search makes as large as it can: one name from the engine to the JSON."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A number that attempts are compared by.

    Args:
        name: In the engine's logs, the tables, Optuna's studies and the answers in JSON.
        direction: Which way is better, in Optuna's words.
    """

    name: str
    direction: Literal["maximize"]

    @staticmethod
    def rank(value: float | None) -> float:
        """Sort key of a value: the better one comes first, and what is no finite number last."""
        return -value if value is not None and math.isfinite(value) else math.inf


VAL_ACCURACY = Metric("val_accuracy", "maximize")  # share of the validation images, 0..1, of the weights that are kept


@dataclass(frozen=True)
class Epoch:
    """What one epoch of a training measured.

    Args:
        epoch: 0-based.
        train_loss: Mean over all training images, with dropout; NaN as read from tables for one that was not finite.
        train_accuracy: 0..1.
        val_loss: Mean over all validation images; NaN as read from tables for one that was not finite.
        val_accuracy: 0..1.
        seconds: That it took.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float

    @property
    def is_finite(self) -> bool:
        """Whether neither loss is NaN or infinite."""
        return math.isfinite(self.train_loss) and math.isfinite(self.val_loss)
