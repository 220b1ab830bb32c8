"""Hyperparameter studies for Keras models: every cell of the grid exactly one result, and one honest winner.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fmnist_optuna.api import (
        Observer,
        ProgressBar,
        Study,
        confirm_study,
        export_model,
        load_exported,
        open_study,
        run_study,
    )
    from fmnist_optuna.errors import FmnistOptunaError
    from fmnist_optuna.spec.study_spec import StudySpec

__version__ = "0.1.0"
__all__ = [
    "FmnistOptunaError",
    "Observer",
    "ProgressBar",
    "Study",
    "StudySpec",
    "confirm_study",
    "export_model",
    "load_exported",
    "open_study",
    "run_study",
]
_ELSEWHERE = {"FmnistOptunaError": "fmnist_optuna.errors", "StudySpec": "fmnist_optuna.spec.study_spec"}


def __getattr__(name: str) -> object:
    """A public name, from its module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "fmnist_optuna.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
