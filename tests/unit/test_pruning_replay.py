"""The replay of recorded curves in benchmarks/: every answer worked out by hand."""

import math
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner, NopPruner

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from replay import JITTER, TRIAL_SECONDS, Curve, Replayed, compare, make_orders, percentile, replay, replay_orders

CURVES = (Curve((0.1, 0.4, 0.3), 1.0), Curve((0.5, 0.6), 1.0), Curve((0.2, 0.2, 0.2, 0.9), 2.0))
FULL_EPOCHS = 9


class Always(BasePruner):
    """Prunes whatever it is asked about, from one epoch on, and remembers what it saw."""

    def __init__(self, n_epochs: int = 1) -> None:
        self.n_epochs = n_epochs
        self.seen: list[tuple[int, list[float]]] = []

    def prune(self, study: Any, trial: Any) -> bool:
        self.seen.append((trial.number, list(trial.intermediate_values.values())))
        return len(trial.intermediate_values) >= self.n_epochs


def test_without_a_pruner_every_cell_is_trained_to_its_end() -> None:
    """All epochs, the best value of all, nothing pruned."""
    full = replay(CURVES, (2, 0, 1), 2, NopPruner(), seed=0)
    assert (full.n_epochs, full.score, full.pruned) == (FULL_EPOCHS, 0.9, {})


@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_a_pruner_that_always_cuts_leaves_one_epoch_a_cell(n_workers: int) -> None:
    """And no winner."""
    cut = replay(CURVES, (0, 1, 2), n_workers, Always(), seed=0)
    assert (cut.n_epochs, cut.score, cut.pruned) == (3, -math.inf, {0: 1, 1: 1, 2: 1})


def test_the_last_epoch_is_reported_but_never_cut() -> None:
    """As in a study, where training ends with it anyway: the cell of two epochs is complete, and wins."""
    pruner = Always(n_epochs=2)
    cut = replay(CURVES, (0, 1, 2), 1, pruner, seed=0)
    assert (cut.n_epochs, cut.score, cut.pruned) == (6, 0.6, {0: 2, 2: 2})
    assert pruner.seen[2:4] == [(1, [0.5]), (1, [0.5, 0.6])]


def test_regret_is_what_the_best_complete_cell_lacks_in_points() -> None:
    """0.9 was cut, 0.6 is the winner; with a constant pruner the same in every order."""
    orders = make_orders(len(CURVES), 5)
    full, cut = (replay_orders(CURVES, orders, 2, make) for make in (NopPruner, lambda: Always(n_epochs=2)))
    audit = compare(full, cut)
    assert audit.regrets == pytest.approx([30.0] * 5)
    assert audit.shares == pytest.approx([6 / FULL_EPOCHS] * 5)
    assert audit.n_lost == 5


def test_a_pruned_cell_never_wins() -> None:
    """0.4 is the best that cell 0 ever had; 0.5 of a cell that was cut after it does not count."""
    curves = (Curve((0.4,), 1.0), Curve((0.5, 0.3), 1.0))
    assert replay(curves, (0, 1), 1, Always(), seed=0).score == 0.4


def test_a_worker_takes_the_next_cell_when_its_own_is_done() -> None:
    """Two workers: 4 epochs of 2 s are as long as 3 + 2 epochs of 1 s and two set-ups, within the jitter."""
    seconds = replay(CURVES, (2, 0, 1), 2, NopPruner(), seed=0).seconds
    assert seconds == pytest.approx(TRIAL_SECONDS + 8.0, abs=JITTER * 8.0)
    alone = replay(CURVES, (2, 0, 1), 1, NopPruner(), seed=0).seconds
    assert alone == pytest.approx(3 * TRIAL_SECONDS + 13.0, abs=JITTER * 13.0)


def test_an_epoch_lasts_the_same_under_every_pruner() -> None:
    """So a ratio of two times compares pruners, not dice."""
    first, second = (replay(CURVES, (0,), 1, pruner, seed=7).seconds for pruner in (NopPruner(), Always(n_epochs=3)))
    assert first == second


def test_orders_are_permutations_and_the_same_at_every_call() -> None:
    """Seeded."""
    orders = make_orders(27, 20)
    assert orders == make_orders(27, 20)
    assert all(sorted(order) == list(range(27)) for order in orders)
    assert len({tuple(order) for order in orders}) == 20


def test_decisions_are_those_of_optuna_itself() -> None:
    """One worker, against report, should_prune and tell of ordinary trials."""
    curves = [Curve(tuple((0.3 + 0.05 * cell) * (1 - 0.7**epoch) for epoch in range(1, 9)), 1.0) for cell in range(9)]
    for order in make_orders(len(curves), 5):
        study = optuna.create_study(direction="maximize", pruner=MedianPruner(2, 1, n_min_trials=1))
        expected = {}
        for cell in order:
            trial = study.ask()
            for epoch, value in enumerate(curves[cell].values):
                trial.report(value, epoch)
                if trial.should_prune() and epoch < 7:
                    expected[cell] = epoch + 1
                    break
            state = optuna.trial.TrialState.PRUNED if cell in expected else optuna.trial.TrialState.COMPLETE
            study.tell(trial, None if cell in expected else curves[cell].score, state=state)
        assert replay(curves, order, 1, MedianPruner(2, 1, n_min_trials=1), seed=0).pruned == expected


@pytest.mark.parametrize(("percent", "expected"), [(5, 1.0), (50, 2.0), (75, 3.0), (95, 4.0), (100, 4.0)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    """The smallest that so many per cent do not exceed."""
    assert percentile([3.0, 1.0, 4.0, 2.0], percent) == expected


def test_nothing_is_lost_by_a_pruner_that_cuts_nothing() -> None:
    """Regret 0, shares 1."""
    full = [Replayed(9, 10.0, 0.9, {})] * 2
    audit = compare(full, full)
    assert (audit.regrets, audit.shares, audit.time_shares, audit.n_lost) == ((0.0, 0.0), (1.0, 1.0), (1.0, 1.0), 0)
