"""Numbers that a caller gives: what they must be, said in one line that names the argument."""

from numbers import Integral, Real

from fmnist_optuna.errors import UsageError


def check_count(name: str, value: int | None, least: int) -> None:
    """Let a count be an integer that is large enough, or None for its default.

    Raises:
        UsageError: It is neither.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < least):
        raise UsageError(f"{name} must be an integer, at least {least}, but is {value!r}.")


def check_limit(name: str, value: float | None) -> None:
    """Let a limit be greater than 0, or None for no limit.

    Raises:
        UsageError: It is neither.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or not value > 0):
        raise UsageError(f"{name} must be a number greater than 0, but is {value!r}.")
