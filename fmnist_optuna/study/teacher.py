"""Whose answers a study learns from: decided when it is made, and the same for all of its trainings."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import StrictBool, StrictInt, StrictStr

from fmnist_optuna.json_value import Json
from fmnist_optuna.spec.options import Table
from fmnist_optuna.spec.values import Value
from fmnist_optuna.wording import count, format_params


class Teacher(Table):
    """The winner of another study, as it was when its answers were taken.

    Args:
        study: Its study.
        trial: Number of its trial.
        params: Of its cell.
        n_seeds: Fresh seeds of that cell whose answers were averaged; 0 where they are those of the trial's weights.
        has_flips: Whether each answer is the mean of those to an image and to its mirror image.
        artifact: Of the student's, with the answers.
        sha256: Of that file.
    """

    study: StrictStr
    trial: StrictInt
    params: Mapping[str, Value]
    n_seeds: StrictInt
    has_flips: StrictBool
    artifact: StrictStr
    sha256: StrictStr

    def to_content(self) -> dict[str, Json]:
        """As answers and manifests have it; where its file lies is the study's own affair."""
        return self.model_dump(mode="json", exclude={"artifact"})

    def describe(self) -> str:
        """In words: `conv, trial 3 (width 32), mean of 5 seeds`."""
        seeds = f", mean of {count(self.n_seeds, 'seed')}" if self.n_seeds else ""
        return f"{self.study}, trial {self.trial} ({format_params(self.params)}){seeds}"


@dataclass(frozen=True)
class Lesson:
    """What a study that is about to be made will learn from.

    Args:
        teacher: Names the file, which lies nowhere yet.
        content: Of the file.
    """

    teacher: Teacher
    content: bytes
