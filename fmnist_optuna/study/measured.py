"""What the attempts at the cells of a study have measured, those that were lost too: what a decision may have seen."""

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.ladder import Standing, stand_at
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.search.point_standings import NOWHERE, ended_at, mean_standing
from fmnist_optuna.study.session import Session

MOST_COMBINATIONS = 2**14  # of where the cells of a point may have stood


@dataclass(frozen=True)
class Measured:
    """A cell with what all attempts at it have measured.

    Args:
        curves: Scores of the epochs of each attempt, those of the cell's own trial first; NaN where one was not finite.
        has_erred: Whether an attempt was to blame for its own failure: the cell may have failed for some time.
        metric: That the scores are of.
    """

    cell: Cell
    curves: Sequence[Sequence[float]]
    has_erred: bool = False
    metric: Metric = VAL_ACCURACY

    @cached_property
    def longest(self) -> Sequence[float]:
        """The curve of most epochs, the cell's own if others have as many."""
        return max(self.curves, key=len, default=())

    @cached_property
    def is_certain(self) -> bool:
        """Whether every decision has met this cell as it is now: it was never failed, and all attempts agree.

        An attempt on a machine of another kind has other numbers.
        """
        if self.cell.state is State.FAILED or self.has_erred:
            return False
        if self.cell.state.has_result and self.longest is not self.curves[0]:
            return False
        return all(_begins_with(self.longest, curve) for curve in self.curves)

    def standings(self, rung: int) -> list[Standing]:
        """Where the cell may have stood at a rung: of every attempt that came there."""
        return [stand_at(rung, curve) for curve in self.curves if len(curve) >= rung]

    def can_tell(self, rung: int) -> bool:
        """Whether all of where it may have stood at a rung can be listed."""
        return True

    def score(self, rung: int) -> float | None:
        """Its result, if it ended by itself on the way to a rung."""
        has_ended = self.cell.state is State.COMPLETE and len(self.curves[0]) < rung
        return self.metric.score(self.cell.value) if has_ended and self.cell.value is not None else None

    def values(self, rung: int) -> set[float]:
        """What others may have been compared with at a rung."""
        found = [*(standing.now for standing in self.standings(rung)), self.score(rung)]
        return {value for value in found if value is not None and math.isfinite(value)}


@dataclass(frozen=True)
class MeasuredRepeat(Measured):
    """A cell that stands where its point does, at the mean of all cells of that.

    Args:
        group: All cells of its point, itself among them.
        absent: cell_ids that some decision did not wait for.
    """

    group: Sequence[Measured] = ()
    absent: Collection[str] = ()

    @cached_property
    def is_certain(self) -> bool:
        """Whether every decision has met all of them as they are now."""
        return all(map(self._is_sure, self.group))

    def standings(self, rung: int) -> list[Standing]:
        """Where the point may have stood, if this cell came to the rung."""
        return self._find_means(rung) if super().standings(rung) else []

    def can_tell(self, rung: int) -> bool:
        """Not where too many of its cells were lost in too many ways."""
        return math.prod(len(self._list_alternatives(each, rung)) for each in self.group) <= MOST_COMBINATIONS

    def score(self, rung: int) -> float | None:
        """The mean of the point, if this cell ended by itself on the way to a rung."""
        if super().score(rung) is None:
            return None
        return next((mean.now for mean in self._find_means(rung)), None)

    def values(self, rung: int) -> set[float]:
        """What others may have been compared with."""
        has_come = super().standings(rung) or super().score(rung) is not None
        return {mean.now for mean in self._find_means(rung) if mean.now is not None} if has_come else set()

    def _is_sure(self, each: Measured) -> bool:
        return each.is_certain and each.cell.cell_id not in self.absent

    def _find_means(self, rung: int) -> list[Standing]:
        """All that may have been, of what cannot be told none."""
        if not self.can_tell(rung):
            return []
        options = [self._list_alternatives(each, rung) for each in self.group]
        means = (mean_standing(filter(None, chosen)) for chosen in itertools.product(*options))
        return list(dict.fromkeys(mean for mean in means if mean is not None))

    def _list_alternatives(self, each: Measured, rung: int) -> list[Standing | None]:
        """Where a cell of the point may have stood; None if it may have had no say."""
        found: list[Standing | None] = [*each.standings(rung)]
        if (score := each.score(rung)) is not None:
            found.append(ended_at(score))
        if each.cell.state is State.PRUNED and len(each.curves[0]) < rung:
            found.append(NOWHERE)
        if not found or not self._is_sure(each):
            found.append(None)
        return list(dict.fromkeys(found))


def with_groups(session: Session, measured: Sequence[Measured], absent: Collection[str]) -> Sequence[Measured]:
    """The same cells, each with the others of its point where points are repeated.

    Args:
        measured: Of each point all cells.
        absent: cell_ids that some decision did not wait for.
    """
    if session.record.spec.repeats.n_cells == 1:
        return measured
    by_id = {each.cell.cell_id: each for each in measured}
    found: list[Measured] = []
    for cells in session.history.group(each.cell for each in measured):
        group = [by_id[cell.cell_id] for cell in cells]
        found += [MeasuredRepeat(e.cell, e.curves, e.has_erred, e.metric, group, absent) for e in group]
    return found


def read_measured(session: Session, cells: Iterable[Cell]) -> list[Measured]:
    """Each cell with all attempts at it, the trials that it had when it was read among them."""
    cells = list(cells)
    asked = {cell.cell_id for cell in cells}
    trials = session.optuna_storage.get_all_trials(session.record.study_id, deepcopy=False)
    attempts = [attempt for attempt in map(read_attempt, trials) if attempt.cell_id in asked]
    by_cell: dict[str, list[int]] = defaultdict(list)
    for attempt in attempts:
        by_cell[attempt.cell_id].append(attempt.trial_id)
    have_erred = {attempt.cell_id for attempt in attempts if attempt.attributes.error is not None}
    curves = session.history.curves([attempt.trial_id for attempt in attempts])
    metric = session.record.metric
    scores = {trial_id: [metric.score(metric.value_of(each)) for each in curve] for trial_id, curve in curves.items()}
    found = []
    for cell in cells:
        others = [scores[trial_id] for trial_id in by_cell[cell.cell_id] if trial_id != cell.trial_id]
        own = scores.get(cell.trial_id or 0, [])
        found.append(Measured(cell, [own, *others], cell.cell_id in have_erred, metric))
    return found


def _begins_with(longer: Sequence[float], shorter: Sequence[float]) -> bool:
    """Whether two curves are equal as far as the second one goes; what was not finite in both is equal."""
    pairs = zip(longer, shorter, strict=False)
    return all(one == other or (math.isnan(one) and math.isnan(other)) for one, other in pairs)
