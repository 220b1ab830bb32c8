"""What a training computes in a step and in an epoch: losses, accuracies, statistics, updates of any optimizer."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_nets import evaluate, make_net, run

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.probabilities import predict_probabilities
from fmnist_optuna.training.resident_data import ResidentData

pytestmark = pytest.mark.usefixtures("one_thread")


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
