"""The values that a study file gives to parameters, one by one and as lists."""

import math

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
# Whose values are integers whatever an architecture declares.
INTEGERS = ("hidden_size", BATCH_SIZE, TRAINING_SEED, VALIDATION_FOLD)


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
    elif name == "learning_rate" and not (is_number and LEARNING_RATES[0] <= float(value) <= LEARNING_RATES[1]):
        rule = f"be from {LEARNING_RATES[0]:g} to {LEARNING_RATES[1]:g}"
    elif name == "dropout_rate" and not (is_number and 0 <= float(value) < 1):
        rule = "be at least 0 and less than 1"
    elif name in ("hidden_size", BATCH_SIZE) and not (is_number and float(value) >= 1 and float(value).is_integer()):
        rule = "be an integer of at least 1"
    elif name == TRAINING_SEED and not (is_number and float(value) >= 0 and float(value).is_integer()):
        rule = "be an integer of at least 0"
    if rule:
        raise ValueError(f"{rule_of or f'{name} must'} {rule}, but got {value!r}")
