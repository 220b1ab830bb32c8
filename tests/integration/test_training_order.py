"""The order of the images in a training: each once an epoch, and the same from the same seed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_nets import LOSS, run

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.loop import TrainingResult
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.weights import hash_weights

pytestmark = pytest.mark.usefixtures("one_thread")


# Every image once


class Attendance(keras.layers.Layer):
    """Notes in training, inside the graph, which images came in which order and in which batches.

    An image's number stands in its first two pixels.
    """

    def build(self, _: Any) -> None:
        self.n_seen = tf.Variable(0, trainable=False, dtype=tf.int32)
        self.order = tf.Variable(tf.zeros([2_000], tf.int32), trainable=False)
        self.n_of_size = tf.Variable(tf.zeros([2_000], tf.int32), trainable=False)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training:
            pixels = tf.cast(images[:, 0, :2], tf.int32)
            numbers = pixels[:, 0] * 256 + pixels[:, 1]
            size = tf.shape(numbers)[0]
            self.order.scatter_update(tf.IndexedSlices(numbers, self.n_seen + tf.range(size)))
            self.n_of_size.scatter_add(tf.IndexedSlices(1, size))
            self.n_seen.assign_add(size)
        return images

    def epochs(self, n_images: int) -> list[list[int]]:
        """Numbers of the images in the order in which they came, one list an epoch."""
        orders: list[list[int]] = self.order.numpy()[: int(self.n_seen)].reshape(-1, n_images).tolist()
        return orders

    def batches(self) -> dict[int, int]:
        """Number of batches by size."""
        sizes = self.n_of_size.numpy()
        return {int(size): int(sizes[size]) for size in np.flatnonzero(sizes)}


def numbered_images(n_images: int) -> ResidentData:
    images = np.zeros((n_images, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(n_images), 256)
    labels = (np.arange(n_images) % 10).astype(np.uint8)
    return ResidentData.from_arrays(FASHION_MNIST, images, labels, images[:10], labels[:10])


def attend(n_images: int, batch_size: int, n_epochs: int) -> Attendance:
    attendance = Attendance()
    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            attendance,
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("sgd", LOSS)
    run(model, numbered_images(n_images), batch_size=batch_size, max_epochs=n_epochs)
    return attendance


@pytest.mark.parametrize(
    ("n_images", "batch_size", "batches"),
    [
        (300, 32, {32: 9, 12: 1}),
        (256, 32, {32: 8}),
        (300, 1000, {300: 1}),
        (7, 1, {1: 7}),
        (33, 32, {32: 1, 1: 1}),
    ],
    ids=["rest", "no-rest", "batch-larger-than-data", "single-images", "rest-of-one"],
)
def test_every_image_is_seen_once_an_epoch(n_images: int, batch_size: int, batches: dict[int, int]) -> None:
    """An epoch shows each training image exactly once, in full batches and one smaller rest."""
    attendance = attend(n_images, batch_size, n_epochs=1)
    (order,) = attendance.epochs(n_images)
    assert sorted(order) == list(range(n_images))
    assert attendance.batches() == batches


def test_every_epoch_has_an_order_of_its_own() -> None:
    """Each of three epochs shows all images, in three different orders, none of them that of the data."""
    orders = attend(300, 32, n_epochs=3).epochs(300)
    assert [sorted(order) for order in orders] == [list(range(300))] * 3
    assert len({tuple(order) for order in [*orders, list(range(300))]}) == 4


# Seeds


def run_seed(seed: int, data: ResidentData) -> tuple[TrainingResult, str]:
    """What a trial does with its seed: model and shuffles; the curve and the hash of the weights."""
    keras.utils.set_random_seed(seed)
    model = create_model(8, 0.3, 0.01)
    result = run(model, data, seed=seed)
    return result, hash_weights(model)


def curve(result: TrainingResult) -> list[tuple[float, ...]]:
    return [(e.train_loss, e.train_accuracy, e.val_loss, e.val_accuracy) for e in result.epochs]


def test_same_seed_same_run_bit_for_bit(few_garments: ResidentData) -> None:
    """A seed gives the same curve and weights, whatever was trained in the process before."""
    first = run_seed(1, few_garments)
    other = run_seed(2, few_garments)
    again = run_seed(1, few_garments)
    assert (curve(again[0]), again[1]) == (curve(first[0]), first[1])
    assert other[1] != first[1]
    assert curve(other[0]) != curve(first[0])


IN_ANOTHER_PROCESS = """
import json, sys
sys.path[:0] = sys.argv[1:]  # those of the tests
from conftest import N_TRAIN, N_VALIDATION
from fmnist_optuna.data.source import load_splits
from fmnist_optuna.training.engine import use_threads
from fmnist_optuna.training.resident_data import ResidentData
use_threads()
import test_training_order
g = load_splits("synthetic", 2_400, 0)
data = ResidentData.from_arrays(
    g.info,
    g.train_images[:N_TRAIN], g.train_labels[:N_TRAIN],
    g.validation_images[:N_VALIDATION], g.validation_labels[:N_VALIDATION])
result, sha256 = test_training_order.run_seed(1, data)
print(json.dumps([test_training_order.curve(result), sha256]))
"""


@pytest.mark.more
def test_same_seed_same_run_in_another_process(few_garments: ResidentData) -> None:
    """Another process on this machine gets the same curve and weights from the same seed."""
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(Path(__file__).parent), *sys.path]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    result, sha256 = run_seed(1, few_garments)
    assert json.loads(answer.splitlines()[-1]) == [[list(epoch) for epoch in curve(result)], sha256]


def test_seed_of_the_shuffles_counts(few_garments: ResidentData) -> None:
    """From the same weights, another seed of the shuffles is another run."""
    hashes = []
    for seed in (0, 1):
        keras.utils.set_random_seed(0)
        model = create_model(8, 0.0, 0.01)
        run(model, few_garments, seed=seed, max_epochs=1)
        hashes.append(hash_weights(model))
    assert hashes[0] != hashes[1]
