"""Replay of searches that park cells at rungs, event by event, without any training.

Knows no pruner of Optuna: `replay` does. A worker trains a cell from one rung to the next, parks it, and takes another
one. Taking a parked cell up again costs as much as beginning one. Owns no curve and prints nothing.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from replay import JITTER, TRIAL_SECONDS, Curve, Replayed, percentile

from fmnist_optuna.search.ladder import LadderRule, stand_at

N_LEADERS = 3  # that a search must train to their end, as `confirm` takes so many; the default of a study file
NOISE_PERCENT = 90  # of the distances of cells that cross twice, as PASHA takes it

# From a rung, the values of the cells that stand there and those of finished ones, the cells that go no further.
Cut = Callable[[int, Mapping[int, Sequence[float]], Mapping[int, Sequence[float]]], Iterable[int]]


@dataclass
class Floor:
    """Cells in training: how far each one is, and what its epochs last.

    Args:
        curves: By cell.
        seed: Of the jitter; with the same seed a cell's epochs last the same in every replay.
    """

    curves: Sequence[Curve]
    seed: int
    done: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.done = [0] * len(self.curves)
        self._jitters = [random.Random(self.seed * len(self.curves) + cell) for cell in range(len(self.curves))]

    def train(self, cell: int, n_epochs: int) -> float:
        """Seconds until a cell has so many epochs or is finished; 0 if it has them."""
        end = min(n_epochs, len(self.curves[cell].values))
        if self.done[cell] >= end:
            return 0.0
        epochs = [self._jitters[cell].uniform(1 - JITTER, 1 + JITTER) for _ in range(self.done[cell], end)]
        self.done[cell] = end
        return TRIAL_SECONDS + self.curves[cell].epoch_seconds * sum(epochs)

    def is_finished(self, cell: int) -> bool:
        return self.done[cell] == len(self.curves[cell].values)

    def values(self, cell: int) -> Sequence[float]:
        return self.curves[cell].values[: self.done[cell]]

    def best(self, cell: int) -> float:
        return max(self.values(cell))

    def end(self, seconds: float) -> Replayed:
        finished = [cell for cell in range(len(self.curves)) if self.is_finished(cell)]
        pruned = {cell: self.done[cell] for cell in range(len(self.curves)) if not self.is_finished(cell)}
        score = max((self.curves[cell].score for cell in finished), default=-math.inf)
        return Replayed(sum(self.done), seconds, score, pruned)


def climb(
    curves: Sequence[Curve], rungs: Sequence[int], cut: Cut, order: Sequence[int], n_workers: int, seed: int
) -> Replayed:
    """Breadth first: all cells to a rung, then the cut, then those that go on to the next, at last to their end.

    Args:
        rungs: Epochs, ascending.
        cut: Is asked once a rung, when every cell has come there.
        order: Indices of the curves, in which workers take cells.
    """
    floor = Floor(curves, seed)
    alive, now = list(order), 0.0
    for rung in rungs:
        now = _train_all(floor, alive, rung, n_workers, now)
        standing = {cell: floor.values(cell) for cell in alive if not floor.is_finished(cell)}
        finished = {cell: floor.values(cell) for cell in alive if floor.is_finished(cell)}
        out = set(cut(rung, standing, finished))
        alive = [cell for cell in alive if cell not in out]
    longest = max(len(curve.values) for curve in curves)
    return floor.end(_train_all(floor, alive, longest, n_workers, now))


def _train_all(floor: Floor, cells: Sequence[int], n_epochs: int, n_workers: int, now: float) -> float:
    """When the last worker is done: each takes the next cell as soon as it is free."""
    free = [now] * n_workers
    for cell in cells:
        heapq.heapreplace(free, free[0] + floor.train(cell, n_epochs))
    return max(free)


def cut_by_rule(rule: LadderRule) -> Cut:
    """The ladder."""

    def cut(rung: int, standing: Mapping[int, Sequence[float]], finished: Mapping[int, Sequence[float]]) -> list[int]:
        standings = {str(cell): stand_at(rung, values) for cell, values in standing.items()}
        decision = rule.decide(standings, {str(cell): max(values) for cell, values in finished.items()})
        return [int(cell) for cell in decision.cut]

    return cut


def cut_by_rank(n_kept: Callable[[int], int]) -> Cut:
    """The best of a rung go on; finished cells take places and are not cut.

    Args:
        n_kept: How many, of how many at the rung.
    """

    def cut(rung: int, standing: Mapping[int, Sequence[float]], finished: Mapping[int, Sequence[float]]) -> set[int]:
        ranked = sorted({**standing, **finished}.items(), key=lambda item: (-max(item[1]), item[0]))
        kept = {cell for cell, _ in ranked[: n_kept(len(ranked))]}
        return set(standing) - kept

    return cut


def geometric_rungs(first: int, factor: int, max_epochs: int) -> tuple[int, ...]:
    return tuple(first * factor**level for level in range(64) if first * factor**level < max_epochs)


@dataclass
class Promotion:
    """ASHA: a free worker promotes a cell that is among the best of its rung, or else begins a new one.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020. When nothing is left to promote, the three
    best of the highest rungs are trained to their end.

    Args:
        rungs: Epochs, ascending; the last one is the end of a training.
        factor: One of so many is promoted.
        is_progressive: PASHA (Bohdal et al., 2023): rungs are opened one by one, when the order of the cells on the
            highest one is not that on the one below it, up to the noise.
    """

    rungs: Sequence[int]
    factor: int
    is_progressive: bool = False

    def run(self, curves: Sequence[Curve], order: Sequence[int], n_workers: int, seed: int) -> Replayed:
        floor, waiting = Floor(curves, seed), list(reversed(order))
        n_open = 2 if self.is_progressive else len(self.rungs)
        at: list[dict[int, float]] = [{} for _ in self.rungs]  # value by cell that came to the rung
        promoted: list[set[int]] = [set() for _ in self.rungs]
        free, running, now = n_workers, list[tuple[float, int, int]](), 0.0  # running: end, cell, rung
        while True:
            while free and (job := self._next_job(at[:n_open], promoted, waiting)) is not None:
                cell, level = job
                heapq.heappush(running, (now + floor.train(cell, self.rungs[level]), cell, level))
                free -= 1
            if not running:
                break
            now, cell, level = heapq.heappop(running)
            at[level][cell], free = floor.best(cell), free + 1
            if level == n_open - 1 < len(self.rungs) - 1 and not self._is_stable(floor, at[level - 1], at[level]):
                n_open += 1
        ranked = sorted(range(len(curves)), key=lambda cell: (-floor.done[cell], -floor.best(cell), cell))
        return floor.end(_train_all(floor, ranked[:N_LEADERS], self.rungs[-1], n_workers, now))

    def _next_job(
        self, at: Sequence[Mapping[int, float]], promoted: list[set[int]], waiting: list[int]
    ) -> tuple[int, int] | None:
        """The cell that a free worker takes and the index of the rung that it brings it to."""
        for level in reversed(range(len(at) - 1)):
            ranked = sorted(at[level], key=lambda cell: (-at[level][cell], cell))
            for cell in ranked[: len(ranked) // self.factor]:
                if cell not in promoted[level]:
                    promoted[level].add(cell)
                    return cell, level + 1
        return (waiting.pop(), 0) if waiting else None

    def _is_stable(self, floor: Floor, below: Mapping[int, float], top: Mapping[int, float]) -> bool:
        """Whether each cell of the top rung has about the value below that belongs to its place."""
        noise = estimate_noise([floor.values(cell) for cell in top])
        places = sorted((below[cell] for cell in top), reverse=True)
        ranked = sorted(top, key=lambda cell: (-top[cell], cell))
        return all(abs(below[cell] - place) <= noise for cell, place in zip(ranked, places, strict=True))


def estimate_noise(curves: Sequence[Sequence[float]]) -> float:
    """How far cells lie apart that cross twice, 90th percentile; 0 if none do."""
    distances = []
    for index, first in enumerate(curves):
        for second in curves[:index]:
            signs = [one > two for one, two in zip(first, second, strict=False) if one != two]
            if sum(before != after for before, after in itertools.pairwise(signs)) >= 2:
                last = min(len(first), len(second)) - 1
                distances.append(abs(first[last] - second[last]))
    return percentile(distances, NOISE_PERCENT) if distances else 0.0
