"""Which cells of a study have the best values; of points that are repeated, which have the best means."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import select

from fmnist_optuna.ledger.cell_reading import CellReading
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells
from fmnist_optuna.search.cell import Params, canonical_json, decode_params
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.search.repeats import place_of, point_of

_is_complete = cells.c.result == State.COMPLETE.optuna_name
# What a point stands as while not every repeat is complete: as one of these, the first that any of them is.
OPEN_STATES = (State.FAILED, State.PRUNED, State.RUNNING, State.PARKED, State.WAITING)


class Leaders(CellReading):
    """The best cells of one study, or its best points.

    Args:
        n_cells: Of each point; the others as of any part that compares.
    """

    def __init__(self, storage: Storage, study_id: int, metric: Metric = VAL_ACCURACY, n_cells: int = 1) -> None:
        super().__init__(storage, study_id, metric)
        self._n_each = n_cells

    def best(self) -> Cell | None:
        """The complete cell with the best value; of equals the earlier trial. The first of `leaders`."""
        return next(iter(self.leaders(1)), None)

    def leaders(self, n_cells: int | None = None) -> list[Cell]:
        """The complete cells with the best value, the best first; of equals the earlier trial.

        Where points are repeated, the first repeats of those with the best mean, of points that are complete.

        Args:
            n_cells: How many; None for all.
        """
        if self._n_each > 1:
            return [repeats[0] for repeats in self._ranked()[:n_cells]]
        best_first = cells.c.value.desc() if self._metric.direction == "maximize" else cells.c.value.asc()
        ranked = self._select(_is_complete).order_by(best_first, cells.c.trial_number)
        return self._read_cells(ranked.limit(n_cells))

    def leaders_of_points(self) -> list[Cell]:
        """The best complete cell of each point, the best first.

        Several cells may have one point: in a grid of training seeds, and in a search by chance.
        """
        best: dict[str, Cell] = {}
        for cell in self.leaders():
            best.setdefault(canonical_json(point_of(cell.params)), cell)
        return list(best.values())

    def best_point(self) -> Cell | None:
        """The best cell; of repeats the best point as one cell, with their mean as its value."""
        if self._n_each == 1:
            return self.best()
        return next(map(as_point, self._ranked()), None)

    @retrying
    def best_value(self) -> float | None:
        """The best value of a complete cell, or mean of a point; None before the first."""
        if self._n_each > 1:
            point = self.best_point()
            return None if point is None else point.value
        query = select(self._best(cells.c.value)).where(cells.c.study_id == self.study_id, _is_complete)
        with self.storage.read() as connection:
            value: float | None = connection.execute(query).scalar()
        return value

    def _ranked(self) -> list[list[Cell]]:
        """The repeats of each point that is complete, the best mean first."""
        groups = self.group(self._read_cells(self._select(_is_complete)))
        points = [(as_point(group), group) for group in groups if len(group) == self._n_each]
        points.sort(key=lambda point: (self._metric.rank(point[0].value), point[0].trial_number or 0))
        return [group for _, group in points]

    def cells(self) -> list[Cell]:
        """Every cell, in the order of claims."""
        return self._read_cells(self._select().order_by(cells.c.position, cells.c.cell_id))

    def points(self) -> list[Cell]:
        """Every point as one cell, in the order of claims: without repeats every cell."""
        found = self.cells()
        return found if self._n_each == 1 else [as_point(group) for group in self.group(found)]

    def repeats_of(self, cell_id: str) -> list[Cell]:
        """The cells of the point that a cell is of, the first repeat first; none where points have one cell."""
        if self._n_each == 1:
            return []
        found = self.group(self._read_cells(self._select()))
        return next((group for group in found if any(cell.cell_id == cell_id for cell in group)), [])

    def group(self, found: Iterable[Cell]) -> list[list[Cell]]:
        """Cells by their points, each group in the order of its seeds and folds."""
        groups: dict[str | int, list[Cell]] = {}
        for cell in found:
            groups.setdefault(point_key(cell.number, cell.params, self._n_each), []).append(cell)
        return [sorted(group, key=_serial) for group in groups.values()]


def point_key(number: int | None, params: Params | str, n_cells: int) -> str | int:
    """What the cells of a point share: of a search two points may be equal by chance, but not their numbers.

    Args:
        number: Of the cell within a search; None of a grid.
        params: Of the cell, or the JSON that the ledger keeps of them.
        n_cells: Of each point.
    """
    if number is not None:
        return number // n_cells
    return canonical_json(point_of(decode_params(params) if isinstance(params, str) else params))


def as_point(repeats: Sequence[Cell]) -> Cell:
    """A point as one cell: the first repeat with the mean of all, or an open one as long as any is not complete.

    Args:
        repeats: The first one first.
    """
    for state in OPEN_STATES:
        for cell in repeats:
            if cell.state is state:
                return replace(cell, params=point_of(cell.params), value=None, accuracy=None)
    first = repeats[0]
    return replace(
        first,
        params=point_of(first.params),
        value=_mean(cell.value for cell in repeats),
        accuracy=None if first.accuracy is None else _mean(cell.accuracy for cell in repeats),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Of values that are all there; None otherwise."""
    found = list(values)
    there = [value for value in found if value is not None]
    return statistics.fmean(there) if len(there) == len(found) else None


def _serial(cell: Cell) -> tuple[int, tuple[int, int]]:
    """Which repeat a cell is; one whose point is not fixed yet has a number."""
    return cell.number or 0, place_of(cell.params)
