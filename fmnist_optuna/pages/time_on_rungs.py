"""How long a study with rungs will still take: the epochs that each cell is expected to train, and what one takes.

How many cells go on from a rung is known once it is decided. Of a rung that is not, only a guess can be made, from the
last one that is; before the first decision nothing is said.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from fmnist_optuna.ledger.progress import History
from fmnist_optuna.ledger.records import Cell, CellCounts
from fmnist_optuna.ledger.rung_records import DecidedRung
from fmnist_optuna.ledger.rungs import Rungs
from fmnist_optuna.ledger.states import UNFINISHED, State
from fmnist_optuna.search.cell import ParamValue
from fmnist_optuna.search.ladder import LadderRule

SIZE = "hidden_size"  # what a cell's time depends on most


def size_of(cell: Cell) -> ParamValue | None:
    """The size by which times are told apart; None in a search, where most cells have a size of their own."""
    return cell.params.get(SIZE) if cell.number is None else None


class TimeOnRungs:
    """An estimate for one study with rungs; each call reads all cells, as any of them may have trained."""

    def __init__(self, rule: LadderRule, history: History, rungs: Rungs) -> None:
        self._rule = rule
        self._history = history
        self._rungs = rungs

    def estimate(self, counts: CellCounts, running: list[Cell], /) -> float | None:
        """Seconds until the last result, at the number of workers now there.

        Returns:
            None where it would mean nothing: nobody is at work, no rung is decided yet, or no epoch of a size that is
            left was trained.
        """
        n_left = counts.waiting + counts.running + counts.parked
        # Some, or all for a moment, have nothing to train while they wait for the last cell of a rung or its decision.
        n_workers = max(len(running), min(n_left, len(self._history.workers())))
        if not n_workers or not (decided := self._rungs.decided()):
            return None
        return expect_seconds(self._rule, self._history.cells(), decided, n_workers)


def expect_seconds(
    rule: LadderRule, cells: Sequence[Cell], decided: Iterable[DecidedRung], n_workers: int
) -> float | None:
    """Seconds until the last result; None where nothing can be known.

    Args:
        rule: Of the study.
        cells: All of them.
        decided: Every decision so far.
        n_workers: How many train side by side, >= 1.
    """
    racing = [cell for cell in cells if cell.state in UNFINISHED and cell.cut_at is None]
    shares, pace = expect_shares(rule, _over_rungs(decided, racing)), _seconds_an_epoch(cells)
    if shares is None or any(size_of(cell) not in pace for cell in racing):
        return None
    ends = {n_epochs: expect_end(rule, cells, n_epochs) for n_epochs in {cell.n_epochs for cell in racing}}
    seconds, whole = 0.0, []  # the second: of each cell, if it goes on to its end
    for cell in racing:
        an_epoch, end = pace[size_of(cell)], ends[cell.n_epochs]
        seconds += an_epoch * expect_epochs(rule, cell, shares, end)
        whole.append(an_epoch * (end - cell.n_epochs))
    return max(seconds / n_workers, min(whole, default=0.0))  # the best one of them goes on


def _over_rungs(decided: Iterable[DecidedRung], racing: Sequence[Cell]) -> list[DecidedRung]:
    """The decisions at rungs that all cells have come to, or at which some were cut: the others let cells on ahead."""
    decisions = list(decided)
    with_cuts = {each.rung for each in decisions if each.n_cut}
    to_come = min(((cell.rung, cell.state is not State.PARKED) for cell in racing), default=(math.inf, False))
    return [each for each in decisions if each.rung in with_cuts or (each.rung, False) < to_come]


def expect_shares(rule: LadderRule, decided: Iterable[DecidedRung]) -> dict[int, float] | None:
    """The share of cells that go on from each rung, 0..1; None before the first decision.

    At a rung that is not decided yet it is the square root of the share at the rung below: in six recorded studies of
    Fashion-MNIST 30 % of the cells went on from the first rung, 65 % from the second, 85 % from the third (2026-11-28).
    So many as the rule keeps go on in any case.
    """
    n_parked: dict[int, int] = defaultdict(int)
    n_cut: dict[int, int] = defaultdict(int)
    for each in decided:
        n_parked[each.rung] += each.n_parked
        n_cut[each.rung] += each.n_cut
    shares: dict[int, float] = {}
    last, n_cells = None, 0.0  # the second: how many come to the next rung
    for rung in rule.rungs():
        if n_parked[rung]:
            last, n_cells = 1 - n_cut[rung] / n_parked[rung], n_parked[rung]
        elif last is not None:
            last = max(math.sqrt(last), min(1.0, rule.keep / max(n_cells, 1.0)))
        if last is not None:
            shares[rung] = last
            n_cells *= last
    return shares or None


def expect_end(rule: LadderRule, cells: Iterable[Cell], n_epochs: int) -> float:
    """How many epochs a cell that has so many will have at its end: the mean of those that came further, and the most.

    The most counts as one more of them, as few cells may have come further, and by little.
    """
    ends = [cell.n_epochs for cell in cells if cell.state is State.COMPLETE and cell.n_epochs > n_epochs]
    return sum([*ends, rule.max_epochs]) / (len(ends) + 1)


def expect_epochs(rule: LadderRule, cell: Cell, shares: Mapping[int, float], end: float) -> float:
    """How many epochs a cell without a result is expected to train still.

    Args:
        shares: Of cells that go on from each rung; from a rung without one all do.
        end: Epochs of a cell that goes on to its end.
    """
    expected, likely, at = 0.0, 1.0, float(cell.n_epochs)
    for rung in rule.rungs():
        if rung >= end:
            break
        expected += likely * max(0.0, rung - at)
        at = max(at, rung)
        is_behind = rung < cell.rung or (rung == cell.rung and cell.state is not State.PARKED)
        if not is_behind:
            likely *= shares.get(rung, 1.0)
    return expected + likely * max(0.0, end - at)


def _seconds_an_epoch(cells: Iterable[Cell]) -> dict[ParamValue | None, float]:
    """Seconds of an epoch, by the size of the model; sizes that have trained none are left out."""
    n_epochs: dict[ParamValue | None, int] = defaultdict(int)
    seconds: dict[ParamValue | None, float] = defaultdict(float)
    for cell in cells:
        n_epochs[size_of(cell)] += cell.n_epochs
        seconds[size_of(cell)] += cell.seconds
    return {size: seconds[size] / n for size, n in n_epochs.items() if n}
