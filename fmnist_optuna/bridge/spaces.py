"""The space of a search in Optuna's words, and what is noted on each trial of it."""

from collections.abc import Mapping, Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler

from fmnist_optuna.bridge.trials import make_sampler, sampler_for
from fmnist_optuna.search.cell import Grid, Params
from fmnist_optuna.search.repeats import Repeats
from fmnist_optuna.search.space import Dimension, Space
from fmnist_optuna.spec.growth import read_space
from fmnist_optuna.spec.space import SearchSpec
from fmnist_optuna.spec.study_spec import StudySpec

Accepted = Mapping[str, object]  # a grid, or a stage of another search, as a study keeps it


def sampler_of(spec: StudySpec) -> BaseSampler:
    """The sampler that a study of Optuna's is opened with: the ledger says what is tried, so no other one is asked.

    TPESampler would think about a point whenever a trial is opened.
    """
    return make_sampler(spec.cell_grid) if spec.search.is_grid else RandomSampler(seed=spec.search.seed)


def make_distribution(dimension: Dimension) -> BaseDistribution:
    """One parameter of a space."""
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    low, high, step = dimension.low, dimension.last, dimension.step  # Optuna would lower a high that is rounded
    if dimension.is_integer:
        return IntDistribution(int(low), int(high), log=dimension.log, step=1 if step is None else int(step))
    return FloatDistribution(float(low), float(high), log=dimension.log, step=None if step is None else float(step))


def space_of(accepted: Sequence[Accepted]) -> Space | None:
    """The space of a study, which holds those of all earlier stages; None of a grid."""
    is_search = bool(accepted) and isinstance(accepted[-1].get("search"), Mapping)
    return read_space(accepted[-1]) if is_search else None


def ranges_of(space: Space, accepted: Sequence[Accepted], n_folds: int = 0) -> dict[str, BaseDistribution]:
    """What the trials of a search have as their ranges: the space, and the seeds and folds of its repeats.

    Args:
        n_folds: Of the study's data, which no stage changes; 0 for none.
    """
    repeats = Repeats(SearchSpec.model_validate(accepted[-1].get("search")).repeats, n_folds)
    of_repeats = {name: IntDistribution(values[0], values[-1]) for name, values in repeats.axes.items()}
    return {**{name: make_distribution(dimension) for name, dimension in space.items()}, **of_repeats}


def read_grid(accepted: Accepted) -> Grid:
    """What a study keeps of a grid, as a grid."""
    return {name: values for name, values in accepted.items() if isinstance(values, list)}


def notes_of_sampler(params: Params, accepted: Sequence[Accepted]) -> dict[str, object]:
    """What Optuna's GridSampler notes on a trial of a point; nothing where the cells are of no grid."""
    if space_of(accepted) is not None:
        return {}
    sampler = sampler_for(params, [read_grid(grid) for grid in accepted])
    return {"search_space": sampler.search_space, "grid_id": sampler.grid_id(params)}
