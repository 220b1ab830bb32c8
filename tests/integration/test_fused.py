"""FusedAdam and FusedSGD: the update rules of Keras' own, whatever options go through the base class."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fmnist_optuna.data.split import Splits
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.fused import FusedAdam, FusedSGD, fuse

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

N_STEPS = 100
BATCH_SIZE = 32
# Of the largest entry of each variable. The kernel and Keras round the same formula in another order, some 1e-7 a step,
# and the next gradients carry that on: measured up to 1.5e-5 within 100 steps. A wrong rule is off by 1e-2 and more.
TOLERANCE = 1e-4


def decay(step: Any) -> Any:
    return 0.003 * tf.pow(0.98, tf.cast(step, tf.float32))


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """As a person writes one: without get_config."""

    def __call__(self, step: Any) -> Any:
        return decay(step)


def dense_net(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """784-16-10 without dropout, the same weights each time."""
    keras.utils.set_random_seed(0)
    model = create_model(16, 0.0, 0.001)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    return model


def embedding_net(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Its gradients by the embedding are sparse."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            keras.layers.Flatten(),
            keras.layers.Embedding(256, 1),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    return model


def run_steps(model: keras.Model, garments: Splits, n_steps: int) -> list[tuple[str, np.ndarray]]:
    """Take real steps in a graph; every variable of model and optimizer, by name."""
    weights = model.trainable_variables
    model.optimizer.build(weights)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=labels, y_pred=model(images, training=True))
        model.optimizer.apply(tape.gradient(loss, weights), weights)

    for index in range(n_steps):
        rows = slice(index * BATCH_SIZE, (index + 1) * BATCH_SIZE)
        step(tf.constant(garments.train_images[rows]), tf.constant(garments.train_labels[rows].astype(np.int32)))
    return [(v.path, v.numpy()) for v in [*model.variables, *model.optimizer.variables]]


def assert_same_steps(
    make_net: Callable[[keras.optimizers.Optimizer], keras.Model],
    make_optimizer: Callable[[], keras.optimizers.Optimizer],
    garments: Splits,
    n_steps: int,
) -> None:
    stock, own = make_net(make_optimizer()), make_net(fuse(make_optimizer()))
    assert (
        type(own.optimizer) is {keras.optimizers.Adam: FusedAdam, keras.optimizers.SGD: FusedSGD}[type(stock.optimizer)]
    )
    for (path, expected), (_, found) in zip(
        run_steps(stock, garments, n_steps), run_steps(own, garments, n_steps), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max(), err_msg=path)


def test_hundred_steps_equal_keras_adam(garments: Splits) -> None:
    """After 100 steps on real gradients, weights, momenta, velocities and the step count are those of Keras' Adam."""
    assert_same_steps(dense_net, lambda: keras.optimizers.Adam(0.003), garments, N_STEPS)


@pytest.mark.parametrize(
    "options",
    [
        {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.003, 10, 0.8)},
        {"learning_rate": OwnSchedule()},
        {"weight_decay": 0.05},
        {"clipnorm": 0.05},
        {"clipvalue": 0.002},
        {"global_clipnorm": 0.05},
        {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7},
        {"gradient_accumulation_steps": 3},
        {"loss_scale_factor": 8.0},
    ],
    ids=["betas", "schedule", "own-schedule", "decay", "clipnorm", "clipvalue", "global", "ema", "accumulate", "scale"],
)
def test_options_of_the_base_class_pass_through(garments: Splits, options: dict[str, Any]) -> None:
    """Schedule, weight decay, clipping, moving average and accumulation act as with Keras' Adam."""
    assert_same_steps(dense_net, lambda: keras.optimizers.Adam(**{"learning_rate": 0.003, **options}), garments, 20)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": True},
        {"weight_decay": 0.05},
        {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7},
        {"gradient_accumulation_steps": 3, "clipnorm": 0.05},
        {"learning_rate": OwnSchedule()},
    ],
    ids=["plain", "nesterov", "decay", "ema", "accumulate", "schedule"],
)
def test_sgd_with_momentum_is_that_of_keras(garments: Splits, options: dict[str, Any]) -> None:
    """Weights, momenta and the step count, after 20 steps."""
    given = {"learning_rate": 0.03, "momentum": 0.9, **options}
    assert_same_steps(dense_net, lambda: keras.optimizers.SGD(**given), garments, 20)
    assert_same_steps(embedding_net, lambda: keras.optimizers.SGD(**given), garments, 3)


def test_sgd_without_momentum_stays_as_it_is() -> None:
    """It has no momentum for the kernel to keep."""
    assert type(fuse(keras.optimizers.SGD(0.1))) is keras.optimizers.SGD


def test_sparse_gradients_equal_keras_adam(garments: Splits) -> None:
    """An embedding's sparse gradients take Keras' own rule."""
    assert_same_steps(embedding_net, lambda: keras.optimizers.Adam(0.003), garments, 10)


def test_learning_rate_that_is_a_function_is_kept(garments: Splits) -> None:
    """A learning rate given as a lambda, which no configuration can hold, goes on being asked."""
    assert_same_steps(dense_net, lambda: keras.optimizers.Adam(lambda: 0.003), garments, 5)


def test_exclusions_from_weight_decay_are_kept(garments: Splits) -> None:
    """What exclude_from_weight_decay named is excluded in the fused optimizer too."""

    def make() -> keras.optimizers.Adam:
        adam = keras.optimizers.Adam(0.003, weight_decay=0.5)
        adam.exclude_from_weight_decay(var_names=["kernel"])
        return adam

    assert_same_steps(dense_net, make, garments, 5)


def test_fuse_keeps_the_configuration() -> None:
    """The fused optimizer has every option of the one given."""
    adam = keras.optimizers.Adam(0.007, beta_1=0.8, epsilon=1e-5, weight_decay=0.1, clipnorm=2.0, use_ema=True)
    before = adam.get_config()
    assert fuse(adam).get_config() == before


class OwnAdam(keras.optimizers.Adam):
    """A subclass, which may have another rule."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(amsgrad=True),
        OwnAdam,
        keras.optimizers.AdamW,
        keras.optimizers.Nadam,
        keras.optimizers.SGD,
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    ],
    ids=["amsgrad", "subclass", "AdamW", "Nadam", "SGD", "scaled"],
)
def test_other_optimizers_stay_as_they_are(make: Callable[[], keras.optimizers.Optimizer]) -> None:
    """Amsgrad, subclasses of Adam and every other optimizer run as given."""
    optimizer = make()
    kind = type(optimizer)
    assert fuse(optimizer) is optimizer
    assert type(optimizer) is kind
