"""The space of a search as numbers: ranges and choices, what they depend on, and the point that shares of them give.

Knows no study file, no Optuna, no database.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from fmnist_optuna.search.cell import Params, ParamValue, canonical_json

Number = int | float


@dataclass(frozen=True)
class Dimension:
    """What one parameter of a space may be: one of its choices, or a number of a range.

    Args:
        choices: Any values; empty for a range.
        low: The least number, itself included.
        high: The largest one, itself included. A range of which low, high and step are integers has integers alone.
        log: Whether the logarithm of the number is evenly spread, and not the number.
        step: From one number to the next; None for all.
        when: Values of other parameters, by their name, with which alone this one is there; empty for always.
    """

    choices: tuple[ParamValue, ...] = ()
    low: Number = 0
    high: Number = 0
    log: bool = False
    step: Number | None = None
    when: Mapping[str, tuple[ParamValue, ...]] = field(default_factory=dict)

    @property
    def is_integer(self) -> bool:
        """Whether the numbers of the range are integers."""
        ends = (self.low, self.high, 1 if self.step is None else self.step)
        return not self.choices and all(isinstance(number, int) for number in ends)

    @property
    def spacing(self) -> Number | None:
        """From one number of the range to the next, of integers 1 at least; None where there is none."""
        return self.step if self.step is not None else 1 if self.is_integer else None

    @property
    def last(self) -> Number:
        """The largest number of a range: its high, which of steps of floats may be rounded another way."""
        if self.step is None or self.is_integer:
            return self.high
        return self._after(self._count_steps(self.step), self.step)

    @property
    def ends(self) -> tuple[ParamValue, ...]:
        """All choices, or both ends of the range."""
        return self.choices or (self.low, self.last)

    def at(self, share: float) -> ParamValue:
        """The value at a share of the whole, 0 <= share < 1: evenly spread shares give evenly spread values."""
        if self.choices:
            return self.choices[_place(share, len(self.choices))]
        if self.log:
            return self._at_logarithm(share)
        step = self.spacing
        if step is None:
            return min(float(self.high), self.low + share * (self.high - self.low))
        return self._after(_place(share, 1 + self._count_steps(step)), step)

    def _count_steps(self, step: Number) -> int:
        return round((self.high - self.low) / step)

    def _after(self, n_steps: int, step: Number) -> Number:
        """The number so many steps from the lowest one."""
        if self.is_integer:
            return int(self.low + n_steps * step)
        return float(Decimal(str(self.low)) + n_steps * Decimal(str(step)))

    def _at_logarithm(self, share: float) -> Number:
        wider = 0.5 if self.is_integer else 0.0  # each integer has what is rounded to it, as with Optuna
        first, last = math.log(self.low - wider), math.log(self.high + wider)
        number = math.exp(first + share * (last - first))
        return min(max(round(number) if self.is_integer else number, self.low), self.high)

    def has(self, value: ParamValue) -> bool:
        """Whether a value is one of this parameter's."""
        if self.choices:
            return canonical_json(value) in {canonical_json(choice) for choice in self.choices}
        if isinstance(value, bool | str) or not self.low <= value <= self.last:
            return False
        return self.spacing is None or is_multiple(value - self.low, self.spacing)

    def holds(self, other: "Dimension") -> bool:
        """Whether every value of another one is one of this, and all else that Optuna compares is the same."""
        if (self.log, self.step, self.is_integer) != (other.log, other.step, other.is_integer):
            return False
        if canonical_json([self.choices, self.when]) != canonical_json([other.choices, other.when]):
            return False
        return bool(self.choices) or (self.has(other.low) and self.has(other.last))


Space = Mapping[str, Dimension]


def is_multiple(distance: Number, step: Number) -> bool:
    """Whether a distance is a whole number of steps, but for rounding."""
    n_steps = distance / step
    return abs(n_steps - round(n_steps)) < 1e-8  # as Optuna's FloatDistribution has it


def in_order(space: Space) -> list[str]:
    """The names of a space, sorted, but each after all that it depends on.

    Raises:
        ValueError: Parameters depend on one another in a circle.
    """
    ordered: list[str] = []
    left = sorted(space)
    while left:
        ready = [name for name in left if all(other in ordered for other in space[name].when)]
        if not ready:
            raise ValueError(f"{', '.join(left)} must not depend on one another in a circle")
        ordered += ready
        left = [name for name in left if name not in ready]
    return ordered


def is_there(dimension: Dimension, params: Params) -> bool:
    """Whether a parameter is there beside these others."""
    return all(
        name in params and canonical_json(params[name]) in {canonical_json(value) for value in values}
        for name, values in dimension.when.items()
    )


def drop_idle(space: Space, values: Params) -> Params:
    """A point without the parameters whose conditions do not hold, in the order of the space."""
    kept: dict[str, ParamValue] = {}
    for name in in_order(space):
        if is_there(space[name], kept):
            kept[name] = values[name]
    return {name: kept[name] for name in space if name in kept}


def point_at(space: Space, shares: Sequence[float], given: Params) -> Params:
    """The point at shares of a space.

    Args:
        shares: One for each name of the space, sorted, 0 <= share < 1.
        given: Values that are decided.
    """
    drawn = {name: space[name].at(float(share)) for name, share in zip(sorted(space), shares, strict=True)}
    return drop_idle(space, {**drawn, **given})


def smallest_point(space: Space) -> Params:
    """The point of the smallest numbers and the first choices."""
    return drop_idle(space, {name: _smallest(dimension.ends) for name, dimension in space.items()})


def points_of_each_choice(space: Space) -> list[Params]:
    """The smallest point, then points that differ from it by choices of strings and booleans: each is in one of them.

    What is there with some choice only is there beside it.
    """
    points = [smallest_point(space)]
    for name, dimension in space.items():
        for value in dimension.choices:
            if isinstance(value, bool | str) and value != _smallest(dimension.ends):
                points.append(point_with(space, {name: value}))
    return points


def point_with(space: Space, given: Params) -> Params:
    """The smallest point with some values, and with what these depend on, as far as they can be together."""
    smallest = {name: _smallest(dimension.ends) for name, dimension in space.items()}
    needed = {name: value for each in given for name, value in _needed_for(space, each).items()}
    return drop_idle(space, {**smallest, **needed, **given})


def _needed_for(space: Space, name: str) -> Params:
    """Values of other parameters with which one is there."""
    needed: dict[str, ParamValue] = {}
    for other, values in space[name].when.items():
        needed |= {**_needed_for(space, other), other: values[0]}
    return needed


def check_given(space: Space, given: Params) -> str | None:
    """What is wrong with values that are given to a search as a point to try; None if nothing is."""
    if unknown := sorted(given.keys() - space.keys()):
        return f"must name keys of [space], but {', '.join(unknown)} is none"
    for name, value in given.items():
        if not space[name].has(value):
            return f"must have a value of space.{name}, but has {value!r}"
        if not is_there(space[name], given):
            return f"must give {name} together with {describe_condition(space[name])}, on which it depends"
    return None


def describe_condition(dimension: Dimension) -> str:
    """Beside what a parameter is there: `act = "gelu", norm = "batch" or "layer"`."""
    return ", ".join(
        f"{name} = {' or '.join(json.dumps(value) for value in values)}" for name, values in dimension.when.items()
    )


def describe_dimension(dimension: Dimension) -> str:
    """In words: `32 to 512, step 32`, `0.0001 to 0.1, log`, `"relu", "gelu"`; with its condition."""
    if dimension.choices:
        said = ", ".join(json.dumps(choice) for choice in dimension.choices)
    else:
        said = f"{dimension.low} to {dimension.high}"
        said += ", log" if dimension.log else "" if dimension.step is None else f", step {dimension.step}"
    return f"{said}, with {describe_condition(dimension)}" if dimension.when else said


def _smallest(values: Collection[ParamValue]) -> ParamValue:
    numbers = [value for value in values if not isinstance(value, str)]
    return min(numbers) if numbers else next(iter(values))


def _place(share: float, n_places: int) -> int:
    """Which of some places of equal size a share falls into."""
    return min(int(share * n_places), n_places - 1)
