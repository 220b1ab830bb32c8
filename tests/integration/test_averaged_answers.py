"""A metric of answers that are averaged over images and their mirror images: what an exported model with flips scores.

The other side is NumPy, and the stock evaluation of a model that averages by itself.
"""

from typing import Any

import keras
import numpy as np
import pytest
from brought_models import SparseF1

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.search.metric import VAL_LOSS, Metric
from fmnist_optuna.training.measuring import Answers, measure
from fmnist_optuna.training.probabilities import predict_probabilities

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

N_IMAGES = 1_203  # whole batches, and a rest
IMAGES = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 28, 28), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, N_IMAGES, np.uint8)
F1, TOP3 = Metric("val_macro_f1", "maximize"), Metric("val_top3", "maximize")
PENALTY = 0.01


class OwnLoss(keras.Sequential):
    """Adds something of the images to its loss."""

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        stock = super().compute_loss(x, y, y_pred, sample_weight, training)
        return stock + keras.ops.mean(keras.ops.cast(x, "float32"))


def make_net(has_logits: bool, kind: type[keras.Sequential] = keras.Sequential, **options: Any) -> keras.Model:
    """784 - 10, with a loss that fits its end, an F1 and the share of labels among the first three."""
    keras.utils.set_random_seed(3)
    last = keras.layers.Dense(10, None if has_logits else "softmax", **options)
    image = keras.Input((28, 28), dtype="uint8")
    model: keras.Model = kind([image, keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), last])
    metrics = [
        SparseF1(average="macro", name="macro_f1"), keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3"),
    ]  # fmt: skip
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=has_logits), metrics=metrics)
    return model


def averaged_by(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of the images, and their means with those of the mirror images."""
    plain = predict_probabilities(model, IMAGES, FASHION_MNIST)
    return plain, (plain + predict_probabilities(model, IMAGES[:, :, ::-1], FASHION_MNIST)) / np.float32(2)


def measured_by_suffices(model: keras.Model, metric: Metric) -> tuple[bool, float | None]:
    """Whether the answers suffice for a metric, and what it is of the averaged ones."""
    plain, averaged = averaged_by(model)
    answers = Answers(model, LABELS, FASHION_MNIST)
    value = measure(model, IMAGES, LABELS, metric, FASHION_MNIST)
    return answers.suffice(metric, plain, value), answers.measure(metric, averaged)


@pytest.mark.parametrize("has_logits", [False, True])
@pytest.mark.parametrize("regularizer", [None, keras.regularizers.L2(PENALTY)])
def test_the_loss_of_averaged_answers_is_their_entropy(has_logits: bool, regularizer: Any) -> None:
    """The mean of -log p of the right class, with the penalty of the weights, as in the loss of the net alone."""
    model = make_net(has_logits, kernel_regularizer=regularizer)
    _, averaged = averaged_by(model)
    expected = -np.log(averaged[np.arange(N_IMAGES), LABELS].astype(np.float64)).mean()
    if regularizer is not None:
        expected += PENALTY * np.square(model.layers[-1].kernel.numpy(), dtype=np.float64).sum()
    suffices, value = measured_by_suffices(model, VAL_LOSS)
    assert suffices
    assert value == pytest.approx(expected, rel=1e-5)
    assert value != pytest.approx(measure(model, IMAGES, LABELS, VAL_LOSS, FASHION_MNIST), rel=1e-3)


@pytest.mark.parametrize("has_logits", [False, True])
def test_a_compiled_metric_is_that_of_averaged_answers(has_logits: bool) -> None:
    """The share of labels among the three most probable classes of the mean, and an F1 of all images at once."""
    model = make_net(has_logits)
    _, averaged = averaged_by(model)
    suffices, top3 = measured_by_suffices(model, TOP3)
    among = (np.argsort(-averaged, axis=1)[:, :3] == LABELS[:, None]).any(axis=1)
    assert suffices
    assert top3 == pytest.approx(among.mean(), rel=1e-6)
    suffices, f1 = measured_by_suffices(model, F1)
    is_answer, is_true = (np.eye(10, dtype=bool)[each] for each in (averaged.argmax(axis=1), LABELS))
    hits = 2 * (is_answer & is_true).sum(axis=0) / (is_answer.sum(axis=0) + is_true.sum(axis=0))
    assert suffices
    assert f1 == pytest.approx(np.mean(hits), rel=1e-5)


def test_more_than_the_answers_is_not_measured_by_them() -> None:
    """A loss of the user's own has no figure of averaged answers; a penalty on activations is found out."""
    assert measured_by_suffices(make_net(False, OwnLoss), VAL_LOSS) == (False, None)
    penalized = make_net(False, activity_regularizer=keras.regularizers.L2(1.0))
    assert not measured_by_suffices(penalized, VAL_LOSS)[0]
    assert measured_by_suffices(penalized, TOP3)[0]
