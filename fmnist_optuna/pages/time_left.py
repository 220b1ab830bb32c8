"""How long a study will still take, from what its finished cells took; with rungs `time_on_rungs` says it."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from fmnist_optuna.ledger.progress import History, NewResults
from fmnist_optuna.ledger.records import Cell, CellCounts
from fmnist_optuna.pages.time_on_rungs import TimeOnRungs, size_of
from fmnist_optuna.study.session import Session


class TimeLeft(Protocol):
    """An estimate that is asked for again and again."""

    def estimate(self, counts: CellCounts, running: list[Cell], /) -> float | None:
        """Seconds until the last result, at the number of workers now at work; None where it would mean nothing."""


def make_remaining_time(session: Session) -> TimeLeft:
    """The estimate that fits a study."""
    if session.ladder is None:
        return RemainingTime(session.history)
    return TimeOnRungs(session.ladder, session.history, session.rungs)


@dataclass
class _Group:
    n_cells: int = 0
    n_failed: int = 0
    n_finished: int = 0
    seconds: float = 0.0  # of those finished

    @property
    def n_left(self) -> int:
        return self.n_cells - self.n_failed - self.n_finished

    @property
    def mean_seconds(self) -> float:
        return self.seconds / self.n_finished


class RemainingTime:
    """An estimate that counts large models as large: by the mean time of finished cells of the same hidden size.

    Grids without a `hidden_size` are one group, and so is any other search. Each call reads only what was
    finished since the last.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._groups: dict[Hashable, _Group] = {}
        self._n_cells = self._n_failed = self._n_finished = 0
        self._results = NewResults(history)

    def estimate(self, counts: CellCounts, running: list[Cell]) -> float | None:
        """Seconds until the last result, at the number of workers now at work.

        Returns:
            None where it would mean nothing: nobody is at work, or a size that is left has no finished cell yet.
        """
        if not running:
            return None
        self._read(counts)
        left = [group for group in self._groups.values() if group.n_left > 0]
        if not all(group.n_finished for group in left):
            return None
        seconds = sum(group.n_left * group.mean_seconds for group in left)
        for cell in running:
            group = self._group(cell)
            if group.n_finished:
                seconds -= min(cell.held_seconds, group.mean_seconds)
        return max(0.0, seconds) / len(running)

    def _read(self, counts: CellCounts) -> None:
        if counts.total != self._n_cells:
            self._n_cells = counts.total
            for group in self._groups.values():
                group.n_cells = 0
            for each in self._history.cells():
                self._group(each).n_cells += 1
        if counts.failed != self._n_failed:
            self._n_failed = counts.failed
            for group in self._groups.values():
                group.n_failed = 0
            for failed in self._history.failed():
                self._group(failed).n_failed += 1
        if counts.done != self._n_finished:
            for cell in self._results.read():
                self._n_finished += 1
                group = self._group(cell)
                group.n_finished += 1
                group.seconds += cell.seconds

    def _group(self, cell: Cell) -> _Group:
        return self._groups.setdefault(size_of(cell), _Group())
