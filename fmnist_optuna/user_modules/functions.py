"""Functions of the user's own, named in a study file as "package.module:function"."""

import contextlib
import importlib
from collections.abc import Callable, Iterator

from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import SpecError, is_ctrl_c
from fmnist_optuna.user_modules.execution import USER_MODULES
from fmnist_optuna.user_modules.search_path import check_name, describe_places
from fmnist_optuna.wording import end_sentence


def load_function(name: str, key: str) -> Callable[..., object]:
    """Import a function by "package.module:function".

    Args:
        key: Key of the study file that names it, for errors.

    Raises:
        SpecError: There is no such module or function, or the import fails.
    """
    module_name, _, function_name = name.partition(":")
    check_name(module_name, key)
    claim = f"{key} must name an importable module, but {module_name}:"
    with as_spec_error(claim, when="when it is imported"), USER_MODULES.watching():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):  # another, which the user's imports
                raise
            raise SpecError(
                f"{claim} there is no module {error.name} in {describe_places()}; set PYTHONPATH to its folder, if it "
                "lies elsewhere."
            ) from error
    USER_MODULES.add(module_name)
    function: object = getattr(module, function_name, None)
    if not callable(function):
        raise SpecError(f"{key} must name a function, but module {module_name} has no function {function_name}.")
    return function


@contextlib.contextmanager
def as_spec_error(claim: str, when: str = "") -> Iterator[None]:
    """Let whatever the user's code raises within this block, `sys.exit` included, be an error of the study file.

    Args:
        claim: What must hold, and the subject of what came: "key must return a model, but m:build raised".
        when: When the user's code runs, for one that ends the process then.

    Raises:
        SpecError: The block raised anything.
    """
    try:
        yield
    except SpecError:
        raise
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        advice = ""
        if isinstance(error, SystemExit) and when:
            advice = f' {when}; put that under `if __name__ == "__main__":`'
        raise SpecError(end_sentence(f"{claim} {describe_error(error)}{advice}")) from error
