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
    from fmnist_optuna.confirming import ConfirmedStudy
    from fmnist_optuna.data.dataset import Dataset, DatasetInfo
    from fmnist_optuna.errors import (
        ArtifactsAwayError,
        ArtifactsError,
        DataError,
        FmnistOptunaError,
        JoinRefusedError,
        LaterVersionError,
        MismatchError,
        NotFoundError,
        SpecError,
        StoppedError,
        StorageError,
        UnreadableStudyError,
        UsageError,
        WorkerFailedError,
    )
    from fmnist_optuna.export.folder import Export
    from fmnist_optuna.export.prediction import ExportedModel
    from fmnist_optuna.ledger.records import CellCounts, WorkerRow
    from fmnist_optuna.results.all_data import AllData
    from fmnist_optuna.results.confirmation import Candidate, Confirmation
    from fmnist_optuna.results.cross_validation import CrossValidation
    from fmnist_optuna.results.ensemble import Ensemble
    from fmnist_optuna.results.evaluation import ClassResult, Confusion, Evaluation
    from fmnist_optuna.results.seeds import Sample
    from fmnist_optuna.results.unsettled import Unsettled
    from fmnist_optuna.results.winner import Winner
    from fmnist_optuna.search.metric import Epoch, Metric
    from fmnist_optuna.spec.study_spec import StudySpec
    from fmnist_optuna.study.verification import Verification

__version__ = "0.1.0"
__all__ = [
    "AllData",
    "ArtifactsAwayError",
    "ArtifactsError",
    "Candidate",
    "CellCounts",
    "ClassResult",
    "Confirmation",
    "ConfirmedStudy",
    "Confusion",
    "CrossValidation",
    "DataError",
    "Dataset",
    "DatasetInfo",
    "Ensemble",
    "Epoch",
    "Evaluation",
    "Export",
    "ExportedModel",
    "FmnistOptunaError",
    "JoinRefusedError",
    "LadderPruner",
    "LaterVersionError",
    "Metric",
    "MismatchError",
    "NotFoundError",
    "Observer",
    "ProgressBar",
    "Sample",
    "SpecError",
    "StoppedError",
    "StorageError",
    "Study",
    "StudySpec",
    "UnreadableStudyError",
    "Unsettled",
    "UsageError",
    "Verification",
    "Winner",
    "WorkerFailedError",
    "WorkerRow",
    "confirm_study",
    "export_model",
    "load_exported",
    "open_study",
    "run_study",
]
_MODULES = {
    "AllData": "results.all_data",
    "Candidate": "results.confirmation",
    "CellCounts": "ledger.records",
    "ClassResult": "results.evaluation",
    "Confusion": "results.evaluation",
    "Confirmation": "results.confirmation",
    "ConfirmedStudy": "confirming",
    "ArtifactsAwayError": "errors",
    "ArtifactsError": "errors",
    "CrossValidation": "results.cross_validation",
    "DataError": "errors",
    "Dataset": "data.dataset",
    "DatasetInfo": "data.dataset",
    "Ensemble": "results.ensemble",
    "Epoch": "search.metric",
    "Evaluation": "results.evaluation",
    "Export": "export.folder",
    "ExportedModel": "export.prediction",
    "FmnistOptunaError": "errors",
    "JoinRefusedError": "errors",
    "LaterVersionError": "errors",
    "LadderPruner": "bridge.ladder",
    "Metric": "search.metric",
    "MismatchError": "errors",
    "NotFoundError": "errors",
    "Observer": "api.observer",
    "ProgressBar": "api.observer",
    "Sample": "results.seeds",
    "SpecError": "errors",
    "StoppedError": "errors",
    "StorageError": "errors",
    "Study": "api.study",
    "StudySpec": "spec.study_spec",
    "UnreadableStudyError": "errors",
    "Unsettled": "results.unsettled",
    "UsageError": "errors",
    "Verification": "study.verification",
    "Winner": "results.winner",
    "WorkerFailedError": "errors",
    "WorkerRow": "ledger.records",
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
