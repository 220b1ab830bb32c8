"""The values that a study file gives to parameters, one by one and as lists, and those that architectures have."""

import math
from collections.abc import Callable, Mapping, Sequence

from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr

from fmnist_optuna.search.cell import (
    BATCH_SIZE,
    LEARNING_RATES,
    MAX_FLOAT,
    MAX_INTEGER,
    TRAINING_SEED,
    VALIDATION_FOLD,
    canonical_json,
)

Value = StrictBool | StrictInt | StrictFloat | StrictStr
Rule = tuple[str, Callable[[float], bool]]  # what follows "must", and whether a number is so
# Whose values are integers whatever an architecture declares.
INTEGERS = ("hidden_size", BATCH_SIZE, TRAINING_SEED, VALIDATION_FOLD)

COUNT: Rule = ("be an integer of at least 1", lambda number: number >= 1 and number.is_integer())
COUNT_OR_NONE: Rule = ("be an integer of at least 0", lambda number: number >= 0 and number.is_integer())
SHARE: Rule = ("be at least 0 and less than 1", lambda number: 0 <= number < 1)
# Of parameters of these names, whatever architecture has them.
RULES: Mapping[str, Rule] = {
    "learning_rate": (
        f"be from {LEARNING_RATES[0]:g} to {LEARNING_RATES[1]:g}",
        lambda number: LEARNING_RATES[0] <= number <= LEARNING_RATES[1],
    ),
    "dropout_rate": SHARE,
    "hidden_size": COUNT,
    BATCH_SIZE: COUNT,
    TRAINING_SEED: COUNT_OR_NONE,
}
# Of the built-in architectures' other numbers; one of the user's own may mean something else by these names.
RULES_OF_BUILT_IN: Mapping[str, Mapping[str, Rule]] = {
    "dense": {"n_hidden_layers": COUNT_OR_NONE, "input_dropout": SHARE},
    "conv": {
        **dict.fromkeys(("width_1", "width_2", "width_3"), COUNT),
        "logit_scale": ("be above 0", lambda number: number > 0),
    },
    "resnet": {"width": COUNT, "n_blocks": COUNT},
}


def check_values(name: str, values: tuple[Value, ...]) -> None:
    """Check a list of values.

    Raises:
        ValueError: Begins with the name.
    """
    if not values:
        raise ValueError(f"{name} must have at least one value, but is empty")
    if len({type(value) if isinstance(value, bool | str) else float for value in values}) > 1:
        raise ValueError(f"{name} must be all numbers, all strings or all true / false, but is {list(values)}")
    seen: set[str] = set()
    for value in values:
        check_value(name, value)
        if isinstance(value, str) and not value.isprintable():  # which would steer the terminal of whoever looks
            raise ValueError(f"{name} must be text that can be printed in one line, but got {value!r}")
        identity = canonical_json(value)
        if identity in seen:
            raise ValueError(f"{name} must have distinct values, but {value!r} is there twice")
        seen.add(identity)


def check_value(name: str, value: Value, rule_of: str = "") -> None:
    """Check one value.

    Args:
        rule_of: What the error begins with, before the rule; by default "NAME must".

    Raises:
        ValueError: Begins with the name.
    """
    rule: str | None = None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, float) and not math.isfinite(value):
        rule = "be finite"
    elif is_number and isinstance(value, int) and abs(value) > MAX_INTEGER:
        rule = "be at most 2**53 in size"
    elif is_number and abs(float(value)) > MAX_FLOAT:
        rule = f"be at most {MAX_FLOAT:g} in size"
    else:
        rule = _find_broken(RULES, name, value)
    if rule:
        raise ValueError(f"{rule_of or f'{name} must'} {rule}, but got {value!r}")


def check_arguments(
    architecture: str, fixed: Mapping[str, Value], searched: str, axes: Mapping[str, Sequence[Value]]
) -> None:
    """Check the values that a study fixes, and what a built-in architecture asks of these and of those searched.

    Args:
        searched: Table with the values that are searched, which were checked by themselves.
        axes: These values, or the ends of their ranges.

    Raises:
        ValueError: Begins with table and name.
    """
    for name, value in fixed.items():
        check_value(name, value, f"model.{name} must")
    rules = RULES_OF_BUILT_IN.get(architecture, {})
    for place, given in (("model", {name: (value,) for name, value in fixed.items()}), (searched, axes)):
        for name, value in ((name, value) for name, values in given.items() for value in values):
            if rule := _find_broken(rules, name, value):
                raise ValueError(f"{place}.{name} must {rule}, but got {value!r}")


def _find_broken(rules: Mapping[str, Rule], name: str, value: Value) -> str | None:
    """The rule of this name that a value breaks, as what follows "must"; None where there is none."""
    if name not in rules:
        return None
    rule, holds = rules[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number and holds(float(value)) else rule
