"""Means over seeds, their intervals, and the one-standard-error choice."""

import math

import pytest

from fmnist_optuna.export.compared import describe_mean
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.confirmation import draw_confirmation
from fmnist_optuna.results.confirmation import Candidate, Confirmation, choose
from fmnist_optuna.results.seeds import Sample, figures_of_repeats
from fmnist_optuna.search.metric import VAL_ACCURACY, VAL_LOSS, Metric
from fmnist_optuna.wording import format_interval

WIDTH = 12.706205 * 0.01  # Student's t with 1 degree of freedom, times the standard error of two values 0.02 apart


def candidate(trial: int, n_parameters: int, *values: float, n_missing: int = 0) -> Candidate:
    original = Attempt(trial, trial, "cell", {"hidden_size": n_parameters}, State.COMPLETE, values[0])
    return Candidate(original, Sample(values, VAL_ACCURACY), n_parameters, n_missing, ())


def test_a_sample_has_the_moments_of_a_textbook() -> None:
    """Student's t with 4 degrees of freedom: 2.776445 (Abramowitz and Stegun, table 26.10)."""
    sample = Sample((0.88, 0.89, 0.90, 0.91, 0.92), VAL_ACCURACY)
    assert sample.mean == pytest.approx(0.90)
    assert sample.sd == pytest.approx(0.0158113883)
    assert sample.standard_error == pytest.approx(0.0158113883 / math.sqrt(5))
    half = 2.776445 * sample.standard_error
    assert sample.interval == pytest.approx((0.90 - half, 0.90 + half), abs=1e-8)


def test_equal_values_have_an_interval_of_no_width() -> None:
    """Their standard deviation is zero, which is no error."""
    assert Sample((0.5, 0.5), VAL_ACCURACY).interval == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "interval"),
    [((0.98, 1.0), (0.99 - WIDTH, 1.0)), ((0.0, 0.02), (0.0, 0.01 + WIDTH)), ((0.2, 0.9), (0.0, 1.0))],
)
def test_an_interval_ends_where_accuracies_do(values: tuple[float, ...], interval: tuple[float, float]) -> None:
    """No mean of accuracies is below 0 or beyond 100 %: the card, the figure and the JSON end there alike."""
    sample = Sample(values, VAL_ACCURACY)
    assert sample.interval == pytest.approx(interval, abs=1e-6)
    assert f"95 % interval {format_interval(interval)}, " in describe_mean(sample)
    assert (figures_of_repeats(sample) or {})["interval"] == list(sample.interval)
    chosen = candidate(0, 1, *values)
    error = draw_confirmation(Confirmation((chosen,), chosen)).data[1].error_x
    shown = [100 * sample.mean - error.arrayminus[0], 100 * sample.mean + error.array[0]]
    assert shown == pytest.approx([100 * end for end in interval], abs=1e-4)


@pytest.mark.parametrize("metric", [VAL_LOSS, Metric("val_accuracy_in_percent", "maximize")])
def test_an_interval_of_unknown_bounds_is_whole(metric: Metric) -> None:
    """A loss may be negative, and what a model brings may be anything whatever its name says."""
    assert Sample((0.98, 1.0), metric).interval == pytest.approx((0.99 - WIDTH, 0.99 + WIDTH), abs=1e-6)
    assert Sample((0.0, 0.02), metric).interval == pytest.approx((0.01 - WIDTH, 0.01 + WIDTH), abs=1e-6)


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
