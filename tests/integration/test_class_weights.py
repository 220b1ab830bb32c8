"""Weights of classes and of images: what stock `fit` makes of them, and what options make of them together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from rehearsing import prepare_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import Options
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.training.cell_training import train_cell
from fmnist_optuna.training.engine import TrainingPass
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.user_code import UserCode

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

BATCH_SIZE, SEED = 32, 3
TOLERANCE = 1e-4  # of the largest weight: the same rules, rounded in another order over the steps of an epoch
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@pytest.fixture(scope="module")
def skewed(garments: Splits) -> ResidentData:
    """Of class 0 all of the first garments, of each further one fewer, of class 9 a tenth."""
    labels = garments.train_labels[:2_000]
    kept = np.random.default_rng(0).uniform(size=len(labels)) < 1 - labels / 10
    validation = garments.validation_images[:300], garments.validation_labels[:300]
    return ResidentData.from_arrays(FASHION_MNIST, garments.train_images[:2_000][kept], labels[kept], *validation)


def class_weights(labels: np.ndarray) -> dict[int, float]:
    """The formula of scikit-learn's `compute_class_weight("balanced")`."""
    return {label: len(labels) / (10 * count) for label, count in enumerate(np.bincount(labels, minlength=10))}


def make_net(loss: Any = "sparse_categorical_crossentropy") -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(12, activation="relu", kernel_regularizer="l2"),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.05), loss)
    return model


def run_by_keras(model: keras.Model, data: ResidentData, targets: np.ndarray, **weights: Any) -> float:
    """An epoch of stock `fit` over the same batches; returns its loss."""
    order = np.random.default_rng([SEED, 0]).permutation(len(data.train_labels))
    if (given := weights.pop("sample_weight", None)) is not None:
        weights["sample_weight"] = given[order]
    images = tf.gather(data.train_images, order)
    history = model.fit(images, targets[order], BATCH_SIZE, shuffle=False, verbose=0, **weights)
    return float(history.history["loss"][0])


def assert_same(ours: keras.Model, theirs: keras.Model) -> None:
    for found, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


def test_balanced_weights_are_class_weights_of_fit(skewed: ResidentData) -> None:
    """The weights after an epoch and its loss; the loss of the validation images counts all alike."""
    labels = skewed.train_labels.numpy()
    ours, theirs, plain = make_net(), make_net(), make_net()
    score = TrainingPass(ours, skewed.weighted("balanced"), BATCH_SIZE)(0, SEED)
    loss = run_by_keras(theirs, skewed, labels, class_weight=class_weights(labels))
    assert_same(ours, theirs)
    assert score.loss == pytest.approx(loss, rel=1e-5)
    assert TrainingPass(plain, skewed, BATCH_SIZE)(0, SEED).loss != pytest.approx(loss, rel=1e-2)
    weights = skewed.weighted("balanced").train_weights
    assert float(tf.reduce_mean(weights)) == pytest.approx(1.0)


def test_smoothed_labels_count_by_their_image(skewed: ResidentData) -> None:
    """As in Keras' own loss with smoothing, with sample_weight."""
    labels = skewed.train_labels.numpy()
    weighted = skewed.weighted("balanced")
    ours, theirs = make_net(), make_net(keras.losses.CategoricalCrossentropy(label_smoothing=0.2))
    TrainingPass(ours, weighted, BATCH_SIZE, Options(label_smoothing=0.2))(0, SEED)
    assert weighted.train_weights is not None
    weights = weighted.train_weights.numpy()
    run_by_keras(theirs, skewed, np.eye(10, dtype="f4")[labels], sample_weight=weights)
    assert_same(ours, theirs)


def test_a_teachers_answers_count_by_their_image(skewed: ResidentData) -> None:
    """The whole loss of an image does, in Keras' words too."""
    labels = skewed.train_labels.numpy()
    soft = np.random.default_rng(0).dirichlet(np.ones(10), len(labels)).astype(np.float32)
    weighted = skewed.with_soft_labels(soft).weighted("balanced")

    def loss(targets: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        logs, hard = tf.math.log(output), tf.one_hot(tf.cast(targets[:, 0], tf.int32), 10)
        return -tf.reduce_sum((0.4 * hard + 0.6 * targets[:, 1:]) * logs, axis=-1)

    ours, theirs = make_net(), make_net(loss)
    TrainingPass(ours, weighted, BATCH_SIZE, Options(teacher_weight=0.6, teacher_temperature=1.0))(0, SEED)
    targets = np.column_stack([labels, soft]).astype(np.float32)
    assert weighted.train_weights is not None
    run_by_keras(theirs, skewed, targets, sample_weight=weighted.train_weights.numpy())
    assert_same(ours, theirs)


def test_mixed_labels_count_by_the_images_they_are_from(skewed: ResidentData) -> None:
    """Each label's share of the loss is multiplied by the weight of the image that brought it."""
    weighted = skewed.weighted("balanced")
    model, before = make_net(), make_net()
    epochs = TrainingPass(model, weighted, 5_000, Options(mixup=0.5))
    loss = epochs(0, SEED).loss
    order = np.random.default_rng([SEED, 0]).permutation(len(skewed.train_labels))
    (share,) = epochs._step.draw(SEED, 0)["shares"]
    images = skewed.train_images.numpy()[order].astype("f4")
    assert weighted.train_weights is not None
    costs = np.eye(10)[skewed.train_labels.numpy()[order]] * weighted.train_weights.numpy()[order, None]
    images, costs = (share * each + (1 - share) * np.roll(each, -1, axis=0) for each in (images, costs))
    logs = np.log(before(np.rint(images).astype("u1")).numpy())
    decay = 0.01 * float((before.get_weights()[0] ** 2).sum())
    assert loss == pytest.approx(-(costs * logs).sum(axis=1).mean() + decay, rel=1e-3)


def test_weights_of_a_source_and_of_classes_are_not_mixed(skewed: ResidentData) -> None:
    """It says which keys."""
    given = replace(skewed, train_weights=tf.ones(len(skewed.train_labels)))
    assert given.weighted("none") is given
    with pytest.raises(SpecError, match=r'training.class_weight must be "none" where data.source gives weights'):
        given.weighted("balanced")


def test_a_cell_is_trained_with_the_weights_of_its_study(skewed: ResidentData) -> None:
    """The study file's key reaches the epochs, and makes another curve."""
    curves = []
    for class_weight in ("none", "balanced"):
        tables = {"training": {"class_weight": class_weight, "max_epochs": 1}, "grid": {"hidden_size": [4]}}
        model = {"dropout_rate": 0.0, "learning_rate": 0.01}
        code = UserCode(parse_spec({**tables, "model": model}, "test"), FASHION_MNIST)
        code.bind()
        curves.append(train_cell(code, {"hidden_size": 4}, 1, skewed, [])[1].epochs[0].train_loss)
    assert curves[0] != curves[1]


LOSSES = """
import keras

def net(kind: str) -> keras.Model:
    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return super().compute_loss(x, y, y_pred, None, training)

    class Short(keras.Sequential):
        def compute_loss(self, x, y, y_pred):
            return super().compute_loss(x, y, y_pred)

    layers = [keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255),
              keras.layers.Dense(10, activation="softmax")]
    model = {"own": Own, "short": Short}[kind](layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model
"""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("own", "The loss of a model must count images by sample_weight .*, but that of Own is the same for any"),
        ("short", r"compute_loss of the model must take sample_weight .* but that of Short takes \(x, y, y_pred\)"),
    ],
)
def test_a_loss_that_passes_over_weights_is_refused(
    make_module: Callable[[str, str], str], kind: str, words: str
) -> None:
    """Before the study begins; without weights it may."""
    make_module("weightless", LOSSES)
    tables: dict[str, Any] = {"model": {"architecture": "weightless:net"}, "grid": {"kind": [kind]}}
    tables["pruner"] = {"name": "none"}
    prepare_spec(parse_spec(tables, "test"))
    with pytest.raises(SpecError, match=words):
        prepare_spec(parse_spec({**tables, "training": {"class_weight": "balanced"}}, "test"))
