"""Specifications beside each other: what is stored reads back the same, and what differs is named."""

import json
from typing import Any

import pytest

from fmnist_optuna.spec.differences import differences
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"pruner": {"name": "none"}},
        {"pruner": {"name": "median", "n_min_trials": 2}},
        {"pruner": {"name": "ladder", "kappa": 2, "margin": 0.5}},
        {"model": {"architecture": "a.b:c", "depth": 3}, "grid": {"kind": ["x", "y"], "flag": [True, False]}},
        {"grid": {"dropout_rate": [0.0], "hidden_size": [1]}},
    ],
)
def test_a_stored_specification_reads_back_the_same(content: dict[str, Any]) -> None:
    """What the study keeps as JSON is the specification, to the type of every value and the digest."""
    spec = parse_spec(content, "test")
    back = parse_spec(json.loads(spec.model_dump_json()), "test")
    assert back == spec
    assert back.digest == spec.digest
    assert repr(back.grid) == repr(spec.grid)


@pytest.mark.parametrize(
    ("content", "is_other"),
    [
        ({"name": "b"}, True),
        ({"training": {"seed": 1}}, True),
        ({"confirm": {"top": 2}}, True),
        ({"training": {"seed": 0}}, False),
    ],
)
def test_the_digest_tells_specifications_apart(content: dict[str, Any], is_other: bool) -> None:
    """A value written out that is the default is no difference; any other is."""
    assert (parse_spec(content, "test").digest != StudySpec().digest) is is_other


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"training": {"seed": 1}}, ["training.seed: the study has 0, this run 1"]),
        ({"data": {"source": "synthetic"}}, ['data.source: the study has "auto", this run "synthetic"']),
        ({"model": {"depth": 2}}, ["model.depth: the study has nothing, this run 2"]),
        ({"pruner": {"keep": 5}}, ["pruner.keep: the study has 3, this run 5"]),
        ({"name": "b", "confirm": {"top": 1}, "grid": {"hidden_size": [1]}}, []),
    ],
)
def test_differences_name_every_key_that_counts(content: dict[str, Any], expected: list[str]) -> None:
    """Name, grid and confirmation may differ between runs of one study; the rest may not."""
    assert differences(StudySpec().fixed_part(), parse_spec(content, "test").fixed_part()) == expected


@pytest.mark.parametrize(("key", "value"), [("keep_weights", "last"), ("threads", 2)])
def test_a_later_key_is_told_where_it_was_chosen(key: str, value: str | int) -> None:
    """A study without it is what it was before there was a choice, to its digest and its trainings."""
    plain, chosen = StudySpec(), parse_spec({"training": {key: value}}, "test")
    assert key not in plain.model_dump_json()
    assert differences(plain.trained_part(), chosen.trained_part()) == [
        f"training.{key}: the study has nothing, this run {json.dumps(value)}"
    ]


def test_another_pruner_differs_in_its_arguments() -> None:
    """Those that it has are told, and those of the study that it has not."""
    median, ladder = (parse_spec({"pruner": {"name": name}}, "test").fixed_part() for name in ("median", "ladder"))
    lines = differences(median, ladder)
    assert len(lines) == 9
    assert "pruner.kappa: the study has nothing, this run 1" in lines
    assert "pruner.n_min_trials: the study has 1, this run nothing" in lines
    assert 'pruner.name: the study has "median", this run "ladder"' in lines
