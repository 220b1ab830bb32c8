"""Repeats: a point of a search trained over several seeds or folds, each a cell of its own, and compared by means.

Of a grid the repeats are further axes, the training seeds and the folds from 1; of another search they are numbers in a
row. Knows no study file, no Optuna, no database.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fmnist_optuna.search.cell import TRAINING_SEED, VALIDATION_FOLD, Params, ParamValue
from fmnist_optuna.search.known import KnownCell, Standing
from fmnist_optuna.wording import format_some_params


@dataclass(frozen=True)
class Repeats:
    """How often each point of a search is trained: over seeds, and with each of these over the folds.

    Args:
        n_seeds: >= 1.
        n_folds: >= 2, each of which validates one cell; 0 where the same images validate all.
    """

    n_seeds: int = 1
    n_folds: int = 0

    @property
    def n_cells(self) -> int:
        """Of each point."""
        return self.n_seeds * max(1, self.n_folds)

    @property
    def axes(self) -> Mapping[str, Sequence[int]]:
        """The parameters that set the cells of a point apart, with their values, the last running fastest."""
        seeds = {TRAINING_SEED: range(1, self.n_seeds + 1)} if self.n_seeds > 1 else {}
        return {**seeds, **({VALIDATION_FOLD: range(1, self.n_folds + 1)} if self.n_folds else {})}

    def cell_of(self, point: Params, place: int) -> Params:
        """The parameters of one of the cells of a point.

        Args:
            place: 0 <= place < n_cells.
        """
        if self.n_cells == 1:
            return point
        seed, fold = divmod(place, max(1, self.n_folds))
        serials: dict[str, ParamValue] = {TRAINING_SEED: seed + 1, VALIDATION_FOLD: fold + 1}
        return {**point, **{name: serials[name] for name in self.axes}}


ONCE = Repeats()


def point_of(params: Params) -> Params:
    """The point of which a cell with a training seed or a fold is."""
    return {name: value for name, value in params.items() if name not in (TRAINING_SEED, VALIDATION_FOLD)}


def format_cell(params: Params) -> str:
    """A cell in one line: seed and fold first, as one that has no room for all must tell the cells of a point apart."""
    repeat = {name: params[name] for name in (TRAINING_SEED, VALIDATION_FOLD) if name in params}
    return format_some_params({**repeat, **params})


def place_of(params: Params) -> tuple[int, int]:
    """By what the cells of a point are in order: seed and fold, 0 without."""
    return int(params.get(TRAINING_SEED, 0)), int(params.get(VALIDATION_FOLD, 0))


def fold_of(params: Params) -> int | None:
    """Which fold validates a cell; None where the study has none."""
    return int(params[VALIDATION_FOLD]) if VALIDATION_FOLD in params else None


def known_points(cells: Iterable[KnownCell], n_cells: int) -> list[KnownCell]:
    """What is known of points, from what is known of their cells.

    A point of which a cell was pruned is pruned. Otherwise it has the mean of those that are complete; without one it
    climbs with those that came to a rung; else it trains. Of cells that were pruned, or came to a rung, the mean is of
    those with the fewest epochs.

    Args:
        n_cells: Of each point; with 1 the cells are the points.
    """
    if n_cells == 1:
        return list(cells)
    by_point: dict[int, list[KnownCell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.number):
        by_point.setdefault(cell.number // n_cells, []).append(cell)
    return [_known_point(number, repeats) for number, repeats in by_point.items()]


def _known_point(number: int, repeats: list[KnownCell]) -> KnownCell:
    standings: tuple[Standing, ...] = ("pruned", "complete", "climbing")
    for standing in standings:
        those = [repeat for repeat in repeats if repeat.standing == standing]
        n_epochs = min((repeat.n_epochs for repeat in those), default=0)
        values = [each.value for each in those if each.n_epochs == n_epochs and each.value is not None]
        if those:
            value = statistics.fmean(values) if values else None
            return KnownCell(number, point_of(repeats[0].params), standing, n_epochs, value)
    return KnownCell(number, point_of(repeats[0].params), "running")
