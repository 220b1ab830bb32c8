"""Scores stored weights on the test images. Imports TensorFlow, so it runs in a process of its own.

First the weights are scored on the validation images, as their training did in the end: the test set is opened only for
a model that still is the one that was recorded.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.ledger.openings import Scores
from fmnist_optuna.results.evaluation import StoredWeights
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.cell_training import build_recorded
from fmnist_optuna.training.engine import ValidationPass
from fmnist_optuna.training.probabilities import predict_probabilities
from fmnist_optuna.training.weights import load_weights
from fmnist_optuna.work.environment import differences, read_environment
from fmnist_optuna.work.splits import DataPlace

# Images that another processor or version may answer otherwise, by rounding; in one environment there are none.
ROUNDING_SHARE = 3 / 10_000


def score_weights(spec: StudySpec, stored: StoredWeights, place: DataPlace) -> Scores:
    """Score one set of weights on the test images of a study, and where it asks for that on their mirror images.

    Args:
        stored: The weights, and what was recorded of them.
        place: Where the study's images are.

    Raises:
        MismatchError: The weights are damaged or altered, or do not score the recorded val_accuracy any more; or the
            data is not that of the study.
        DataError: The data is not there.
    """
    splits = place.load()
    model = build_recorded(spec, splits.info, stored.params, stored.seed)
    load_weights(model, stored.path, stored.sha256)
    _check_val_accuracy(model, splits, stored, spec.model.architecture)
    images, info = splits.test_images, splits.info
    mirrored = predict_probabilities(model, images[:, :, ::-1], info) if spec.confirm.flip else None
    return Scores(predict_probabilities(model, images, info), splits.test_labels, mirrored)


def _check_val_accuracy(model: keras.Model, splits: Splits, stored: StoredWeights, architecture: str) -> None:
    labels = splits.validation_labels.astype(np.int32)
    found = ValidationPass(model, tf.constant(splits.validation_images), tf.constant(labels))().accuracy
    n_images = len(splits.validation_labels)
    n_hits, n_recorded = round(found * n_images), round(stored.val_accuracy * n_images)
    environment = read_environment()
    changes = differences(stored.environment, environment) if stored.environment else ["nothing was recorded of it"]
    is_same = all(change.startswith("git:") for change in changes)  # a revision says nothing of the arithmetic
    if abs(n_hits - n_recorded) <= (0 if is_same else math.ceil(n_images * ROUNDING_SHARE)):
        return
    causes = f"the code of {architecture} was edited since"
    if changes:
        causes += f", or the environment is another ({'; '.join(changes)})"
    raise MismatchError(
        f"The stored weights of trial {stored.trial} must score their recorded val_accuracy, "
        f"{stored.val_accuracy:.2%} ({n_recorded:,} of {n_images:,} validation images), but score {found:.2%} "
        f"({n_hits:,}), so the test set stays closed; perhaps {causes}: bring back what the trial was trained with, "
        "or train the study again under another name."
    )
