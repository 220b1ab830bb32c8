"""The table [training] of a study file: what only a study has, and the options that a cell may have too."""

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, StrictInt, StrictStr, model_serializer, model_validator

from fmnist_optuna.search.cell import MAX_INTEGER
from fmnist_optuna.spec.options import OF_TEACHER, Table, TrainingOptions

TEACHER_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$"
CALLBACK_PATTERN = r"^[\w.]+:\w+$"


class TrainingRun(Table):
    """One training: images a batch, cap on epochs, epochs without a better value before it stops, threads.

    With `keep_weights` = "last" it has no patience: it is trained to its last epoch, and keeps the weights of that.
    """

    batch_size: StrictInt = Field(default=32, ge=1, le=MAX_INTEGER)
    max_epochs: StrictInt = Field(default=30, ge=1, le=100_000)
    patience: StrictInt = Field(default=5, ge=1, le=100_000)
    keep_weights: Literal["best", "last"] = "best"
    seed: StrictInt = Field(default=0, ge=0, le=2**32 - 1)
    callbacks: tuple[Annotated[StrictStr, Field(pattern=CALLBACK_PATTERN)], ...] = ()
    checkpoint_seconds: StrictInt = Field(default=60, ge=1, le=MAX_INTEGER)
    teacher: StrictStr = Field(default="", pattern=TEACHER_PATTERN)
    threads: StrictInt = Field(default=1, ge=1, le=1024)
    class_weight: Literal["none", "balanced"] = "none"


LATER_KEYS = ("keep_weights", "teacher", "threads", "class_weight")  # which the first studies did not have


class TrainingSpec(TrainingOptions, TrainingRun):
    """The whole of [training]: what only the study has, then what a cell may have too."""

    @model_validator(mode="after")
    def _has_a_teacher_to_weigh(self) -> "TrainingSpec":
        if not self.teacher and (idle := sorted(self.model_fields_set & OF_TEACHER)):
            raise ValueError(f"must name a teacher where it has {', '.join(idle)}, but names none")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_came_later(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A study that has the default of a later key is what it was before there was a choice."""
        left_out = self.find_unchanged(LATER_KEYS)
        left_out |= set() if self.teacher else OF_TEACHER
        return {name: value for name, value in serialize(self).items() if name not in left_out}
