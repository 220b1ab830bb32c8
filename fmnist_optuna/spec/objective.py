"""The table [objective] of a study file: by which metric the study compares, and which way that is better."""

from typing import Literal

from pydantic import Field, StrictStr, model_serializer, model_validator

from fmnist_optuna.search.metric import ALWAYS_MEASURED, VAL_ACCURACY, Metric, find_direction
from fmnist_optuna.spec.options import Table

METRIC_PATTERN = r"^val_[^\s/]{1,100}$"
METRIC_RULE = (
    'must be "val_accuracy", "val_loss", or "val_" and the name of a metric that the model is compiled with, as in the '
    "history of `fit`"
)


class ObjectiveSpec(Table):
    """The metric that cells are compared by: when a training stops, which are cut, which one wins."""

    metric: StrictStr = Field(default=VAL_ACCURACY.name, pattern=METRIC_PATTERN)
    direction: Literal["known", "maximize", "minimize"] = "known"

    @model_validator(mode="after")
    def _has_a_direction(self) -> "ObjectiveSpec":
        known = ALWAYS_MEASURED.get(self.metric)
        if known is not None and self.direction not in ("known", known.direction):
            raise ValueError(f'direction must be "{known.direction}" for {self.metric}, but got {self.direction!r}')
        if self.direction == "known" and find_direction(self.metric) is None:
            raise ValueError(
                f'direction must be "maximize" or "minimize" for {self.metric}, as its name does not say which way is '
                "better, but is not given"
            )
        return self

    @model_serializer(mode="plain")
    def _write_out(self) -> dict[str, object]:
        """With its direction, so that a study that leaves it out is the same as one that gives it."""
        return {"metric": self.metric, "direction": self.to_metric().direction}

    def to_metric(self) -> Metric:
        """The metric with its direction."""
        given = None if self.direction == "known" else self.direction
        direction = given or find_direction(self.metric)
        if direction is None:
            raise ValueError(f"the direction of {self.metric} must be known")
        return Metric(self.metric, direction)

    @property
    def is_default(self) -> bool:
        """Whether it is what every study had before there was a choice."""
        return self.to_metric() == VAL_ACCURACY


def describe_objective(metric: Metric, pruner: str) -> str | None:
    """What is to be known of a study that compares by another metric; None for the accuracy.

    Args:
        pruner: Its name.
    """
    if metric.is_accuracy:
        return None
    way = "the larger the better" if metric.direction == "maximize" else "the smaller the better"
    said = f"cells are compared by {metric.name}, {way}; the accuracy is measured beside it"
    if pruner != "ladder":
        return said
    if metric.is_share:
        error = "that of a share of as many images"
    else:
        error = "the value over the root of the number of validation images, as its own is not known"
    return f"{said}. At a rung the margin counts standard errors of the best: {error}"
