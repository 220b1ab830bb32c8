"""The table [pruner] of a study file: which trials are cut, and what holds where nothing is said."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, StrictFloat, StrictInt, model_serializer, model_validator

from fmnist_optuna.search.cell import TRAINING_SEED, VALIDATION_FOLD
from fmnist_optuna.search.repeats import Repeats
from fmnist_optuna.spec.options import Table, TrainingOptions

PRUNER_ARGUMENTS = {
    "ladder": ("first_rung", "kappa", "margin", "keep"),
    "median": ("n_startup_trials", "n_warmup_steps", "interval_steps", "n_min_trials"),
    "none": (),
}
SCHEDULES = frozenset(get_args(TrainingOptions.model_fields["schedule"].annotation))
FALLING = SCHEDULES - {"constant"}  # whose learning rate falls until the last epoch


class PrunerSpec(Table):
    """Optuna's MedianPruner or the ladder, with its arguments, or "none". Defaults are from benchmarks/pruning.py."""

    name: Literal["ladder", "median", "none"] = "ladder"
    n_startup_trials: StrictInt = Field(default=6, ge=0)
    n_warmup_steps: StrictInt = Field(default=0, ge=0)
    interval_steps: StrictInt = Field(default=1, ge=1)
    n_min_trials: StrictInt = Field(default=1, ge=1)
    first_rung: StrictInt = Field(default=2, ge=1, le=100_000)
    kappa: StrictFloat = Field(default=1.0, ge=0, le=1000, allow_inf_nan=False)
    margin: StrictFloat = Field(default=1.0, ge=0, le=1000, allow_inf_nan=False)
    keep: StrictInt = Field(default=3, ge=0, le=1000)

    @model_validator(mode="after")
    def _takes_its_own_arguments(self) -> "PrunerSpec":
        foreign = sorted(self.model_fields_set - {"name", *PRUNER_ARGUMENTS[self.name]})
        if foreign:
            raise ValueError(f'must not be given with name = "{self.name}"; remove {", ".join(foreign)}')
        return self

    @model_serializer(mode="wrap")
    def _leave_out_arguments_of_others(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        kept = ("name", *PRUNER_ARGUMENTS[self.name])
        return {name: value for name, value in serialize(self).items() if name in kept}


def default_pruner(given: Mapping[str, object]) -> PrunerSpec:
    """The ladder; none where the learning rate falls, as early epochs then tell little of the last ones.

    None either with folds: how many images a mean over them is counted over, is not known from a study file.

    Source: docs/measurements.md, where the ladder is replayed on such studies.

    Args:
        given: The tables that come before.
    """
    training = given.get("training")
    is_falling = isinstance(training, TrainingOptions) and _falls(training, _choices(given))
    has_folds = getattr(given.get("data"), "folds", 0) > 0
    return PrunerSpec(name="none") if is_falling or has_folds else PrunerSpec()


def check_repeats(repeats: Repeats, searched: Collection[str], pruner: PrunerSpec) -> None:
    """Check that nothing but the repeats sets them apart, and that no pruner cuts one of them alone.

    The mean of a point would be lost with one of its cells. The ladder compares means.

    Args:
        searched: Names of parameters.

    Raises:
        ValueError: Begins with the key.
    """
    if repeats.n_folds and pruner.name != "none":
        raise ValueError(
            f'pruner.name must be "none" with data.folds = {repeats.n_folds}, as points are compared by the mean of '
            f'all their folds, but is "{pruner.name}"; leave it out'
        )
    if repeats.n_seeds > 1 and pruner.name == "median":
        raise ValueError(
            f'pruner.name must be "ladder" or "none" with search.repeats = {repeats.n_seeds}, as "median" compares '
            "single trials, whose point would lose its mean with one of them; leave it out"
        )
    if repeats.n_seeds > 1 and TRAINING_SEED in searched:
        raise ValueError(
            f"search.repeats must be 1 where {TRAINING_SEED} is searched, as repeats are such seeds, but is "
            f"{repeats.n_seeds}; remove one of both"
        )
    if repeats.n_folds and TRAINING_SEED in searched:
        raise ValueError(
            f"data.folds must go without {TRAINING_SEED} in what is searched, but is {repeats.n_folds}; "
            "search.repeats trains each fold over seeds"
        )
    if VALIDATION_FOLD in searched:
        raise ValueError(f"{VALIDATION_FOLD} must not be searched, as every point has all folds that data.folds says")


def _choices(given: Mapping[str, object]) -> dict[str, Sequence[object]]:
    """The values of each parameter of a grid or of choices."""
    grid, space = given.get("grid"), given.get("space")
    chosen = {name: getattr(key, "choices", ()) for name, key in space.items()} if isinstance(space, dict) else {}
    return {**chosen, **(grid if isinstance(grid, dict) else {})}


def describe_pruner(pruner: PrunerSpec, training: TrainingOptions, grid: Mapping[str, Sequence[object]]) -> str | None:
    """What is to be known of a pruner where the learning rate falls; None where it does not.

    Args:
        grid: The values of each parameter that is searched.
    """
    if not _falls(training, grid):
        return None
    if pruner.name == "none":
        return "no cell is cut, as the learning rate falls until the last epoch and early ones tell little of it"
    return (
        f'the pruner "{pruner.name}" may cut the best cell, as the learning rate falls until the last epoch and early '
        'ones tell little of it; pruner.name = "none" cuts none'
    )


def _falls(training: TrainingOptions, grid: Mapping[str, Sequence[object]]) -> bool:
    """Whether the learning rate of any cell falls until the last epoch.

    Schedules in the grid take the place of the one in [training]. Other values of that name in a grid are those of a
    parameter of the architecture's own.
    """
    of_grid = grid.get("schedule", ())
    schedules = of_grid if of_grid and SCHEDULES.issuperset(of_grid) else (training.schedule,)
    return any(schedule in FALLING for schedule in schedules)
