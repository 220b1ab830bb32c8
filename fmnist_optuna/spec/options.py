"""The options of a training that a grid may vary as well: optimizer, schedule, regularisation, averaging, augmentation.

A study file gives them in [training] and [augment]. A parameter of the grid of the same name is one of these, unless
the architecture has a parameter of that name: then it is the architecture's.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import Params


class Table(BaseModel):
    """A table of a study file: no other keys, and values that stay as they were read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def find_unchanged(self, names: Iterable[str]) -> set[str]:
        """Those of some keys that have their default."""
        return {name for name in names if getattr(self, name) == type(self).model_fields[name].default}


class TrainingOptions(Table):
    """The keys of [training] that a grid may have too."""

    model_config = ConfigDict(allow_inf_nan=False)
    optimizer: Literal["compiled", "adam", "sgd"] = "compiled"
    momentum: StrictFloat = Field(default=0.9, ge=0, le=1)
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    warmup_epochs: StrictFloat = Field(default=0.0, ge=0, le=100_000)
    learning_rate_floor: StrictFloat = Field(default=0.0, ge=0, le=1)
    weight_decay: StrictFloat = Field(default=0.0, ge=0, le=1)
    label_smoothing: StrictFloat = Field(default=0.0, ge=0, le=0.9)
    ema: StrictFloat = Field(default=0.0, ge=0, le=0.999999)
    ema_after: Literal["step", "epoch"] = "step"
    teacher_weight: StrictFloat = Field(default=0.9, ge=0, le=1)
    teacher_temperature: StrictFloat = Field(default=1.0, ge=0.1, le=100)


class AugmentSpec(Table):
    """What is done to images in training, and to no others; a grid may have these keys too."""

    model_config = ConfigDict(allow_inf_nan=False)
    horizontal_flip: Literal["none", "random", "alternating"] = "none"
    shift: StrictInt = Field(default=0, ge=0, le=1000)
    erase: StrictInt = Field(default=0, ge=0, le=1000)
    mixup: StrictFloat = Field(default=0.0, ge=0, le=100)

    @property
    def moves_pictures(self) -> bool:
        """Whether anything is asked for that needs the rows and columns of a picture."""
        return self.horizontal_flip != "none" or self.shift > 0 or self.erase > 0


class Options(AugmentSpec, TrainingOptions):
    """The options of the training of one cell.

    Args:
        optimizer: "adam", "sgd" with Nesterov's momentum, or "compiled": the one that the architecture compiles.
        momentum: Of "sgd", 0..1.
        schedule: Of the learning rate over all steps: constant, a cosine to its floor, or "one-cycle", a straight line.
        warmup_epochs: Epochs, >= 0, in which the rate first rises in a straight line.
        learning_rate_floor: What is left of the rate at the end of a schedule, 0..1 of its peak.
        weight_decay: What a step takes away of each entry of a matrix or kernel, for a learning rate of 1, 0..1.
        label_smoothing: Share of a label that is spread evenly over all classes, 0..0.9.
        ema: What the running average of the weights keeps of itself at each update, 0 <= share < 1; 0 for no average.
        ema_after: What an update of the average comes after.
        teacher_weight: Share of the loss that a teacher's answers have, 0..1; the labels have the rest.
        teacher_temperature: What logits are divided by before a student's answers are compared with its teacher's.
        horizontal_flip: Of each image at random, or "alternating": at random in the first epoch, and from then on the
            other way round in every epoch than in the one before.
        shift: Largest number of pixels by which an image is moved, up or down and left or right.
        erase: Side of a square that is blackened somewhere in each image, in pixels.
        mixup: Both parameters of the Beta distribution that the shares of two images are drawn from; 0 mixes none.
    """


PLAIN = Options()
OF_PIXELS = ("shift", "erase")  # which pictures must be large enough for
OF_TEACHER = frozenset({"teacher_weight", "teacher_temperature"})  # which say nothing without one
# Declared type of each, as of an architecture's parameters: a type, or the values that it may have.
OPTION_TYPES: Mapping[str, type | tuple[str, ...]] = {
    name: get_args(field.annotation) or type(field.default) for name, field in Options.model_fields.items()
}


def read_options(training: TrainingOptions, augment: AugmentSpec, params: Params, taken: Container[str]) -> Options:
    """The options of a cell: those of the study file, but where its parameters say otherwise.

    Args:
        params: Of the cell.
        taken: Names of the architecture's parameters, which mean those.
    """
    chosen = {name: value for name, value in params.items() if name in OPTION_TYPES and name not in taken}
    given = {**dict(training), **dict(augment), **chosen}
    return Options.model_validate({name: given[name] for name in OPTION_TYPES})


def check_pixels(table: str, name: str, value: float, height: int, width: int) -> None:
    """Check that pictures are large enough for one of `OF_PIXELS`.

    Args:
        table: That has the option, as an error names it.
        value: In pixels, as the height and the width of the pictures.

    Raises:
        SpecError: They are not.
    """
    most = min(height, width) - (name == "shift")  # of which a row or a column is to stay
    if value > most:
        raise SpecError(
            f"{table}.{name} must be at most {most} for images of {height} x {width} pixels, but got {value}."
        )
