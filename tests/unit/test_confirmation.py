"""Means over seeds, their intervals, and the one-standard-error choice."""

import math

import pytest

from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.confirmation import Candidate, Sample, choose


def candidate(trial: int, n_parameters: int, *values: float, n_missing: int = 0) -> Candidate:
    original = Attempt(trial, trial, "cell", {"hidden_size": n_parameters}, State.COMPLETE, values[0])
    return Candidate(original, Sample(values), n_parameters, n_missing, ())


def test_a_sample_has_the_moments_of_a_textbook() -> None:
    """Student's t with 4 degrees of freedom: 2.776445 (Abramowitz and Stegun, table 26.10)."""
    sample = Sample((0.88, 0.89, 0.90, 0.91, 0.92))
    assert sample.mean == pytest.approx(0.90)
    assert sample.sd == pytest.approx(0.0158113883)
    assert sample.standard_error == pytest.approx(0.0158113883 / math.sqrt(5))
    half = 2.776445 * sample.standard_error
    assert sample.interval == pytest.approx((0.90 - half, 0.90 + half), abs=1e-8)


def test_equal_values_have_an_interval_of_no_width() -> None:
    """Their standard deviation is zero, which is no error."""
    assert Sample((0.5, 0.5)).interval == (0.5, 0.5)


@pytest.mark.parametrize(
    ("candidates", "trial"),
    [
        pytest.param([candidate(1, 200, 0.90, 0.92), candidate(2, 100, 0.89, 0.91)], 2, id="smaller, within"),
        pytest.param([candidate(1, 200, 0.90, 0.92), candidate(2, 100, 0.88, 0.90)], 1, id="smaller, beyond"),
        pytest.param([candidate(1, 100, 0.90, 0.92), candidate(2, 200, 0.90, 0.91)], 1, id="larger, within"),
        pytest.param([candidate(1, 100, 0.90, 0.91), candidate(2, 100, 0.90, 0.92)], 2, id="as large: the better mean"),
        pytest.param(
            [candidate(1, 200, 0.93, 0.95, n_missing=1), candidate(2, 300, 0.90, 0.92)], 2, id="a seed is missing"
        ),
    ],
)
def test_the_smallest_within_one_standard_error_is_chosen(candidates: list[Candidate], trial: int) -> None:
    """Of (0.90, 0.92) the standard error is 0.01: a mean of 0.90 is within, 0.89 is not."""
    chosen = choose(candidates)
    assert chosen is not None
    assert chosen.original.number == trial


def test_without_a_cell_of_all_seeds_nothing_is_chosen() -> None:
    """Neither of cells with a missing seed nor of none."""
    assert choose([candidate(1, 10, 0.9, 0.8, n_missing=1)]) is None
    assert choose([]) is None
