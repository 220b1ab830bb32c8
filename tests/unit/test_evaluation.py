"""The numbers of an evaluation, from recorded predictions."""

import math

import numpy as np
import pytest

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.results.evaluation import summarize, wilson_interval


@pytest.mark.parametrize(
    ("n_hits", "n_items", "interval"),
    [
        (8, 10, (0.4901625, 0.9433178)),
        (0, 10, (0.0, 0.2775328)),
        (10, 10, (0.7224672, 1.0)),
        (8_798, 10_000, (0.8732800, 0.8860283)),
        (1, 1, (0.2065493, 1.0)),
        (0, 7, (0.0, 0.3543304)),
    ],
)
def test_wilson_interval(n_hits: int, n_items: int, interval: tuple[float, float]) -> None:
    """The interval is Wilson's, to seven digits, and stays within 0..1."""
    found = wilson_interval(n_hits, n_items)
    assert found == pytest.approx(interval, abs=5e-8)
    assert 0.0 <= found[0] <= found[1] <= 1.0


def test_summary_of_a_known_opening() -> None:
    """Recall is the share of a class that was found, precision the share of its answers that are right; NaN of none."""
    labels = np.array([0, 0, 0, 1, 2], np.uint8)
    answers = [0, 0, 1, 1, 1]
    opening = Opening(1, "", "winner", 3 / 5, 0.0, Scores(np.eye(10, dtype=np.float32)[answers], labels))
    summary = summarize(opening, FASHION_MNIST.class_names)
    assert (summary.accuracy, summary.n_images, summary.interval) == (3 / 5, 5, wilson_interval(3, 5))
    first, second, third, fourth = summary.classes[:4]
    assert (first.n_images, first.recall, first.precision) == (3, 2 / 3, 1.0)
    assert (second.n_images, second.recall, second.precision) == (1, 1.0, 1 / 3)
    assert (third.n_images, third.recall, math.isnan(third.precision)) == (1, 0.0, True)
    assert (fourth.n_images, math.isnan(fourth.recall), math.isnan(fourth.precision)) == (0, True, True)
