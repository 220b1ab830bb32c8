"""The numbers of an evaluation, from recorded predictions."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.results.evaluation import MOST_IN_MATRIX, Confusion, summarize, wilson_interval
from fmnist_optuna.results.seeds import OpenedSeeds
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric


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


@pytest.mark.parametrize("n_classes", [MOST_IN_MATRIX, MOST_IN_MATRIX + 1])
def test_of_many_classes_the_worst_confusions_are_listed(n_classes: int) -> None:
    """The commonest first, with their share of the true class; a matrix is counted of few classes alone."""
    names = tuple(f"c{number}" for number in range(n_classes))
    labels = np.repeat(np.arange(n_classes), 4)
    answers = labels.copy()
    answers[:3], answers[4:5] = 7, 0  # three of class 0 are taken for 7, one of class 1 for 0
    opening = Opening(1, "", "winner", 0.9, 0.0, Scores(np.eye(n_classes, dtype=np.float32)[answers], labels))
    summary = summarize(opening, names)
    assert summary.worst == (Confusion("c0", "c7", 3, 0.75), Confusion("c1", "c0", 1, 0.25))
    assert [result.label for result in summary.weakest[:3]] == ["c0", "c1", "c2"]
    assert len(summary.shown_classes) == (50 if n_classes == 50 else 20)
    assert (summary.has_matrix, len(summary.confusion)) == ((True, 50) if n_classes == 50 else (False, 0))
    assert (summary.classes[0].recall, summary.classes[7].precision) == (0.25, 4 / 7)
    if summary.has_matrix:
        assert (summary.confusion[0][7], summary.confusion[0][0], summary.confusion[1][0]) == (3, 1, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_none(value: float) -> None:
    """Of the test images as of a seed among others: answers in JSON have null then, and tables a dash."""
    scores = Scores(np.eye(2, dtype=np.float32), np.array([0, 1]), objective=value)
    metric = Metric("val_cost", "minimize")
    opening = Opening(1, "", "winner", 1.0, 0.0, scores)
    evaluation = summarize(opening, ("a", "b"))
    assert evaluation.value_of(metric) is None
    assert metric.format(evaluation.value_of(metric)) == "-"
    finite = replace(opening, scores=replace(scores, objective=0.5))
    seeds = OpenedSeeds(metric=metric)
    assert seeds.with_openings([finite, opening]).figures_of_test()["test_objective_mean"] is None
    assert seeds.with_openings([finite, finite]).figures_of_test()["test_objective_mean"] == 0.5
    assert seeds.with_openings([finite, None]).test is None


def test_both_metrics_have_their_keys() -> None:
    """Of one set of weights and of the mean over seeds; null where one seed was opened without mirror images."""
    answers, labels = np.eye(2, dtype=np.float32), np.array([0, 1])
    metric = Metric("val_cost", "minimize")
    both = Opening(1, "", "winner", 1.0, 0.0, Scores(answers, labels, answers[::-1], 0.5, 0.25))
    alone = replace(both, scores=Scores(answers, labels, None, 0.5))
    evaluation = summarize(both, ("a", "b"))
    assert (evaluation.value_of(metric), evaluation.flip_value_of(metric)) == (0.5, 0.25)
    assert evaluation.flip_value_of(VAL_ACCURACY) == evaluation.flip_accuracy == 0.5
    seeds = OpenedSeeds(metric=metric)
    figures = seeds.with_openings([both, both]).figures_of_test()
    assert (figures["test_objective_mean"], figures["test_objective_mean_with_flip"]) == (0.5, 0.25)
    assert figures["test_objective_interval_with_flip"] == [0.25, 0.25]
    figures = seeds.with_openings([both, alone]).figures_of_test()
    assert (figures["test_objective_mean"], figures["test_objective_mean_with_flip"]) == (0.5, None)
