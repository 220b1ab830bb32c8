"""Options of a training, each beside Keras' own of the same name or beside its rule in NumPy."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from one_training import BATCH_SIZE, SEED, are_equal, make_net, train

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import Options
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.training.cell_training import train_cell
from fmnist_optuna.training.engine import TrainingPass
from fmnist_optuna.training.loop import Training
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.schedule import learning_rates
from fmnist_optuna.training.user_code import UserCode

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

TOLERANCE = 1e-4  # of the largest weight: the same rules, rounded in another order over the steps of an epoch


def run(model: keras.Model, data: ResidentData, n_epochs: int = 1, max_epochs: int = 1, **options: Any) -> keras.Model:
    """Epochs of the engine."""
    epochs = TrainingPass(model, data, BATCH_SIZE, Options.model_validate(options), max_epochs)
    for epoch in range(n_epochs):
        epochs(epoch, SEED)
    return model


def run_by_keras(model: keras.Model, data: ResidentData, one_hot: bool = False) -> keras.Model:
    """The same epoch, by Keras' own steps."""
    n_images = int(data.train_images.shape[0])
    order = np.random.default_rng([SEED, 0]).permutation(n_images)
    for begin in range(0, n_images, BATCH_SIZE):
        rows = order[begin : begin + BATCH_SIZE]
        images, labels = tf.gather(data.train_images, rows), tf.gather(data.train_labels, rows)
        model.train_on_batch(images, tf.one_hot(labels, 10) if one_hot else labels)
    return model


def assert_same_weights(found: keras.Model, expected: keras.Model) -> None:
    for weight, other in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, rtol=0, atol=TOLERANCE * max(1.0, np.abs(other).max()))


@pytest.mark.parametrize("head", ["softmax", None])
def test_smoothed_labels_are_those_of_keras(few_garments: ResidentData, head: str | None) -> None:
    """Integer labels here, one-hot ones with CategoricalCrossentropy(label_smoothing) there; the same weights."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=head is None)
    ours = run(make_net(loss=loss, head=head), few_garments, label_smoothing=0.1)
    smooth = keras.losses.CategoricalCrossentropy(from_logits=head is None, label_smoothing=0.1)
    assert_same_weights(ours, run_by_keras(make_net(loss=smooth, head=head), few_garments, one_hot=True))


def test_smoothing_leaves_the_validation_loss(few_garments: ResidentData) -> None:
    """It is of the training alone: the loss of the validation images stays the plain cross-entropy."""
    model = make_net()
    options = Options(label_smoothing=0.3)
    result = train(model, few_garments, batch_size=BATCH_SIZE, max_epochs=1, patience=1, seed=SEED, options=options)
    answers = model(few_garments.validation_images, training=False)
    plain = keras.losses.sparse_categorical_crossentropy(few_garments.validation_labels, answers)
    assert result.epochs[0].val_loss == pytest.approx(float(tf.reduce_mean(plain)), rel=1e-4)
    assert result.epochs[0].train_loss > result.epochs[0].val_loss


def test_decay_is_keras_own_but_for_vectors(few_garments: ResidentData) -> None:
    """Decoupled, of the two kernels; biases and what batch normalisation scales by stay out."""
    adam = keras.optimizers.Adam(0.001, weight_decay=1.0)
    adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    ours = run(make_net(keras.optimizers.Adam(0.001)), few_garments, weight_decay=1.0)
    plain = run(make_net(keras.optimizers.Adam(0.001)), few_garments)
    assert_same_weights(ours, run_by_keras(make_net(adam), few_garments))
    assert np.abs(ours.get_weights()[0]).sum() < 0.99 * np.abs(plain.get_weights()[0]).sum()


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_takes_the_compiled_rate(few_garments: ResidentData, momentum: float) -> None:
    """With Nesterov's momentum; the architecture's optimizer gives its learning rate."""
    ours = run(make_net(keras.optimizers.Adam(0.02)), few_garments, optimizer="sgd", momentum=momentum)
    assert type(ours.optimizer) is keras.optimizers.SGD
    stock = keras.optimizers.SGD(0.02, momentum=momentum, nesterov=momentum > 0)
    assert_same_weights(ours, run_by_keras(make_net(stock), few_garments))


class Scheduled(keras.optimizers.schedules.LearningRateSchedule):
    """The rates of a whole training, by its steps."""

    def __init__(self, rates: Any) -> None:
        self._rates = tf.constant(np.asarray(rates, np.float32))

    def __call__(self, step: Any) -> Any:
        return self._rates[tf.cast(step, tf.int32)]


@pytest.mark.parametrize("name", ["cosine", "one-cycle"])
def test_every_step_has_the_rate_of_its_schedule(few_garments: ResidentData, name: str) -> None:
    """The same weights as with an optimizer of Keras' that is given the rates as its own schedule."""
    given: dict[str, Any] = {"schedule": name, "warmup_epochs": 0.25, "learning_rate_floor": 0.01}
    rates = 0.003 * learning_rates(Options.model_validate(given), 0, 32, 1)
    ours = run(make_net(keras.optimizers.Adam(0.003)), few_garments, **given)
    assert_same_weights(ours, run_by_keras(make_net(keras.optimizers.Adam(Scheduled(rates))), few_garments))
    assert float(ours.optimizer.learning_rate.numpy()) == pytest.approx(rates[-1])


def test_mixed_labels_have_shares_of_the_loss(few_garments: ResidentData) -> None:
    """A step on mixed images is one on their two labels with the same shares."""
    model = make_net(keras.optimizers.SGD(0.1))
    epochs = TrainingPass(model, few_garments, 2_000, Options(mixup=0.5), 1)
    before = [weight.copy() for weight in model.get_weights()]
    loss = epochs(0, SEED).loss
    order = np.random.default_rng([SEED, 0]).permutation(int(few_garments.train_images.shape[0]))
    images = few_garments.train_images.numpy()[order].astype("f4")
    labels = few_garments.train_labels.numpy()[order]
    (share,) = epochs._step.draw(SEED, 0)["shares"]
    mixed = np.rint(share * images + (1 - share) * np.roll(images, -1, axis=0)).astype("u1")
    stock = make_net(keras.optimizers.SGD(0.1))
    stock.set_weights(before)
    with tf.GradientTape() as tape:
        logs = tf.math.log(stock(mixed, training=True))
        costs = [tf.reduce_mean(-tf.gather(logs, each, batch_dims=1)) for each in (labels, np.roll(labels, -1))]
        expected = share * costs[0] + (1 - share) * costs[1]
    weights = stock.trainable_weights
    stock.optimizer.apply_gradients(zip(tape.gradient(expected, weights), weights, strict=True))
    assert loss == pytest.approx(float(expected), rel=1e-3)
    for weight, other in zip(model.trainable_weights, stock.trainable_weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), other.numpy(), atol=2e-3)


@pytest.mark.usefixtures("settings_set_back")
def test_a_rate_that_was_rounded_was_set_by_nobody(few_garments: ResidentData) -> None:
    """Of a model of bfloat16 the schedule's own rate is not the number that it was given."""
    keras.config.set_floatx("bfloat16")
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "max_epochs": 3, "patience": 3, "seed": SEED}
    options = Options.model_validate({"schedule": "cosine"})
    assert len(train(make_net(), few_garments, options=options, **settings).epochs) == 3


class OwnLoss(keras.Sequential):
    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


SMOOTH = {"label_smoothing": 0.1}


def make_two() -> keras.optimizers.Optimizer:
    parts = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.003), {".*kernel": keras.optimizers.SGD(0.01)})
    both: keras.optimizers.Optimizer = keras.optimizers.MultiOptimizer(parts)
    return both


@pytest.mark.parametrize(
    ("optimizer", "loss", "options", "words"),
    [
        (
            "adam",
            "kl_divergence",
            {"label_smoothing": 0.1},
            "go with the mean of the loss sparse_categorical_crossentropy",
        ),
        (
            "adam",
            keras.losses.SparseCategoricalCrossentropy(reduction="sum"),
            {"label_smoothing": 0.1},
            "reduction sum",
        ),
        (lambda: keras.optimizers.Adam(use_ema=True), None, {"ema": 0.9}, "ema must be the only average"),
        (lambda: keras.optimizers.Adam(clipnorm=1.0), None, {"optimizer": "sgd"}, "compiles Adam with clipnorm=1.0"),
        (make_two, None, {"schedule": "cosine"}, "compiles a MultiOptimizer"),
        (make_two, None, {"weight_decay": 0.1}, "compiles a MultiOptimizer"),
        (keras.optimizers.AdamW, None, {"weight_decay": 0.1}, "weight_decay must be left out, or AdamW be compiled"),
        (lambda: keras.optimizers.Adam(Scheduled([0.1])), None, {"schedule": "cosine"}, "compiles with Scheduled"),
        (lambda: keras.optimizers.Adam(Scheduled([0.1])), None, {"optimizer": "sgd"}, "compiles with Scheduled"),
    ],
    ids=[
        "loss",
        "sum",
        "two averages",
        "clipped",
        "two rates",
        "two optimizers",
        "two decays",
        "two schedules",
        "no rate",
    ],
)
def test_what_the_architecture_says_otherwise_is_refused(
    few_garments: ResidentData, optimizer: Any, loss: Any, options: dict[str, Any], words: str
) -> None:
    """Two meanings of one thing are an error that names both."""
    made = optimizer if isinstance(optimizer, str) else optimizer()
    model = make_net(made, loss or "sparse_categorical_crossentropy")
    with pytest.raises(SpecError, match=words):
        run(model, few_garments, **options)


def test_smoothing_refuses_a_loss_of_the_models_own(few_garments: ResidentData) -> None:
    """What it would add to it is not known."""
    model = OwnLoss([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile("adam")
    with pytest.raises(SpecError, match=r"the architecture has a compute_loss of its own"):
        run(model, few_garments, label_smoothing=0.1)


def test_callbacks_leave_the_rate_to_the_schedule(few_garments: ResidentData) -> None:
    """Keras' own that set it would be overruled at every step."""
    options = Options(schedule="cosine")
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "max_epochs": 2, "patience": 2, "seed": SEED}
    callbacks = [keras.callbacks.ReduceLROnPlateau()]
    with pytest.raises(SpecError, match=r"leave the learning rate to training\.schedule .* ReduceLROnPlateau"):
        Training(make_net(), few_garments, options=options, callbacks=callbacks, **settings)


class SetRate(keras.callbacks.Callback):
    """Sets a rate of its own before an epoch."""

    def __init__(self, epoch: int, rate: Any) -> None:
        super().__init__()
        self._epoch, self._rate = epoch, rate

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if epoch == self._epoch:
            self.model.optimizer.learning_rate = self._rate


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_rate_of_a_callbacks_own_is_refused_too(few_garments: ResidentData, epoch: int) -> None:
    """The schedule would overrule it without a word."""
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "max_epochs": 2, "patience": 2, "seed": SEED}
    callbacks = [SetRate(epoch, 0.5)]
    training = Training(make_net(), few_garments, options=Options(schedule="cosine"), callbacks=callbacks, **settings)
    with pytest.raises(SpecError, match=rf"leave the learning rate to .* before epoch {epoch + 1};"):
        training.run()


def test_biases_with_two_axes_are_not_decayed(few_garments: ResidentData) -> None:
    """Those of attention have the shape (heads, width)."""
    keras.utils.set_random_seed(0)
    images = keras.Input((28, 28), dtype="uint8")
    values = keras.layers.Rescaling(1 / 255)(images)
    values = keras.layers.MultiHeadAttention(2, 4)(values, values)
    model = keras.Model(images, keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(values)))
    model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy")
    TrainingPass(model, few_garments, BATCH_SIZE, Options(weight_decay=0.1))
    decayed = {each.name for each in model.trainable_variables if model.optimizer._use_weight_decay(each.value)}
    assert decayed == {"kernel"}


DENSE: dict[str, dict[str, Any]] = {
    "grid": {"hidden_size": [8], "dropout_rate": [0.0], "learning_rate": [0.01]},
    "training": {"max_epochs": 1},
}


@pytest.mark.parametrize(
    ("tables", "params"),
    [
        pytest.param({"training": {"max_epochs": 1, "weight_decay": 0.5}}, {}, id="training"),
        pytest.param({"augment": {"shift": 3}}, {}, id="augment"),
        pytest.param({}, {"ema": 0.99}, id="grid"),
        pytest.param({}, {"optimizer": "sgd"}, id="optimizer"),
    ],
)
def test_a_cell_is_trained_with_its_options(
    few_garments: ResidentData, tables: dict[str, Any], params: dict[str, Any]
) -> None:
    """From the study file or from the grid: the weights are others than without, and the same again."""
    weights = []
    point = {"hidden_size": 8, "dropout_rate": 0.0, "learning_rate": 0.01}
    for given, more in (({}, {}), (tables, params), (tables, params)):
        code = UserCode(parse_spec({"name": "options", **DENSE, **given}, "options"), FASHION_MNIST)
        model, _ = train_cell(code, {**point, **more}, 1, few_garments, [])
        weights.append(model.get_weights())
        code.end()
    assert not are_equal(weights[0], weights[1])
    assert are_equal(weights[1], weights[2])


@pytest.mark.parametrize(("name", "values"), [("shift", [0, 40]), ("erase", [0, 64])])
def test_a_value_that_fails_its_cells_fails_before_the_study(name: str, values: list[int]) -> None:
    """The smallest cell would do; what the others ask for is looked at before anything is built."""
    grid = {**DENSE["grid"], name: values}
    code = UserCode(parse_spec({"name": "options", **DENSE, "grid": grid}, "options"), FASHION_MNIST)
    with pytest.raises(
        SpecError, match=rf"study options: grid\.{name} must be at most \d+ for images of 28 x 28 pixels"
    ):
        code.bind()
