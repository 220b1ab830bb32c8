"""A training that learns from a teacher's answers, beside Keras' own steps with the loss in plain words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from one_training import train
from rehearsing import prepare_spec

from fmnist_optuna.errors import MismatchError, SpecError
from fmnist_optuna.spec.options import Options
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.training.cell_training import begin_cell, go_on_with_cell, train_cell
from fmnist_optuna.training.checkpoint import Identity
from fmnist_optuna.training.distillation import soften
from fmnist_optuna.training.engine import TrainingPass
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.user_code import UserCode

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

BATCH_SIZE, SEED, DECAY = 32, 3, 0.01
TOLERANCE = 1e-4  # of the largest weight: the same rules, rounded in another order over the steps of an epoch
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
HARD, NOT_FROM = "sparse_categorical_crossentropy", "training.teacher must go with the mean of the loss"


def make_net(loss: Any = HARD, head: str | None = "softmax") -> keras.Model:
    """Small, with a regularizer, which no teacher weighs; the same weights each time."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(12, activation="relu", kernel_regularizer=keras.regularizers.L2(DECAY)),
        keras.layers.Dense(10, activation=head),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


@pytest.fixture(scope="module")
def taught(few_garments: ResidentData) -> ResidentData:
    """The garments with answers of a made-up teacher, which is right but for noise, and sure of some."""
    labels = few_garments.train_labels.numpy()
    noise = np.random.default_rng(0).normal(0, 3, (len(labels), 10))
    logits = noise + 4 * np.eye(10)[labels]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return few_garments.with_soft_labels((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))


def plain_loss(weight: float, temperature: float, smoothing: float, head: str | None) -> Loss:
    """The rule as the papers write it, for targets (n, 11): a label, and the teacher's probabilities."""

    def loss(targets: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        logs = tf.math.log(output) if head == "softmax" else tf.nn.log_softmax(output)
        hard = (1 - smoothing) * tf.one_hot(tf.cast(targets[:, 0], tf.int32), 10) + smoothing / 10
        soft = tf.nn.softmax(tf.math.log(targets[:, 1:]) / temperature)
        learnt = -tf.reduce_sum(soft * tf.nn.log_softmax(logs / temperature), axis=-1)
        return -(1 - weight) * tf.reduce_sum(hard * logs, axis=-1) + weight * temperature**2 * learnt

    return loss


@pytest.mark.parametrize(
    ("weight", "temperature", "smoothing", "head"),
    [
        (0.7, 3.0, 0.1, "softmax"),
        (1.0, 1.0, 0.0, None),
        (0.7, 3.0, 0.1, None),
        (0.9, 1.0, 0.0, "softmax"),
    ],
)
def test_an_epoch_is_that_of_keras_with_the_rule_as_its_loss(
    taught: ResidentData, weight: float, temperature: float, smoothing: float, head: str | None
) -> None:
    """The same weights and the same mean loss; the hits are counted by the labels."""
    ours = make_net(keras.losses.SparseCategoricalCrossentropy(from_logits=head is None), head)
    options = Options(teacher_weight=weight, teacher_temperature=temperature, label_smoothing=smoothing)
    score = TrainingPass(ours, taught, BATCH_SIZE, options)(0, SEED)
    theirs = make_net(plain_loss(weight, temperature, smoothing, head), head)
    assert taught.soft_labels is not None
    labels = taught.train_labels.numpy()
    targets = np.column_stack([labels, taught.soft_labels.numpy()]).astype(np.float32)
    order, losses, hits = np.random.default_rng([SEED, 0]).permutation(len(targets)), 0.0, 0
    for begin in range(0, len(order), BATCH_SIZE):
        rows = order[begin : begin + BATCH_SIZE]
        images = tf.gather(taught.train_images, rows)
        hits += int((theirs(images).numpy().argmax(axis=1) == labels[rows]).sum())
        theirs.reset_metrics()
        losses += len(rows) * float(theirs.train_on_batch(images, targets[rows]))
    for found, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))
    assert score.loss == pytest.approx(losses / len(order), rel=1e-4)
    assert score.accuracy == pytest.approx(hits / len(order), abs=2 / len(order))


def test_mixed_images_have_mixed_answers(taught: ResidentData) -> None:
    """The loss of a step on mixed images has the shares of the mixture in both of its parts."""
    model, options = make_net(), Options(mixup=0.5, teacher_weight=0.6, teacher_temperature=2.0)
    before = make_net()
    epochs = TrainingPass(model, taught, 2_000, options)
    loss = epochs(0, SEED).loss
    n_images = int(taught.train_images.shape[0])
    order = np.random.default_rng([SEED, 0]).permutation(n_images)
    (share,) = epochs._step.draw(SEED, 0)["shares"]
    assert taught.soft_labels is not None
    images, soft = taught.train_images.numpy()[order].astype("f4"), soften(taught.soft_labels.numpy()[order], 2.0)
    hard = np.eye(10)[taught.train_labels.numpy()[order]]
    images, soft, hard = (share * each + (1 - share) * np.roll(each, -1, axis=0) for each in (images, soft, hard))
    logs = np.log(before(np.rint(images).astype("u1")).numpy())
    costs = -(0.4 * hard * logs).sum(axis=1) - 0.6 * 4 * (soft * tf.nn.log_softmax(logs / 2).numpy()).sum(axis=1)
    decay = DECAY * float((before.get_weights()[0] ** 2).sum())
    assert loss == pytest.approx(costs.mean() + decay, rel=1e-4)


def test_a_teacher_without_weight_changes_no_bit(few_garments: ResidentData, taught: ResidentData) -> None:
    """A grid may have 0 beside other weights: that cell is the training without a teacher."""
    plain, idle = make_net(), make_net()
    scores = [
        TrainingPass(plain, few_garments, BATCH_SIZE, Options(label_smoothing=0.1))(0, SEED),
        TrainingPass(idle, taught, BATCH_SIZE, Options(label_smoothing=0.1, teacher_weight=0.0))(0, SEED),
    ]
    assert scores[0] == scores[1]
    for one, other in zip(plain.get_weights(), idle.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_the_validation_loss_stays_that_of_the_labels(taught: ResidentData) -> None:
    """What a teacher would say of the validation images is nowhere in it."""
    model = make_net()
    options = Options(teacher_weight=0.9, teacher_temperature=4.0)
    result = train(model, taught, batch_size=BATCH_SIZE, max_epochs=1, patience=1, seed=SEED, options=options)
    answers = model(taught.validation_images, training=False)
    plain = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(taught.validation_labels, answers))
    decay = DECAY * float((model.get_weights()[0] ** 2).sum())
    assert result.epochs[0].val_loss == pytest.approx(float(plain) + decay, rel=1e-4)


def test_softened_answers_are_a_softmax_of_their_logits() -> None:
    """As the paper has it, also where a probability is too small to be told from 0."""
    logits = np.array([[0.0, -3.0, 5.0], [0.0, 0.0, -400.0]])
    probabilities = tf.nn.softmax(logits).numpy().astype(np.float32)
    for temperature in (0.5, 1.0, 4.0):
        expected = tf.nn.softmax(logits[:1] / temperature).numpy()
        np.testing.assert_allclose(soften(probabilities, temperature)[:1], expected, rtol=1e-5)
        np.testing.assert_allclose(soften(probabilities, temperature)[1], [0.5, 0.5, 0.0], atol=1e-6)


DENSE = {"hidden_size": 8, "dropout_rate": 0.2, "learning_rate": 0.01}
STUDENT: dict[str, Any] = {
    "name": "student",
    "data": {"source": "synthetic"},
    "grid": {name: [value] for name, value in DENSE.items()},
    "training": {"max_epochs": 3, "patience": 3, "teacher": "teacher", "teacher_temperature": 2.0},
    "augment": {"mixup": 0.4},
}


def test_a_training_that_was_stored_goes_on_to_the_same_bits(taught: ResidentData, tmp_path: Path) -> None:
    """Nothing of a teacher is part of its state: the answers are there again when it goes on."""
    code, identity = UserCode(parse_spec(STUDENT, "test"), taught.info), Identity("cell", SEED, "code", "environment")
    straight, result = train_cell(code, DENSE, SEED, taught, [])
    first = begin_cell(code, DENSE, SEED, taught, [])
    first.run(1)
    first.save(tmp_path / "checkpoint", identity)
    first.close()
    code.end()
    cell = go_on_with_cell(code, DENSE, taught, [], identity, checkpoint=tmp_path / "checkpoint")
    assert (cell.unusable, cell.n_epochs) == (None, 1)
    cell.run()
    again = cell.finish()
    cell.close()
    assert [each.train_loss for each in again.epochs] == [each.train_loss for each in result.epochs]
    for one, other in zip(straight.get_weights(), cell.model.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_no_training_with_a_teacher_does_without_its_answers(few_garments: ResidentData) -> None:
    """Nor with those to some of the images."""
    code = UserCode(parse_spec(STUDENT, "test"), few_garments.info)
    with pytest.raises(MismatchError, match="that learns from teacher must have its answers, but was given none"):
        begin_cell(code, DENSE, SEED, few_garments, [])
    with pytest.raises(MismatchError, match=r"must be of all 1,003 training images, but are of 1,000\."):
        few_garments.with_soft_labels(np.full((1_000, 10), 0.1, np.float32))


OWN = """
import keras

class OwnLoss(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))

def make(loss):
    layers = [keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255)]
    cls = OwnLoss if loss == "own" else keras.Sequential
    model = cls([*layers, keras.layers.Dense(10, None if loss == "logits" else "softmax")])
    given = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if loss == "logits" else loss
    model.compile("sgd", "sparse_categorical_crossentropy" if loss == "own" else given)
    return model

def make_probabilities():
    return make("sparse_categorical_crossentropy")

def make_logits():
    return make("logits")

def make_own():
    return make("own")
"""


@pytest.mark.parametrize(
    ("function", "refused"),
    [
        ("make_probabilities", ""),
        ("make_logits", ""),
        ("make_own", rf"{NOT_FROM} {HARD}, but the architecture has a compute_loss of its own; compile that loss, or"),
    ],
)
def test_a_check_knows_whether_a_model_can_have_a_teacher(
    make_module: Callable[[str, str], str], function: str, refused: str
) -> None:
    """Without one at hand: a function of the user's own may compile either form of the loss, and no other."""
    architecture = f"{make_module('taught_models', OWN)}:{function}"
    content = {**STUDENT, "model": {"architecture": architecture}, "grid": {"training_seed": [1]}}
    content["training"] = {"max_epochs": 1, "teacher": "teacher"}
    if not refused:
        prepare_spec(parse_spec(content, "test"))
        return
    with pytest.raises(SpecError, match=refused):
        prepare_spec(parse_spec(content, "test"))
