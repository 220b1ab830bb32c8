"""What the commands about stored models answer as JSON: a reproduction, the answers for pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmnist_optuna.cli.answers import Answer

if TYPE_CHECKING:
    from fmnist_optuna.export.prediction import Prediction
    from fmnist_optuna.results.reproduction import Reproduction
    from fmnist_optuna.study.records import StudyRecord


def reproduction_answer(record: StudyRecord, reproduction: Reproduction) -> Answer:
    """`reproduce --json`."""
    return {
        "study": record.name,
        "trial": reproduction.trial,
        "params": reproduction.params,
        "seed": reproduction.seed,
        "matches": reproduction.matches,
        "epochs": len(reproduction.recorded),
        "first_difference": reproduction.first_difference,
        "weights_sha256": reproduction.recorded_sha256,
        "repeated_sha256": reproduction.repeated_sha256,
        "environment_differences": list(reproduction.environment_differences),
        "code_differences": list(reproduction.code_differences),
    }


def prediction_answer(prediction: Prediction, n_classes: int) -> Answer:
    """`predict --json`: the most likely classes of each picture, and the label of the first of them by itself."""
    return {
        "model": str(prediction.model),
        "synthetic": prediction.is_synthetic,
        "images": [
            {
                "file": answer.name,
                "label": answer.ranking[0][0],
                "probability": answer.ranking[0][1],
                "inverted": answer.is_inverted,
                "unclear_background": answer.is_mixed,
                "top": [{"label": label, "probability": p} for label, p in answer.ranking[:n_classes]],
            }
            for answer in prediction.answers
        ],
        "errors": [{"file": file, "error": error} for file, error in prediction.errors],
    }
