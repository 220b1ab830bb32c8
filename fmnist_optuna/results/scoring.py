"""Scores stored weights on the test images, or takes their answers to others.

It imports TensorFlow, so it runs in a process of its own.

First the weights are scored on the validation images, as their training did in the end: the test set is opened only for
a model that still is the one that was recorded.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.ledger.openings import Scores
from fmnist_optuna.results.evaluation import StoredWeights
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.cell_training import build_recorded
from fmnist_optuna.training.engine import ValidationPass
from fmnist_optuna.training.measuring import Answers, measure
from fmnist_optuna.training.probabilities import average, predict_probabilities
from fmnist_optuna.training.weights import load_weights
from fmnist_optuna.work.environment import differences, read_environment
from fmnist_optuna.work.splits import DataPlace

# Images that another processor or version may answer otherwise, by rounding; in one environment there are none.
ROUNDING_SHARE = 3 / 10_000


def score_weights(spec: StudySpec, members: Sequence[StoredWeights], place: DataPlace) -> Scores:
    """Score weights on the test images of a study, and where it asks for that on their mirror images.

    Args:
        members: The weights, and what was recorded of them; the answers of several are averaged.
        place: Where the study's images are.

    Raises:
        MismatchError: The weights are damaged or altered, or do not score the recorded val_accuracy any more; or the
            data is not that of the study.
        DataError: The data is not there.
    """
    splits = place.load()
    answers, mirrored = [], []
    for stored in members:
        model = _load_scored(spec, stored, splits)
        answers.append(predict_probabilities(model, splits.test_images, splits.info))
        if spec.confirm.flip:
            mirrored.append(predict_probabilities(model, splits.test_images[:, :, ::-1], splits.info))
    scores = Scores(average(answers), splits.test_labels, average(mirrored) if mirrored else None)
    is_measured = not spec.metric.is_accuracy and len(members) == 1
    return _with_objective(scores, model, spec.metric, splits) if is_measured else scores


def _with_objective(scores: Scores, model: keras.Model, metric: Metric, splits: Splits) -> Scores:
    """The same with the study's metric of the one model that answered, and of its averaged answers."""
    objective, flipped = measure(model, splits.test_images, splits.test_labels, metric, splits.info), None
    if (averaged := scores.averaged) is not None:
        answers = Answers(model, splits.test_labels, splits.info)
        if answers.suffice(metric, scores.probabilities, objective):
            flipped = answers.measure(metric, averaged)
    return replace(scores, objective=objective, flip_objective=flipped)


def answer_images(spec: StudySpec, stored: StoredWeights, place: DataPlace, flip: bool) -> NDArray[np.float64]:
    """What a set of weights answers to training and validation images, in the order of the split.

    Args:
        spec: Of the study that the weights are of.
        flip: Whether each answer is the mean of those to an image and to its mirror image.

    Returns:
        Probabilities (n_train + n_validation, n_classes).

    Raises:
        MismatchError: As in `score_weights`.
        DataError: The data is not there.
    """
    splits = place.load()
    model, info = _load_scored(spec, stored, splits), splits.info
    parts = (splits.train_images, splits.validation_images)
    answers = np.concatenate([predict_probabilities(model, images, info) for images in parts]).astype(np.float64)
    if flip:
        answers += np.concatenate([predict_probabilities(model, images[:, :, ::-1], info) for images in parts])
        answers /= 2
    return answers


def load_stored(spec: StudySpec, info: DatasetInfo, stored: StoredWeights) -> keras.Model:
    """The model of a trial, with its stored weights.

    Raises:
        MismatchError: They are damaged or altered.
    """
    model = build_recorded(spec, info, stored.params, stored.seed)
    load_weights(model, stored.path, stored.sha256, stored.name)
    return model


def _load_scored(spec: StudySpec, stored: StoredWeights, splits: Splits) -> keras.Model:
    """The model with its stored weights, which score their recorded val_accuracy once more."""
    model = load_stored(spec, splits.info, stored)
    _check_val_accuracy(model, splits, stored, spec.model.architecture)
    return model


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
        f"{stored.val_accuracy:.2%} ({n_recorded:,} of {n_images:,} validation {splits.info.noun}s), but score "
        f"{found:.2%} ({n_hits:,}), so the test set stays closed; perhaps {causes}: bring back what the trial was "
        "trained with, or train the study again under another name."
    )
