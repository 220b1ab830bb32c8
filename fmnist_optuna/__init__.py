"""Hyperparameter studies for Keras models: every cell of the grid exactly one result, and one honest winner.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fmnist_optuna.api.models import export_model, load_exported
    from fmnist_optuna.api.observer import Observer, ProgressBar
    from fmnist_optuna.api.study import Study, open_study
    from fmnist_optuna.api.training import confirm_study, run_study
    from fmnist_optuna.bridge.ladder import LadderPruner
    from fmnist_optuna.data.dataset import Dataset, DatasetInfo
    from fmnist_optuna.errors import FmnistOptunaError
    from fmnist_optuna.spec.study_spec import StudySpec

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "DatasetInfo",
    "FmnistOptunaError",
    "LadderPruner",
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
_MODULES = {
    "Dataset": "data.dataset",
    "DatasetInfo": "data.dataset",
    "FmnistOptunaError": "errors",
    "LadderPruner": "bridge.ladder",
    "Observer": "api.observer",
    "ProgressBar": "api.observer",
    "Study": "api.study",
    "StudySpec": "spec.study_spec",
    "confirm_study": "api.training",
    "export_model": "api.models",
    "load_exported": "api.models",
    "open_study": "api.study",
    "run_study": "api.training",
}


def __getattr__(name: str) -> object:
    """A public name, from its module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
