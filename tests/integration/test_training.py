"""The training engine: what one run does with images, seeds, callbacks, losses, and which weights it leaves."""

import gc
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from one_training import train

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.loop import TrainingResult
from fmnist_optuna.training.probabilities import predict_probabilities
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.weights import hash_weights

pytestmark = pytest.mark.usefixtures("one_thread")

LOSS = "sparse_categorical_crossentropy"


def make_net(
    *hidden: keras.layers.Layer,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: Any = LOSS,
    activation: str | None = "softmax",
) -> keras.Model:
    """784 - hidden layers - 10, from the same seed each time unless the layers bring their own."""
    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            keras.layers.Flatten(),
            keras.layers.Rescaling(1 / 255),
            *hidden,
            keras.layers.Dense(10, activation=activation),
        ]
    )
    model.compile(optimizer=optimizer or keras.optimizers.Adam(0.001), loss=loss)
    return model


def run(model: keras.Model, data: ResidentData, **options: Any) -> TrainingResult:
    return train(model, data, **{"batch_size": 32, "max_epochs": 3, "patience": 9, "seed": 0, **options})


def run_seed(seed: int, data: ResidentData) -> tuple[TrainingResult, str]:
    """What a trial does with its seed: model and shuffles; the curve and the hash of the weights."""
    keras.utils.set_random_seed(seed)
    model = create_model(8, 0.3, 0.01)
    result = run(model, data, seed=seed)
    return result, hash_weights(model)


def curve(result: TrainingResult) -> list[tuple[float, ...]]:
    return [(e.train_loss, e.train_accuracy, e.val_loss, e.val_accuracy) for e in result.epochs]


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
from fmnist_optuna.training.engine import use_one_thread
from fmnist_optuna.training.resident_data import ResidentData
use_one_thread()
import test_training
g = load_splits("synthetic", 2_400, 0)
data = ResidentData.from_arrays(
    g.info,
    g.train_images[:N_TRAIN], g.train_labels[:N_TRAIN],
    g.validation_images[:N_VALIDATION], g.validation_labels[:N_VALIDATION])
result, sha256 = test_training.run_seed(1, data)
print(json.dumps([test_training.curve(result), sha256]))
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


# What is measured


def test_epoch_equals_a_loop_by_hand(few_garments: ResidentData) -> None:
    """Losses and accuracies of an epoch are those of a plain Keras loop over the same batches, the rest included."""
    n_train = len(few_garments.train_labels)
    keras.utils.set_random_seed(0)
    model, by_hand = (create_model(8, 0.0, 0.001) for _ in range(2))
    by_hand.set_weights(model.get_weights())
    (epoch,) = run(model, few_garments, max_epochs=1, seed=5).epochs

    order = np.random.default_rng([5, 0]).permutation(n_train)
    loss_sum, n_hits = 0.0, 0
    for begin in range(0, n_train, 32):
        rows = order[begin : begin + 32]
        images, labels = tf.gather(few_garments.train_images, rows), tf.gather(few_garments.train_labels, rows)
        with tf.GradientTape() as tape:
            output = by_hand(images, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, output))
        by_hand.optimizer.apply(tape.gradient(loss, by_hand.trainable_variables), by_hand.trainable_variables)
        loss_sum += float(loss) * len(rows)
        n_hits += int(np.sum(np.argmax(output, axis=1) == labels.numpy()))
    assert epoch.train_accuracy == n_hits / n_train
    assert epoch.train_loss == pytest.approx(loss_sum / n_train, rel=1e-5)  # float32 sums in another order
    val_loss, val_accuracy = evaluate(by_hand, few_garments)
    assert epoch.val_loss == pytest.approx(val_loss, rel=1e-5)
    assert epoch.val_accuracy == val_accuracy


def evaluate(model: keras.Model, data: ResidentData) -> tuple[float, float]:
    """Validation loss and accuracy as stock Keras has them; the accuracy as the exact share of images."""
    model.compile(optimizer="sgd", loss=model.loss, metrics=["accuracy"])
    loss, accuracy = model.evaluate(data.validation_images, data.validation_labels, verbose=0)
    n_images = len(data.validation_labels)
    return loss, round(accuracy * n_images) / n_images  # Keras reports a float32


def test_regularisation_is_in_the_loss(few_garments: ResidentData) -> None:
    """A weight penalty counts in training and validation loss: here 100 x 784 x 4 x 0.001^2 over the entropy."""
    penalty = 100 * 784 * 4 * 0.001**2
    layer = keras.layers.Dense(
        4, kernel_regularizer=keras.regularizers.L2(100.0), kernel_initializer=keras.initializers.Constant(0.001)
    )
    keras.utils.set_random_seed(0)
    model = make_net(layer, optimizer=keras.optimizers.SGD(0.0))
    (epoch,) = run(model, few_garments, max_epochs=1).epochs
    for images, labels, loss in (
        (few_garments.train_images, few_garments.train_labels, epoch.train_loss),
        (few_garments.validation_images, few_garments.validation_labels, epoch.val_loss),
    ):
        probabilities = predict_probabilities(model, images.numpy(), FASHION_MNIST)
        entropy = float(np.mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities)))
        assert loss == pytest.approx(penalty + entropy, rel=1e-5)


def test_activity_penalty_is_in_the_loss_once(few_garments: ResidentData) -> None:
    """A penalty on activities is that of the batch alone: nothing is left over from an earlier batch or pass."""
    keras.utils.set_random_seed(0)
    layer = keras.layers.ActivityRegularization(l2=0.01)
    model = make_net(layer, optimizer=keras.optimizers.SGD(0.0))
    first, second = run(model, few_garments, max_epochs=2).epochs
    assert second.val_loss == first.val_loss
    assert first.val_loss == pytest.approx(evaluate_in_one_batch(model, few_garments), rel=1e-5)


def evaluate_in_one_batch(model: keras.Model, data: ResidentData) -> float:
    n_images = len(data.validation_labels)
    return float(model.evaluate(data.validation_images, data.validation_labels, batch_size=n_images, verbose=0))


def test_batch_normalisation_updates_its_moving_statistics(few_garments: ResidentData) -> None:
    """The moving mean after n batches of one distribution is m(1 - 0.5^n) of it, as validation then uses."""
    layer = keras.layers.BatchNormalization(momentum=0.5)
    model = make_net(layer, optimizer=keras.optimizers.SGD(0.0))
    run(model, few_garments, max_epochs=1, batch_size=2_000, seed=0)  # one batch: all images
    pixels = few_garments.train_images.numpy().reshape(-1, 784).astype(np.float64) / 255
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.5 * pixels.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.5 + 0.5 * pixels.var(axis=0), atol=1e-6)


# Models as users write them


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.AdamW(0.003),
        lambda: keras.optimizers.RMSprop(0.001),
        lambda: keras.optimizers.Adam(0.003, amsgrad=True),
        lambda: keras.optimizers.SGD(0.05, loss_scale_factor=8.0),
        lambda: keras.optimizers.SGD(0.05, clipnorm=0.01),
    ],
    ids=["SGD", "AdamW", "RMSprop", "amsgrad", "scaled", "clipped"],
)
def test_other_optimizers_run_as_given(
    few_garments: ResidentData, make_optimizer: Callable[[], keras.optimizers.Optimizer]
) -> None:
    """One full-batch step of any optimizer moves the weights as its own apply does."""
    keras.utils.set_random_seed(0)
    model, by_hand = (make_net(optimizer=make_optimizer()) for _ in range(2))
    by_hand.set_weights(model.get_weights())
    run(model, few_garments, max_epochs=1, batch_size=2_000)
    with tf.GradientTape() as tape:
        output = by_hand(few_garments.train_images, training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(few_garments.train_labels, output))
        loss = by_hand.optimizer.scale_loss(loss)
    by_hand.optimizer.apply(tape.gradient(loss, by_hand.trainable_variables), by_hand.trainable_variables)
    for found, expected in zip(model.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_model_with_logits_trains(few_garments: ResidentData) -> None:
    """A model whose output is logits trains, and its accuracy is that of Keras."""
    keras.utils.set_random_seed(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = make_net(loss=loss, activation=None)
    result = run(model, few_garments)
    assert result.epochs[2].train_loss < result.epochs[0].train_loss
    assert result.val_accuracy == evaluate(model, few_garments)[1]


# Which weights are kept, and when it stops


class SetOutput(keras.callbacks.Callback):
    """Makes the next epoch's val_accuracy known beforehand: answers the given class whatever the image."""

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        self.classes = classes

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        kernel, bias = self.model.layers[-1].get_weights()
        self.model.layers[-1].set_weights([kernel * 0, np.eye(10, dtype=bias.dtype)[self.classes[epoch]]])


@pytest.fixture(scope="module")
def skewed_labels() -> ResidentData:
    """Of the ten validation images none has label 0, one has 1, two have 2, three have 3, four have 4."""
    labels = np.repeat(np.arange(5), np.arange(5)).astype(np.uint8)
    images = np.zeros((10, 28, 28), np.uint8)
    return ResidentData.from_arrays(FASHION_MNIST, images, labels, images, labels)


def run_answers(
    classes: Sequence[int], data: ResidentData, patience: int, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> tuple[TrainingResult, keras.Model]:
    """A run whose val_accuracy is classes[epoch] / 10."""
    model = make_net(optimizer=keras.optimizers.SGD(0.0))
    callbacks = [SetOutput(classes), *callbacks]
    return run(model, data, max_epochs=len(classes), patience=patience, callbacks=callbacks), model


@pytest.mark.parametrize(
    ("classes", "patience", "n_epochs", "best_epoch"),
    [
        ((1, 3, 2, 2, 2, 4), 2, 4, 1),
        ((1, 3, 2, 2, 2, 4), 3, 5, 1),
        ((1, 3, 2, 2, 2, 4), 4, 6, 5),
        ((3, 3, 3, 3), 2, 3, 0),
        ((3, 2, 4), 1, 2, 0),
        ((0, 0, 1), 5, 3, 2),
        ((4,), 1, 1, 0),
    ],
    ids=["stops", "one-more", "reaches-better", "equal-is-no-better", "patience-1", "from-zero", "one-epoch"],
)
def test_early_stopping(
    skewed_labels: ResidentData, classes: Sequence[int], patience: int, n_epochs: int, best_epoch: int
) -> None:
    """It ends after `patience` epochs without a better val_accuracy and keeps the weights of the first best epoch."""
    result, model = run_answers(classes, skewed_labels, patience)
    assert [epoch.val_accuracy for epoch in result.epochs] == [c / 10 for c in classes[:n_epochs]]
    assert [epoch.epoch for epoch in result.epochs] == list(range(n_epochs))
    assert (result.best_epoch, result.val_accuracy) == (best_epoch, classes[best_epoch] / 10)
    assert int(np.argmax(model.layers[-1].get_weights()[1])) == classes[best_epoch]
    assert not result.is_diverged


def test_val_accuracy_is_that_of_the_weights_kept(few_garments: ResidentData) -> None:
    """Stock Keras gives the kept weights exactly the val_accuracy that the result states, and so does the engine."""
    keras.utils.set_random_seed(3)
    model = create_model(16, 0.2, 0.03)
    result = run(model, few_garments, max_epochs=12, patience=3)
    assert result.val_accuracy == max(epoch.val_accuracy for epoch in result.epochs)
    assert result.best_epoch < len(result.epochs) - 1  # the seed is one whose last epoch is not its best
    assert evaluate(model, few_garments)[1] == result.val_accuracy
    answers = predict_probabilities(model, few_garments.validation_images.numpy(), FASHION_MNIST).argmax(axis=1)
    assert float(np.mean(answers == few_garments.validation_labels.numpy())) == result.val_accuracy


def test_stop_training_ends_the_run_after_the_epoch(skewed_labels: ResidentData) -> None:
    """`model.stop_training = True` in a callback ends the run; the best weights so far are kept all the same."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    result, model = run_answers((3, 1, 4), skewed_labels, 5, [Stop()])
    assert [epoch.val_accuracy for epoch in result.epochs] == [0.3, 0.1]
    assert result.best_epoch == 0
    assert int(np.argmax(model.layers[-1].get_weights()[1])) == 3


# Callbacks


class Recorder(keras.callbacks.Callback):
    """Notes every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int | None, dict[str, float]]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append(("train_begin", None, dict(logs or {})))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch_begin", epoch, dict(logs or {})))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch_end", epoch, dict(logs or {})))

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append(("train_end", None, dict(logs or {})))


def test_callbacks_are_called_as_in_fit(few_garments: ResidentData) -> None:
    """Callbacks get Keras' hooks in Keras' order, Keras' names in the logs, and epochs, steps and model."""
    recorder = Recorder()
    model = make_net()
    result = run(model, few_garments, max_epochs=2, callbacks=[recorder])
    names = [(name, epoch) for name, epoch, _ in recorder.calls]
    hooks = [(name, epoch) for epoch in (0, 1) for name in ("epoch_begin", "epoch_end")]
    assert names == [("train_begin", None), *hooks, ("train_end", None)]
    last = result.epochs[1]
    logs = {"loss": last.train_loss, "accuracy": last.train_accuracy}
    logs |= {"val_loss": last.val_loss, "val_accuracy": last.val_accuracy}
    assert recorder.calls[4][2] == recorder.calls[5][2] == logs
    assert recorder.params["epochs"] == 2
    assert recorder.params["steps"] == math.ceil(len(few_garments.train_labels) / 32)
    assert recorder.model is model


def largest_step(model: keras.Model, data: ResidentData, callbacks: Sequence[keras.callbacks.Callback]) -> list[float]:
    """Largest change of a weight in each epoch of one full batch: at first exactly the learning rate, with Adam."""
    before = [np.concatenate([w.ravel() for w in model.get_weights()])]
    steps: list[float] = []

    def measure(epoch: int, logs: Any = None) -> None:
        now = np.concatenate([w.ravel() for w in model.get_weights()])
        steps.append(float(np.abs(now - before[0]).max()))
        before[0] = now

    measured = [*callbacks, keras.callbacks.LambdaCallback(on_epoch_end=measure)]
    run(model, data, max_epochs=4, batch_size=2_000, callbacks=measured)
    return steps


def test_learning_rate_scheduler_acts_in_the_graph(few_garments: ResidentData) -> None:
    """The rate that LearningRateScheduler sets is the one that the compiled epoch uses: 0 stands still."""
    rates = [0.001, 0.0, 0.002, 0.0]
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, _: rates[epoch])
    steps = largest_step(make_net(), few_garments, [scheduler])
    assert steps[0] == pytest.approx(0.001, rel=1e-2)  # Adam's first step is the rate, epsilon aside
    assert (steps[1], steps[3]) == (0.0, 0.0)
    assert steps[2] > 0.001


def test_reduce_on_plateau_acts_in_the_graph(few_garments: ResidentData) -> None:
    """The rate that ReduceLROnPlateau lowers is the one that the compiled epoch uses."""
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss", patience=1, factor=1e-6, min_delta=1e9, min_lr=0.0, cooldown=0
    )
    model = make_net()
    steps = largest_step(model, few_garments, [plateau])
    assert steps[0] == pytest.approx(0.001, rel=1e-2)
    assert max(steps[2:]) < 1e-8  # lowered after the second epoch, as no loss falls by 1e9
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(1e-3 * 1e-6**3, rel=1e-3)


# Divergence


class Poison(keras.layers.Layer):
    """Gives NaN in training, or in validation."""

    def __init__(self, in_training: bool) -> None:
        super().__init__()
        self.in_training = in_training

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return inputs * (math.nan if training == self.in_training else 1.0)


@pytest.mark.parametrize("in_training", [True, False], ids=["training", "validation"])
def test_loss_that_is_no_number_ends_as_diverged(few_garments: ResidentData, in_training: bool) -> None:
    """A NaN in the training or the validation loss ends the run after that epoch, callbacks told."""
    recorder = Recorder()
    model = make_net(Poison(in_training))
    result = run(model, few_garments, callbacks=[recorder])
    assert result.is_diverged
    assert len(result.epochs) == 1
    loss = result.epochs[0].train_loss if in_training else result.epochs[0].val_loss
    assert math.isnan(loss)
    assert recorder.calls[-1][0] == "train_end"


def test_learning_rate_beyond_all_bounds_ends_as_diverged(few_garments: ResidentData) -> None:
    """An exploding run of the dense net is seen as diverged in its first epoch."""
    result = run(create_model(8, 0.2, 1e30), few_garments)
    assert result.is_diverged
    assert len(result.epochs) == 1


class PoisonAtTheEnd(keras.callbacks.Callback):
    """Puts what is no number into a weight after the last epoch, whose losses are finite."""

    def on_train_end(self, logs: Any = None) -> None:
        kernel = self.model.trainable_weights[0]
        kernel.assign(np.full(kernel.shape, np.nan))


def test_weights_that_are_no_numbers_end_as_diverged(few_garments: ResidentData) -> None:
    """Also where every loss was finite: some processors let relu hide a NaN."""
    result = run(create_model(8, 0.0, 0.01), few_garments, callbacks=[PoisonAtTheEnd()])
    assert all(epoch.is_finite for epoch in result.epochs)
    assert result.is_diverged


def test_finite_run_is_not_diverged(few_garments: ResidentData) -> None:
    """A learning rate that is merely far too high is a poor run, not a diverged one."""
    result = run(create_model(8, 0.0, 10.0), few_garments)
    assert not result.is_diverged
    assert len(result.epochs) == 3


# Memory


def n_graphs() -> int:
    gc.collect()
    return sum(type(thing).__name__.endswith("FuncGraph") for thing in gc.get_objects())


@pytest.mark.more
def test_training_leaves_no_graph_behind(few_garments: ResidentData) -> None:
    """After a training with Adam its graphs are gone with the model, so a worker does not grow from trial to trial."""
    before = n_graphs()
    run(create_model(8, 0.2, 0.001), few_garments)
    keras.backend.clear_session()
    assert n_graphs() == before
