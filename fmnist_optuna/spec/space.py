"""The tables [search], [space] and [[enqueue]] of a study file: what is searched where it is no grid."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_serializer,
    model_validator,
)

from fmnist_optuna.search.cell import MAX_INTEGER, Params, ParamValue
from fmnist_optuna.search.space import Dimension, Number, Space, check_given, in_order, is_multiple
from fmnist_optuna.spec.options import Table
from fmnist_optuna.spec.values import INTEGERS, Value, check_value, check_values

MAX_REPEATS = 1000  # of a point: a typing error beyond
MAX_FLOAT_STEPS = 10_000_000  # from 0 to an end: beyond some 2**25, Optuna takes numbers for none of the range
MAX_TRIALS = 100_000  # of a search; more is a typing error, and would fill the memory before anything is said


class SearchSpec(Table):
    """How the cells of a study come about: every point of [grid], or `n_trials` points of [space]."""

    sampler: Literal["grid", "random", "tpe", "qmc"] = "grid"
    n_trials: StrictInt | None = Field(default=None, ge=1, le=MAX_TRIALS)
    seed: StrictInt = Field(default=0, ge=0, le=2**32 - 1)
    repeats: StrictInt = Field(default=1, ge=1, le=MAX_REPEATS)

    @property
    def is_grid(self) -> bool:
        """Whether the cells are the points of a grid."""
        return self.sampler == "grid"

    @model_validator(mode="after")
    def _has_its_own_keys(self) -> "SearchSpec":
        if not self.is_grid and self.n_trials is None:
            raise ValueError(f'must have n_trials with sampler = "{self.sampler}", but has none')
        if self.is_grid and (idle := sorted(self.model_fields_set - {"sampler", "repeats"})):
            raise ValueError(f'must have another sampler than "grid" where it has {", ".join(idle)}')
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_says_nothing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A search without repeats is what it was before there was a choice; a grid has nothing else."""
        kept = {"repeats"} if self.is_grid else {"sampler", "n_trials", "seed", "repeats"}
        kept -= {"repeats"} if self.repeats == 1 else set()
        return {name: value for name, value in serialize(self).items() if name in kept}


class SpaceKey(Table):
    """One parameter of a space; a list stands for its choices."""

    low: StrictFloat | StrictInt | None = None
    high: StrictFloat | StrictInt | None = None
    log: StrictBool = False
    step: StrictFloat | StrictInt | None = None
    choices: tuple[Value, ...] = ()
    when: dict[StrictStr, tuple[Value, ...]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _takes_a_list_for_choices(cls, given: object) -> object:
        given = {"choices": given} if isinstance(given, list | tuple) else given
        if isinstance(given, dict) and given.get("choices") in ([], ()):
            raise ValueError("must have at least one choice, but has none")
        if not isinstance(given, dict | SpaceKey):
            raise ValueError(f"must be a list of choices, or a table with low and high, but got {given!r}")
        return given

    @field_validator("when", mode="before")
    @classmethod
    def _takes_a_value_for_a_list(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {name: value if isinstance(value, list | tuple) else [value] for name, value in given.items()}

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> "SpaceKey":
        numbers = sorted(self.model_fields_set & {"low", "high", "log", "step"})
        if self.choices and numbers:
            raise ValueError(f"must have choices or a range, but has choices and {', '.join(numbers)}")
        if not self.choices and (self.low is None or self.high is None):
            raise ValueError("must have low and high, or choices, but lacks " + ("low" if self.low is None else "high"))
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_said(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        default = type(self).model_construct()
        return {name: value for name, value in serialize(self).items() if getattr(self, name) != getattr(default, name)}

    def to_dimension(self) -> Dimension:
        """The same as numbers."""
        if self.choices:
            return Dimension(choices=self.choices, when=self.when)
        if self.low is None or self.high is None:
            raise ValueError("a range must have low and high")
        return Dimension((), self.low, self.high, self.log, self.step, self.when)


SpaceSpec = dict[str, SpaceKey]
Enqueued = tuple[dict[str, Value], ...]


def to_space(space: Mapping[str, SpaceKey]) -> Space:
    """A table of a study file as numbers."""
    return {name: key.to_dimension() for name, key in space.items()}


def check_space(space: Mapping[str, SpaceKey]) -> None:
    """Check what a space says.

    Raises:
        ValueError: Begins with the key.
    """
    for name, key in space.items():
        if key.choices:
            check_values(name, key.choices)
        else:
            _check_range(name, key.to_dimension())
        for other, values in key.when.items():
            _check_condition(f"{name}.when", space, other, values)
    in_order(to_space(space))


def _check_range(name: str, dimension: Dimension) -> None:
    low, high, step = dimension.low, dimension.high, dimension.step
    for end, value in (("low", low), ("high", high)):
        check_value(name, value, f"{name}.{end} must")
    if low > high:
        raise ValueError(f"{name} must have a low of at most its high, but has {low} and {high}")
    if dimension.log and low <= 0:
        raise ValueError(f"{name} must have a low above 0 with log = true, but has {low}")
    if dimension.log and step is not None:
        raise ValueError(f"{name} must have log or step, but has both")
    if step is not None:
        _check_step(name, low, high, step)
    if name in INTEGERS and not dimension.is_integer:
        steps = "" if step is None else f" and a step of {step}"
        raise ValueError(f"{name} must have integers, written without a point, but has {low} to {high}{steps}")


def _check_step(name: str, low: Number, high: Number, step: Number) -> None:
    check_value("", step, f"{name}.step must")
    if step <= 0:
        raise ValueError(f"{name} must have a step above 0, but has {step}")
    if (high - low) / step > MAX_INTEGER:
        raise ValueError(f"{name} must have at most 2**53 values, but has {low:g} to {high:g} in steps of {step:g}")
    if isinstance(low + high + step, float) and max(abs(low), abs(high)) / step > MAX_FLOAT_STEPS:
        raise ValueError(
            f"{name} must have a step of at least 1e-7 of its farther end, as numbers are rounded, but "
            f"has {low:g} to {high:g} in steps of {step:g}"
        )
    if not is_multiple(high - low, step):
        raise ValueError(f"{name} must have a high that is low and whole steps, but has {low}, {high} and step {step}")


def _check_condition(place: str, space: Mapping[str, SpaceKey], name: str, values: Sequence[ParamValue]) -> None:
    if name not in space:
        raise ValueError(f"{place} must name other keys of [space], but {name} is none; it has {', '.join(space)}")
    if not space[name].choices:
        raise ValueError(f"{place} must name keys with choices, but {name} has a range")
    if not values:
        raise ValueError(f"{place} must have a value of {name}, but has none")
    for value in values:
        if not space[name].to_dimension().has(value):
            raise ValueError(f"{place} must have choices of {name}, but has {value!r}")


def check_search(
    search: SearchSpec, grid: Iterable[str], space: Mapping[str, SpaceKey], enqueued: Sequence[Params]
) -> None:
    """Check that the tables that say what is searched fit one another.

    Args:
        grid: Its parameters.

    Raises:
        ValueError: Begins with the table.
    """
    if search.is_grid:
        if space or enqueued:
            table = "space" if space else "enqueue"
            raise ValueError(f'{table} must go with search.sampler = "random", "tpe" or "qmc", but has "grid"')
        return
    if names := ", ".join(grid):
        raise ValueError(
            f'grid must not be given with search.sampler = "{search.sampler}", which takes points of [space]; '
            f"move {names} there"
        )
    if not space:
        raise ValueError(f'space must be given with search.sampler = "{search.sampler}"')
    n_trials = search.n_trials or 0
    if len(enqueued) > n_trials:
        raise ValueError(f"enqueue must have at most search.n_trials points, {n_trials}, but has {len(enqueued)}")
    check_enqueued({name: _as_it_may_be(name, each) for name, each in to_space(space).items()}, enqueued)


def _as_it_may_be(name: str, dimension: Dimension) -> Dimension:
    """A range whose ends are written as integers as one of floats, which an architecture may declare it to be."""
    if dimension.choices or name in INTEGERS:
        return dimension
    return replace(dimension, low=float(dimension.low), high=float(dimension.high))


def check_enqueued(space: Space, enqueued: Sequence[Params]) -> None:
    """Check points to try first against what each parameter may be.

    Raises:
        ValueError: Begins with the table.
    """
    for number, given in enumerate(enqueued, start=1):
        problem = check_given(space, given) if given else "must have a value for each point, but one is empty"
        if problem:
            raise ValueError(f"enqueue {problem} (number {number})")
