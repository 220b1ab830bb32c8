"""Replay of recorded validation curves: a study with a pruner, simulated event by event, without any training.

Knows Optuna's pruners and in-memory storage. Each worker takes the next cell of an order, an epoch lasts as long as
recorded, and at its end the pruner is asked as `work.trial` asks it. Owns no curve and prints nothing.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

TRIAL_SECONDS = 0.65  # of a worker a trial outside its epochs; LOG.md, 2026-11-23
JITTER = 0.05  # an epoch lasts up to so much longer or shorter than the typical one of its kind


@dataclass(frozen=True)
class Curve:
    """One cell trained to its end, early stopping included.

    Args:
        values: val_accuracy at the end of each epoch, 0..1.
        epoch_seconds: Of a typical epoch.
    """

    values: tuple[float, ...]
    epoch_seconds: float

    @property
    def score(self) -> float:
        """val_accuracy of the weights that are kept."""
        return max(self.values)


@dataclass(frozen=True)
class Replayed:
    """What came of one order of arrival.

    Args:
        n_epochs: Trained by all cells together.
        seconds: Until the last worker was done.
        score: Of the best COMPLETE trial, 0..1; -inf if all were pruned.
        pruned: Epochs that each pruned cell had, by its index.
    """

    n_epochs: int
    seconds: float
    score: float
    pruned: dict[int, int]


def make_orders(n_cells: int, n_orders: int) -> list[list[int]]:
    """Random orders of arrival, the same at every call."""
    return [random.Random(seed).sample(range(n_cells), n_cells) for seed in range(n_orders)]


def replay(curves: Sequence[Curve], order: Sequence[int], n_workers: int, pruner: BasePruner, seed: int) -> Replayed:
    """Run the cells through a pruner.

    Args:
        order: Indices of the curves, in the order of claims.
        seed: Of the jitter; with the same seed a cell's epochs last the same under every pruner.
    """
    study = _Study(pruner)
    waiting = iter(order)
    running: list[tuple[float, int, Iterator[float]]] = []  # end of the epoch, tie-breaker, the rest of the trial
    pruned: dict[int, int] = {}
    n_epochs, tie = 0, itertools.count()

    def train(cell: int) -> Iterator[float]:
        """Yield the seconds until each epoch's end; the trial is reported to when it goes on."""
        nonlocal n_epochs
        curve, jitter, begin = curves[cell], random.Random(seed * len(curves) + cell), TRIAL_SECONDS
        trial_id = study.begin()
        for epoch, value in enumerate(curve.values):
            yield begin + curve.epoch_seconds * jitter.uniform(1 - JITTER, 1 + JITTER)
            begin, n_epochs = 0.0, n_epochs + 1
            must_prune = study.report(trial_id, epoch, value)
            if must_prune and epoch + 1 < len(curve.values):  # `can_prune` of the last epoch is False
                pruned[cell] = epoch + 1
                study.end(trial_id, TrialState.PRUNED, value)
                return
        study.end(trial_id, TrialState.COMPLETE, curve.score)

    def take_next(now: float) -> None:
        for cell in itertools.islice(waiting, 1):
            trial = train(cell)
            heapq.heappush(running, (now + next(trial), next(tie), trial))

    for _ in range(n_workers):
        take_next(0.0)
    now = 0.0
    while running:
        now, _, trial = heapq.heappop(running)
        if (seconds := next(trial, None)) is not None:
            heapq.heappush(running, (now + seconds, next(tie), trial))
        else:
            take_next(now)
    scores = [curves[cell].score for cell in order if cell not in pruned]
    return Replayed(n_epochs, now, max(scores, default=-math.inf), pruned)


class _Study:
    """A real in-memory study, driven through its storage: `Trial` would copy every trial at every epoch.

    Args:
        pruner: Is asked at every report.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self._pruner = pruner
        self._study = optuna.create_study(
            study_name="replay", direction="maximize", sampler=RandomSampler(seed=0), pruner=pruner
        )
        self._storage = self._study._storage

    def begin(self) -> int:
        template = create_trial(state=TrialState.RUNNING)
        return self._storage.create_new_trial(self._study._study_id, template_trial=template)

    def report(self, trial_id: int, epoch: int, value: float) -> bool:
        self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        return self._pruner.prune(self._study, self._storage.get_trial(trial_id))

    def end(self, trial_id: int, state: TrialState, value: float) -> None:
        self._storage.set_trial_state_values(trial_id, state, [value])


@dataclass(frozen=True)
class Audit:
    """A pruner over many orders of arrival, each compared with the same order without pruning.

    Args:
        shares: Epochs trained over epochs without pruning.
        time_shares: The same of the seconds until all is done.
        regrets: Best score lost, in points of val_accuracy.
    """

    shares: tuple[float, ...]
    time_shares: tuple[float, ...]
    regrets: tuple[float, ...]

    @property
    def n_lost(self) -> int:
        """Orders in which the winner was pruned."""
        return sum(regret > 0 for regret in self.regrets)


def replay_orders(
    curves: Sequence[Curve], orders: Sequence[Sequence[int]], n_workers: int, make_pruner: Callable[[], BasePruner]
) -> list[Replayed]:
    """Every order with a new pruner, and with a seed of its own."""
    return [replay(curves, order, n_workers, make_pruner(), seed) for seed, order in enumerate(orders)]


def compare(full: Sequence[Replayed], cut: Sequence[Replayed]) -> Audit:
    """The same orders without pruning and with it."""
    pairs = list(zip(full, cut, strict=True))
    return Audit(
        shares=tuple(with_it.n_epochs / without.n_epochs for without, with_it in pairs),
        time_shares=tuple(with_it.seconds / without.seconds for without, with_it in pairs),
        regrets=tuple(100 * (without.score - with_it.score) for without, with_it in pairs),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
