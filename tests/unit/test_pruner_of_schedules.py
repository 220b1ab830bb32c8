"""The pruner that a study has where its learning rate has a schedule, and what is said of it."""

import tomllib

import pytest

from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.spec.training import TrainingSpec

COSINE = '[training]\nschedule = "cosine"\n'
OF_GRID = '[grid]\nlearning_rate = [0.1]\nschedule = ["constant", "one-cycle"]\n'


def parse(text: str) -> StudySpec:
    return parse_spec(tomllib.loads(text), "study.toml")


@pytest.mark.parametrize(
    ("text", "pruner"),
    [
        ("", "ladder"),
        ("[training]\nwarmup_epochs = 1.0", "ladder"),  # it rises, and stays
        ('[grid]\nschedule = ["constant"]', "ladder"),
        (COSINE + '[grid]\nschedule = ["constant"]', "ladder"),  # which the grid decides
        (COSINE + '[grid]\nschedule = ["steep", "cosine"]', "none"),  # a parameter of somebody's own architecture
        ('[grid]\nschedule = ["steep", "cosine"]', "ladder"),
        (COSINE, "none"),
        (OF_GRID, "none"),
        (COSINE + '[pruner]\nname = "ladder"', "ladder"),
        (COSINE + "[pruner]\nfirst_rung = 4", "ladder"),  # who sets the ladder's own arguments wants the ladder
        (COSINE + '[pruner]\nname = "median"', "median"),
    ],
)
def test_a_schedule_has_no_pruner_unless_it_is_named(text: str, pruner: str) -> None:
    """And what is decided stays, whatever form the specification takes."""
    spec = parse(text)
    assert spec.pruner.name == pruner
    assert parse_spec(spec.model_dump(mode="json"), "stored") == spec
    assert parse_spec(spec.model_dump(mode="json", exclude_unset=True), "typed") == spec


def test_objects_have_the_same_default_as_files() -> None:
    """Whoever builds a specification in a program gets it too."""
    assert StudySpec(training=TrainingSpec(schedule="one-cycle")).pruner.name == "none"


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("", None),
        (COSINE, "no cell is cut"),
        (OF_GRID + '[pruner]\nname = "none"', "no cell is cut"),
        (COSINE + '[pruner]\nname = "ladder"', 'the pruner "ladder" may cut the best cell'),
        (OF_GRID + '[pruner]\nname = "median"', 'the pruner "median" may cut the best cell'),
    ],
)
def test_what_is_said_of_a_pruner_beside_a_schedule(text: str, begin: str | None) -> None:
    """Nothing without a schedule; otherwise that none is cut, or what may be."""
    note = parse(text).pruner_note
    assert note is None if begin is None else note is not None and note.startswith(begin)
