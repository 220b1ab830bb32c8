"""The cells that a study accepts stage by stage: those of a grid, or of another search."""

from collections.abc import Sequence

from fmnist_optuna.bridge.trials import make_sampler
from fmnist_optuna.search.cell import Point, make_point, make_points
from fmnist_optuna.search.sampling import Search, Stage
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.records import StudyRecord


def ordered_points(spec: StudySpec) -> list[Point]:
    """The cells of a grid in the order of claims: that of a stock GridSampler, shuffled, so that a pruner soon sees a
    mixture.

    The repeats of a point follow one another, so that its mean is there soon.
    """
    sampler, repeats = make_sampler(spec.grid), spec.repeats
    points = sorted(make_points(spec.grid), key=lambda point: sampler.grid_id(point.params))
    if repeats.n_cells == 1:
        return points
    places = range(repeats.n_cells)
    return [make_point(repeats.cell_of(point.params, place)) for point in points for place in places]


def search_of(accepted: Sequence[StudySpec], drawn_by: Sequence[str] = ()) -> Search:
    """The search that a study has accepted, which is no grid.

    Args:
        drawn_by: As a record has it.
    """
    newest = accepted[-1].search
    drawn_by = drawn_by or [""] * len(accepted)
    stages = [
        Stage(each.n_points, each.dimensions, each.enqueue, by) for each, by in zip(accepted, drawn_by, strict=True)
    ]
    return Search(newest.sampler, newest.seed, stages, accepted[-1].repeats)


def new_points(before: StudyRecord, after: StudyRecord) -> list[Point]:
    """The cells that a search has more than before, in the order of claims."""
    n_before = before.accepted[-1].n_cells if before.accepted else 0
    return search_of(after.accepted).points(range(n_before, after.accepted[-1].n_cells))
