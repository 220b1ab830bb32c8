"""When a trial that was trained once more counts as the same."""

import math

import pytest

from fmnist_optuna.results.reproduction import Reproduction
from fmnist_optuna.search.metric import Epoch


def repeated(recorded: Epoch, again: Epoch) -> Reproduction:
    """A trial of two epochs, of which the second may differ."""
    first = Epoch(0, 0.5, 0.5, 0.5, 0.5, 1.0)
    return Reproduction(0, {}, 1, (first, recorded), (first, again), None, None, ())


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_was_not_finite_is_the_same_again(number: float) -> None:
    """Tables have none for it, or NaN where it is read: the loss, and a metric of the user's own."""
    again = Epoch(1, number, 0.5, number, 0.5, 1.0, objective=number)
    assert repeated(Epoch(1, math.nan, 0.5, math.nan, 0.5, 1.0, objective=None), again).matches


@pytest.mark.parametrize("number", [0.25, 0.0])
def test_a_finite_number_is_another_than_none(number: float) -> None:
    """The epoch in which they differ is named."""
    found = repeated(Epoch(1, math.nan, 0.5, 0.5, 0.5, 1.0), Epoch(1, number, 0.5, 0.5, 0.5, 1.0))
    assert (found.first_difference, found.matches) == (1, False)
