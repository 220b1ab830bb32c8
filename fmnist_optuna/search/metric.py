"""What a search makes as large as it can: one metric, by one name from the engine to the answers in JSON."""

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
