"""Repeats: a point of a search trained over several seeds, each a cell of its own, and compared by their mean.

Of a grid the repeats are a further axis, the training seeds from 1; of another search they are numbers in a row. Knows
no study file, no Optuna, no database.
"""

import statistics
from collections.abc import Iterable

from fmnist_optuna.search.cell import TRAINING_SEED, Params
from fmnist_optuna.search.known import KnownCell


def with_repeat(params: Params, serial: int) -> Params:
    """The parameters of a repeat of a point.

    Args:
        serial: Which one, from 1: the training seed of its cell.
    """
    return {**params, TRAINING_SEED: serial}


def without_seed(params: Params) -> Params:
    """The point of which a cell with a training seed is."""
    return {name: value for name, value in params.items() if name != TRAINING_SEED}


def known_points(cells: Iterable[KnownCell], n_repeats: int) -> list[KnownCell]:
    """What is known of points, from what is known of their repeats.

    A point of which a repeat was pruned is pruned. Otherwise it has the mean of those that are complete, and trains as
    long as none is.

    Args:
        n_repeats: Of each point; with 1 the cells are the points.
    """
    if n_repeats == 1:
        return list(cells)
    by_point: dict[int, list[KnownCell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.number):
        by_point.setdefault(cell.number // n_repeats, []).append(cell)
    return [_known_point(number, repeats) for number, repeats in by_point.items()]


def _known_point(number: int, repeats: list[KnownCell]) -> KnownCell:
    params = without_seed(repeats[0].params)
    for repeat in repeats:
        if repeat.standing == "pruned":
            return KnownCell(number, params, "pruned", repeat.n_epochs, repeat.value)
    complete = [repeat.value for repeat in repeats if repeat.standing == "complete"]
    values = [value for value in complete if value is not None]
    if not complete:
        return KnownCell(number, params, "running")
    return KnownCell(number, params, "complete", 0, statistics.fmean(values) if values else None)
