"""Where the points of a search stand at a rung, each of which is trained over several seeds: at the mean of its cells.

Each cell stands where its point does, so that the rule, which compares cells, cuts all cells of a point or none.
"""

import statistics
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from fmnist_optuna.search.ladder import Standing

PointKey = TypeVar("PointKey", bound=Hashable)
NOWHERE = Standing(None, None)  # of a cell that will not come to a rung, and of a point with one of these


def mean_standing(standings: Iterable[Standing]) -> Standing | None:
    """Where a point stands; None where nothing is known of it.

    Args:
        standings: Of its cells that have come to the rung or ended before. One that failed has no say: it may be tried
            again. A point with one of no value has none either.
    """
    found = list(standings)
    now = [each.now for each in found if each.now is not None]
    half = [each.half for each in found if each.half is not None]
    if len(now) < len(found):
        return NOWHERE
    if not now:
        return None
    return Standing(statistics.fmean(now), statistics.fmean(half) if len(half) == len(now) else None)


def ended_at(score: float | None) -> Standing:
    """Where a cell stands that ended by itself on the way to a rung: at its value, and it gains nothing any more."""
    return Standing(score, score)


def with_means(
    standings: Mapping[str, Standing],
    finished_scores: Mapping[str, float | None],
    pruned: Iterable[str],
    points: Mapping[str, PointKey],
) -> tuple[dict[str, Standing], dict[str, float | None]]:
    """The same cells, each with the mean of its point.

    Args:
        standings: By cell, of those that have come to the rung.
        finished_scores: By cell, final values of those that ended by themselves before.
        pruned: Cells that diverged or were cut before.
        points: Which point each of all these cells is of.

    Returns:
        Standings and final scores, of the same cells.
    """
    by_point: dict[PointKey, list[Standing]] = {}
    ended = {cell: ended_at(score) for cell, score in finished_scores.items()} | dict.fromkeys(pruned, NOWHERE)
    for cell, standing in {**standings, **ended}.items():
        by_point.setdefault(points[cell], []).append(standing)
    means = {point: mean_standing(found) or NOWHERE for point, found in by_point.items()}
    return (
        {cell: means[points[cell]] for cell in standings},
        {cell: means[points[cell]].now for cell in finished_scores},
    )
