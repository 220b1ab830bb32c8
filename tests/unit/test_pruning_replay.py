"""The replay of recorded curves in benchmarks/: every answer worked out by hand."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner, NopPruner

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from league import Recording, Run, add_noise, find_seeds, judge, mean_of_others, run_full, run_search
from pruning import load_recording
from replay import JITTER, TRIAL_SECONDS, Curve, Replayed, compare, make_orders, percentile, replay, replay_orders
from rungs import (
    Floor,
    Promotion,
    climb,
    cut_by_rank,
    cut_by_rule,
    estimate_noise,
    geometric_rungs,
)

from fmnist_optuna.search.ladder import LadderRule

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


# With kappa 1 and no margin. At epoch 2 the leader has 0.80: 0.70 + 0.20 and 0.75 + 0.05 go on, 0.70 + 0.05 is cut, and
# the last cell is finished. At epoch 4 the leader has 0.90: 0.85 + 0.15 goes on, and 0.76 + 0.01 is cut.
CLIMBERS = (
    Curve((0.70, 0.80, 0.85, 0.90, 0.91, 0.92), 1.0),
    Curve((0.50, 0.70, 0.80, 0.85, 0.90, 0.95), 1.0),
    Curve((0.70, 0.75, 0.76, 0.76, 0.76, 0.76), 1.0),
    Curve((0.65, 0.70, 0.90, 0.99, 0.99, 0.99), 1.0),
    Curve((0.30, 0.20), 1.0),
)
LADDER = LadderRule(first_rung=2, kappa=1.0, margin=0.0, n_validation=None, max_epochs=6)


def test_the_ladder_cuts_whole_rungs() -> None:
    """Whoever arrives first: cell 3 is cut at epoch 2 although it would have won, cell 2 at epoch 4."""
    for order in ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0)):
        for n_workers in (1, 2, 9):
            found = climb(CLIMBERS, LADDER.rungs(), cut_by_rule(LADDER), order, n_workers, seed=0)
            assert (found.n_epochs, found.score, found.pruned) == (6 + 6 + 4 + 2 + 2, 0.95, {2: 4, 3: 2})


def test_three_leaders_are_spared_if_asked() -> None:
    """At epoch 2 cell 3 is among them, with as much as cell 1, and wins in the end; at epoch 4 cell 2 is the fourth."""
    rule = replace(LADDER, keep=3)
    found = climb(CLIMBERS, rule.rungs(), cut_by_rule(rule), range(5), 2, seed=0)
    assert (found.pruned, found.score) == ({2: 4}, 0.99)


def test_breadth_first_without_rungs_is_the_full_grid() -> None:
    """To the second, as the other replay has it."""
    for n_workers in (1, 2, 4):
        climbed = climb(CURVES, (), lambda *_: (), (2, 0, 1), n_workers, seed=3)
        assert climbed.seconds == pytest.approx(replay(CURVES, (2, 0, 1), n_workers, NopPruner(), seed=3).seconds)
        assert (climbed.n_epochs, climbed.score, climbed.pruned) == (FULL_EPOCHS, 0.9, {})


def test_a_rung_waits_for_its_last_cell() -> None:
    """Two workers, two cells of one and three seconds an epoch, one epoch to the rung and one more, set-ups twice."""
    curves = (Curve((0.1, 0.2), 1.0), Curve((0.1, 0.2), 3.0))
    seconds = climb(curves, (1,), lambda *_: (), (0, 1), 2, seed=0).seconds
    assert seconds == pytest.approx(2 * (TRIAL_SECONDS + 3.0), abs=6 * JITTER)


def test_a_finished_cell_takes_no_time_at_later_rungs() -> None:
    """Nor epochs."""
    curve = (Curve((0.1, 0.2), 1.0),)
    once, often = (climb(curve, rungs, lambda *_: (), (0,), 1, seed=0) for rungs in ((), (2, 4, 8)))
    assert once == often


@pytest.mark.parametrize(
    ("first", "factor", "max_epochs", "expected"), [(1, 3, 30, (1, 3, 9, 27)), (2, 2, 16, (2, 4, 8)), (4, 2, 4, ())]
)
def test_geometric_rungs_lie_below_the_end(first: int, factor: int, max_epochs: int, expected: tuple[int, ...]) -> None:
    """As those of the ladder do."""
    assert geometric_rungs(first, factor, max_epochs) == expected


def test_by_rank_the_best_of_a_rung_go_on() -> None:
    """Two of five: cells 0 and 2 have most at epoch 2; the finished cell stays what it is."""
    found = climb(CLIMBERS, (2,), cut_by_rank(lambda _: 2), range(5), 2, seed=0)
    assert found.pruned == {1: 2, 3: 2}
    assert found.score == 0.92


LEVELS = tuple(Curve((value, value, value, value), 1.0) for value in (0.4, 0.3, 0.2, 0.1))
CROSSING = tuple(Curve((value, 1 - value, 1 - value, 1 - value), 1.0) for value in (0.4, 0.3, 0.2, 0.1))


def test_asha_promotes_one_of_two() -> None:
    """0 and 1 of four come to the second rung and 0 to the end; after that the three best go there too."""
    found = Promotion((1, 2, 4), 2).run(LEVELS, range(4), 1, seed=0)
    assert (found.n_epochs, found.pruned) == (4 + 4 + 4 + 1, {3: 1})


def test_pasha_asks_whether_the_order_is_that_below() -> None:
    """0.4 and 0.3 that change places are no order; that keep them are one."""
    pasha = Promotion((1, 2, 4), 2, is_progressive=True)
    assert not pasha._is_stable(floor_of(CROSSING, 2), {0: 0.4, 1: 0.3}, {0: 0.6, 1: 0.7})
    assert pasha._is_stable(floor_of(LEVELS, 2), {0: 0.4, 1: 0.3}, {0: 0.4, 1: 0.3})


def test_pasha_opens_a_rung_when_the_order_changes() -> None:
    """Four of sixteen cells are then brought to the third rung; while it is closed, none are."""
    n_epochs = {}
    for name, curves in (("same order", LEVELS), ("other order", CROSSING)):
        longer = [Curve((*curve.values, *curve.values[-1:] * 4), 1.0) for curve in curves] * 4
        pasha = Promotion((1, 2, 4, 8), 2, is_progressive=True)
        n_epochs[name] = pasha.run(longer, range(16), 1, seed=0).n_epochs
    # Three to their end, then those that stay behind at the third, the second and the first rung.
    assert n_epochs == {"same order": 3 * 8 + 0 * 4 + 5 * 2 + 8, "other order": 3 * 8 + 1 * 4 + 4 * 2 + 8}


def floor_of(curves: tuple[Curve, ...], n_epochs: int) -> Floor:
    floor = Floor(curves, seed=0)
    for cell in range(len(curves)):
        floor.train(cell, n_epochs)
    return floor


def test_noise_is_how_far_cells_lie_apart_that_cross_twice() -> None:
    """The first two do and end 0.1 apart; the third crosses nobody."""
    curves = [(0.5, 0.6, 0.5, 0.6), (0.6, 0.5, 0.6, 0.5), (0.1, 0.1, 0.1, 0.1)]
    assert estimate_noise(curves) == pytest.approx(0.1)
    assert estimate_noise(curves[1:]) == 0.0


def make_recording(name: str, scores: tuple[float, ...]) -> Recording:
    params = tuple(json.dumps({"cell": cell}) for cell in range(len(scores)))
    return Recording(name, params, tuple(Curve((0.1, score), 1.0) for score in scores), 100, 2)


SEEDS = [
    make_recording("s0", (0.9, 0.8, 0.7, 0.6)),
    make_recording("s1", (0.5, 0.6, 0.7, 0.9)),
    make_recording("s2", (0.5, 0.6, 0.8, 0.9)),
]


def test_honest_regret_is_over_the_other_seeds() -> None:
    """The leaders of s0 have 0.5, 0.6, 0.75 there and the cell that came last has 0.9; with one cut 0.6 is the best."""
    means = mean_of_others(SEEDS[0], SEEDS)
    assert means == pytest.approx([0.5, 0.6, 0.75, 0.9])
    curves, scores = SEEDS[0].curves, [curve.score for curve in SEEDS[0].curves]
    full = replay(curves, range(4), 1, NopPruner(), seed=0)
    result = judge(full, full, curves, scores, means)
    assert (result.share, result.regret, result.n_complete) == (1.0, 0.0, 4)
    assert result.honest_regret == pytest.approx(15.0)
    cut = Replayed(6, 10.0, 0.8, {0: 1, 2: 1})
    result = judge(cut, full, curves, scores, means)
    assert (result.share, result.n_complete) == (6 / 8, 2)
    assert result.regret == pytest.approx(10.0)
    assert result.honest_regret == pytest.approx(0.0)


def test_only_seeds_of_one_grid_have_honest_regret() -> None:
    """Another grid, or one seed alone, has none."""
    other = make_recording("other", (0.1, 0.2))
    assert find_seeds([other, *SEEDS]) == SEEDS
    assert find_seeds([other, SEEDS[0]]) == []
    assert mean_of_others(other, SEEDS) is None
    assert mean_of_others(SEEDS[0], []) is None


def test_noise_is_that_of_so_many_images() -> None:
    """Drawn again from the same seed, the same; on average nothing, with the standard error of a share."""
    curve = Curve((0.9,) * 4000, 1.0)
    (noisy,) = add_noise([curve], 900, "s0 0")
    assert add_noise([curve], 900, "s0 0") == [noisy]
    errors = [value - 0.9 for value in noisy.values]
    assert sum(errors) / 4000 == pytest.approx(0.0, abs=0.0005)
    assert math.sqrt(sum(error**2 for error in errors) / 4000) == pytest.approx(0.01, rel=0.05)


def test_a_search_is_run_in_each_order_of_each_recording() -> None:
    """Three recordings, two orders; the search sees the number of images that the noise stands for."""
    seen: list[Run] = []

    def search(run: Run) -> Replayed:
        seen.append(run)
        return run_full(run)

    assert [result.share for result in run_search(search, SEEDS, SEEDS, 2, 1, n_validation=50)] == [1.0] * 6
    assert {run.n_validation for run in seen} == {50}
    assert len({tuple(run.curves) for run in seen}) == 6  # each with noise of its own


def test_a_file_is_what_was_recorded_or_a_list_of_cells(tmp_path: Path) -> None:
    """A list tells neither the number of images nor seconds: those are the default study's."""
    cells = [{"params": {"hidden_size": 100}, "val_accuracy": [0.1, 0.2, 0.3]}]
    (tmp_path / "bare.json").write_text(json.dumps(cells))
    bare = load_recording(tmp_path / "bare.json")
    assert (bare.name, bare.n_validation, bare.max_epochs, bare.n_epochs) == ("bare", 12_000, 3, 3)
    assert bare.curves[0].epoch_seconds == pytest.approx(0.408)
    spec = {"data": {"n_validation": 500}, "training": {"max_epochs": 12}}
    (tmp_path / "full.json").write_text(json.dumps({"spec": spec, "cells": [{**cells[0], "seconds": [2.0, 1.0, 1.5]}]}))
    full = load_recording(tmp_path / "full.json")
    assert (full.n_validation, full.max_epochs, full.curves[0].epoch_seconds) == (500, 12, 1.0)
