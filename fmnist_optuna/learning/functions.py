"""Functions of the user's own, named in a study file as "package.module:function"."""

import importlib
import typing
from collections.abc import Callable
from typing import Any

from fmnist_optuna.errors import SpecError
from fmnist_optuna.learning.user_modules import USER_MODULES
from fmnist_optuna.wording import describe_error


def load_function(name: str, key: str) -> Callable[..., Any]:
    """Import a function by "package.module:function".

    Args:
        key: Key of the study file that names it, for errors.

    Raises:
        SpecError: There is no such module or function, or the import fails.
    """
    module_name, _, function_name = name.partition(":")
    try:
        with USER_MODULES.watching():
            module = importlib.import_module(module_name)
    except Exception as error:
        raise SpecError(f"{key} must name an importable module, but {module_name}: {describe_error(error)}.") from error
    USER_MODULES.add(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SpecError(f"{key} must name a function, but module {module_name} has no function {function_name}.")
    return typing.cast(Callable[..., Any], function)
