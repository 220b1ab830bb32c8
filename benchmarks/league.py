"""The league of searches over recorded curves: what share of the full grid's epochs each takes, and what that costs.

Knows how each search is replayed and what its result is worth; `pruning.py` reads the files and prints the tables.

regret          the best score of all cells, less that of the winner
honest regret   of several seeds of one grid: `confirm` trains the three best complete cells over other seeds, and takes
                the one with the best mean. So: the best mean of all cells over the other seeds, less that of the best
                of the three. The winner of a full grid has honest regret too, as it is one seed's winner.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from replay import Curve, Replayed, make_orders, replay
from rungs import N_LEADERS, Promotion, climb, cut_by_rank, cut_by_rule, geometric_rungs

from fmnist_optuna.bridge.ladder import LadderPruner
from fmnist_optuna.search.ladder import LadderRule

# Seconds of an epoch of the dense net, batch 32, two processes side by side: 0.31, 0.48, 0.83 at hidden size 64, 128,
# 256 (LOG.md, 2026-11-24) are this many, and as many more a unit. For files that record no seconds.
EPOCH_SECONDS, UNIT_SECONDS = 0.137, 0.00271
CONSTANTS = (1.0, 1.0, 2)  # of the ladder: kappa, margin, first rung; the defaults of a study file
N_VALIDATION = 12_000  # images, of the default study; for files that do not tell


@dataclass(frozen=True)
class Recording:
    """A study that was trained without pruning.

    Args:
        params: Of each cell, as JSON with sorted names; the cells are in their order.
        curves: Of each cell.
    """

    name: str
    params: tuple[str, ...]
    curves: tuple[Curve, ...]
    n_validation: int
    max_epochs: int

    @property
    def n_epochs(self) -> int:
        return sum(len(curve.values) for curve in self.curves)


@dataclass(frozen=True)
class Run:
    """A search over one recording in one order.

    Args:
        curves: As the search sees them.
        n_validation: Images that it believes they were counted over.
    """

    curves: Sequence[Curve]
    n_validation: int
    max_epochs: int
    order: Sequence[int]
    n_workers: int
    seed: int


Search = Callable[[Run], Replayed]


@dataclass(frozen=True)
class Result:
    """What a search came to; shares 0..1 of the full grid in the same order, regrets in points of val_accuracy."""

    share: float
    time_share: float
    n_complete: int
    regret: float
    honest_regret: float | None


def run_full(run: Run) -> Replayed:
    return climb(run.curves, (), lambda *_: (), run.order, run.n_workers, run.seed)


def run_pruner(make: Callable[[Run], BasePruner], run: Run) -> Replayed:
    return replay(run.curves, run.order, run.n_workers, make(run), run.seed)


def run_ladder(kappa: float, margin: float, first_rung: int, run: Run) -> Replayed:
    rule = LadderRule(first_rung, kappa, margin, run.n_validation, run.max_epochs)
    return climb(run.curves, rule.rungs(), cut_by_rule(rule), run.order, run.n_workers, run.seed)


def run_ladder_with_leaders(kappa: float, margin: float, first_rung: int, run: Run) -> Replayed:
    """The ladder, but that the three best of a rung go on whatever they promise: what a study has."""
    rule = LadderRule(first_rung, kappa, margin, run.n_validation, run.max_epochs, keep=N_LEADERS)
    return climb(run.curves, rule.rungs(), cut_by_rule(rule), run.order, run.n_workers, run.seed)


def run_epochs(n_epochs: int, run: Run) -> Replayed:
    """Each cell so many epochs, the best few to their end (Egele et al., "Is one epoch all you need", 2023)."""
    cut = cut_by_rank(lambda _: N_LEADERS)
    return climb(run.curves, (n_epochs,), cut, run.order, run.n_workers, run.seed)


def run_halving(first: int, factor: int, run: Run) -> Replayed:
    """Breadth first: at each rung one of so many goes on, but never fewer than three."""
    cut = cut_by_rank(lambda n_cells: max(N_LEADERS, math.ceil(n_cells / factor)))
    rungs = geometric_rungs(first, factor, run.max_epochs)
    return climb(run.curves, rungs, cut, run.order, run.n_workers, run.seed)


def run_promotion(first: int, factor: int, is_progressive: bool, run: Run) -> Replayed:
    rungs = (*geometric_rungs(first, factor, run.max_epochs), run.max_epochs)
    return Promotion(rungs, factor, is_progressive).run(run.curves, run.order, run.n_workers, run.seed)


def make_ladder_pruner(run: Run) -> BasePruner:
    kappa, margin, first_rung = CONSTANTS
    return LadderPruner(first_rung, kappa, margin, run.n_validation, run.max_epochs)


# Numbers are first rung and factor; of Optuna's pruners their own, as in `pruning.PRUNERS`.
SEARCHES: dict[str, Search] = {
    "full grid": run_full,
    "1 epoch": partial(run_epochs, 1),
    "3 epochs": partial(run_epochs, 3),
    "halving 1 3": partial(run_halving, 1, 3),
    "halving 2 2": partial(run_halving, 2, 2),
    "ASHA 1 3": partial(run_promotion, 1, 3, False),
    "ASHA 2 2": partial(run_promotion, 2, 2, False),
    "PASHA 1 3": partial(run_promotion, 1, 3, True),
    "PASHA 2 2": partial(run_promotion, 2, 2, True),
    "Hyperband 4 30 3": partial(run_pruner, lambda _: HyperbandPruner(4, 30, 3)),
    "median 6 0 1": partial(run_pruner, lambda _: MedianPruner(6, 0)),
    "ladder, one by one": partial(run_pruner, make_ladder_pruner),
    "ladder": partial(run_ladder, *CONSTANTS),
    "ladder, three kept": partial(run_ladder_with_leaders, *CONSTANTS),
}


def add_noise(curves: Sequence[Curve], n_validation: int, seed: str) -> list[Curve]:
    """Curves as if counted over fewer images: each value with the error that so many alone would give it.

    Errors are independent from epoch to epoch and from cell to cell. On one set of images they go together, so that
    this is the harder case. Epochs stay as recorded, although early stopping would see the noise as well.
    """
    dice = random.Random(seed)
    return [
        replace(curve, values=tuple(dice.gauss(v, math.sqrt(v * (1 - v) / n_validation)) for v in curve.values))
        for curve in curves
    ]


def find_seeds(recordings: Sequence[Recording]) -> list[Recording]:
    """The largest group of recordings of one grid; none of a single one."""
    groups: dict[frozenset[str], list[Recording]] = {}
    for recording in recordings:
        groups.setdefault(frozenset(recording.params), []).append(recording)
    largest = max(groups.values(), key=len)
    return largest if len(largest) > 1 else []


def mean_of_others(recording: Recording, seeds: Sequence[Recording]) -> list[float] | None:
    """Of each cell its mean score over the other seeds of the grid; None without any."""
    others = [dict(zip(other.params, other.curves, strict=True)) for other in seeds if other.name != recording.name]
    if not others or recording.name not in {seed.name for seed in seeds}:
        return None
    return [statistics.fmean(other[params].score for other in others) for params in recording.params]


def judge(
    found: Replayed, full: Replayed, seen: Sequence[Curve], scores: Sequence[float], means: Sequence[float] | None
) -> Result:
    """What a search is worth.

    Args:
        seen: The curves that it chose by.
        scores: True ones, by cell.
        means: Over other seeds, by cell.
    """
    complete = [cell for cell in range(len(seen)) if cell not in found.pruned]
    ranked = sorted(complete, key=lambda cell: (-seen[cell].score, cell))
    return Result(
        share=found.n_epochs / full.n_epochs,
        time_share=found.seconds / full.seconds,
        n_complete=len(complete),
        regret=100 * (max(scores) - scores[ranked[0]]),
        honest_regret=None if means is None else 100 * (max(means) - max(means[cell] for cell in ranked[:N_LEADERS])),
    )


def run_search(
    search: Search, recordings: Sequence[Recording], seeds: Sequence[Recording], n_runs: int, n_workers: int,
    n_validation: int | None = None,
) -> list[Result]:  # fmt: skip
    """A search over each recording in so many orders.

    Args:
        seeds: The recordings of one grid, for honest regret.
        n_validation: With noise of so many images, drawn anew for each order; None for the curves as recorded.
    """
    results: list[Result] = []
    for recording in recordings:
        means = mean_of_others(recording, seeds)
        results += _run_recording(search, recording, means, n_runs, n_workers, n_validation)
    return results


def _run_recording(
    search: Search, recording: Recording, means: Sequence[float] | None, n_runs: int, n_workers: int,
    n_validation: int | None,
) -> Iterator[Result]:  # fmt: skip
    scores = [curve.score for curve in recording.curves]
    for seed, order in enumerate(make_orders(len(scores), n_runs)):
        noise_seed = f"{recording.name} {seed}"
        seen = add_noise(recording.curves, n_validation, noise_seed) if n_validation else recording.curves
        run = Run(seen, n_validation or recording.n_validation, recording.max_epochs, order, n_workers, seed)
        yield judge(search(run), run_full(run), seen, scores, means)


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """Means, and the largest regret."""
    honest = [result.honest_regret for result in results if result.honest_regret is not None]
    return {
        "share": statistics.fmean(result.share for result in results),
        "time_share": statistics.fmean(result.time_share for result in results),
        "n_complete": statistics.fmean(result.n_complete for result in results),
        "regret": statistics.fmean(result.regret for result in results),
        "regret_max": max(result.regret for result in results),
        "honest_regret": statistics.fmean(honest) if honest else None,
    }
