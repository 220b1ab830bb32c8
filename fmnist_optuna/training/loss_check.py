"""Whether the loss of a model is one of integer labels that a study can train by, tried on a few images."""

import math

import keras
import numpy as np
import tensorflow as tf

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.metric import VAL_LOSS
from fmnist_optuna.training.contract import has_own_loss
from fmnist_optuna.training.loss import bind_loss, check_mean
from fmnist_optuna.training.probabilities import gives_logits
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.step import adapt
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.user_modules.functions import as_spec_error

SURE = 0.91  # probability of one class in a made-up answer; the others share the rest evenly
MOST_ALIKE = 0.01  # relative: losses of two answers that differ by no more are one, but for rounding


def check_loss(model: keras.Model, code: UserCode, data: ResidentData) -> None:
    """Meaning of the loss and of the outputs, before anything is traced: here the words can be plain.

    Raises:
        SpecError: It is none of integer labels, not finite, or not what the study needs of it.
    """
    images, labels, info = data.validation_images, data.validation_labels, code.info
    adapt(model, data.train_images)
    name, compute_loss = code.architecture.name, bind_loss(model)
    output = model(images, training=False)
    with as_spec_error(f"model.architecture must have a loss, but {name} raised"):
        try:
            loss = float(compute_loss(images, labels, output, True))
        except Exception as error:
            if _wants_one_hot(model, images, tf.one_hot(labels, info.n_classes), output):
                raise SpecError(_one_hot_message(model, name, info)) from error
            raise
    if _takes_labels_for_numbers(model, info, output.dtype):
        raise SpecError(_one_hot_message(model, name, info))
    if not math.isfinite(loss):
        raise SpecError(
            f"model.architecture must have a finite loss before any training, but that of {name} is {loss} on images "
            f"of {info.value_range[0]:g} to {info.value_range[1]:g}."
        )
    if code.spec.metric == VAL_LOSS:
        check_mean(model, name, images, labels)
    if data.train_weights is not None:
        _check_weights_count(model, data)
    gives_logits(model, info)


def _check_weights_count(model: keras.Model, data: ResidentData) -> None:
    """Refuse a loss that is the same whatever an image counts, as that of a `compute_loss` may be.

    Where no image counts, a loss with weights is 0 and what is added to it, or no number. Weights that are larger alone
    would not show: a loss may be divided by their sum.
    """
    images, labels = data.train_images, data.train_labels
    compute_loss, output = bind_loss(model, has_weights=True), model(images, training=False)
    weights = tf.ones(len(labels)), tf.zeros(len(labels))
    counted, uncounted = (float(compute_loss(images, labels, output, True, each)) for each in weights)
    if counted == uncounted:
        raise SpecError(
            "The loss of a model must count images by sample_weight where they have weights (training.class_weight, or "
            f"those of data.source), but that of {type(model).__name__} is the same for any; multiply the losses by "
            "it, or leave the weights out."
        )


def _one_hot_message(model: keras.Model, name: str, info: DatasetInfo) -> str:
    loss = model.loss if isinstance(model.loss, str) else getattr(model.loss, "name", None) or "its own"
    return (
        f"model.architecture must have a loss for integer labels, but {name} has {loss}: labels are integers from 0 to "
        f"{info.n_classes - 1}, not one-hot: use sparse_categorical_crossentropy."
    )


def _wants_one_hot(model: keras.Model, images: tf.Tensor, one_hot: tf.Tensor, output: tf.Tensor) -> bool:
    """Whether the loss that failed on integers takes the same labels one-hot."""
    try:
        bind_loss(model)(images, one_hot, output, True)
    except Exception:
        return False
    return True


def _takes_labels_for_numbers(model: keras.Model, info: DatasetInfo, dtype: tf.DType) -> bool:
    """Whether a sure answer costs the same whichever class it is sure of, as with mean_squared_error.

    Such a loss broadcasts a label against all answers: it trains, to nothing. What one label costs beside another is of
    no account: the classes may have weights in the loss. Nor is what weights and layers add, which may be far more than
    the loss of the answers. A `compute_loss` of the model's own may look at more than these, so it is believed.
    """
    compiled = model._compile_loss
    if has_own_loss(model) or compiled is None:
        return False

    def cost(label: int, sure_of: int) -> float:
        answer = np.full((2, info.n_classes), (1 - SURE) / (info.n_classes - 1), np.float32)
        answer[:, sure_of] = SURE
        return float(compiled(tf.fill([2], tf.constant(label, tf.int32)), tf.cast(answer, dtype)))

    def tells(label: int, other: int) -> bool:
        right, wrong = cost(label, label), cost(label, other)
        return wrong - right > MOST_ALIKE * abs(wrong)

    return not any(tells(label, info.n_classes - 1 - label) for label in (0, info.n_classes - 1))


def check_kept_loss(trained: keras.Model, fresh: keras.Model, code: UserCode) -> None:
    """Refuse to compare cells by a loss that a training has changed: the weights that it keeps have nothing of that.

    Args:
        trained: Trained for a few steps.
        fresh: The same model before any training.

    Raises:
        SpecError: It is compared by the loss, of which a variable has changed.
    """
    if code.spec.metric != VAL_LOSS:
        return
    before = _variables_of_loss(fresh)
    for name, variable in _variables_of_loss(trained).items():
        if name in before and not np.array_equal(variable.numpy(), before[name].numpy()):
            raise SpecError(
                f"objective.metric must be of a loss that stays the same to be {VAL_LOSS.name}, but a training changes "
                f"{name} in that of {code.architecture.name}, which the weights that are kept do not have; let it be a "
                "weight of the model, or compare cells by another metric."
            )


def _variables_of_loss(model: keras.Model) -> dict[str, keras.Variable | tf.Variable]:
    """Those that the objects in `compile(loss=...)` have as attributes, by class and name."""
    return {
        f"{type(loss).__name__}.{name}": value
        for loss in keras.tree.flatten(model.loss)
        for name, value in getattr(loss, "__dict__", {}).items()
        if isinstance(value, keras.Variable | tf.Variable)
    }
