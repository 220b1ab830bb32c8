"""How a training ends: early, by a callback or as diverged; and what it leaves, the best weights and no graph."""

import gc
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_nets import Recorder, evaluate, make_net, run

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.loop import Training, TrainingResult
from fmnist_optuna.training.probabilities import predict_probabilities
from fmnist_optuna.training.resident_data import ResidentData

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]


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
    classes: Sequence[int],
    data: ResidentData,
    patience: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **settings: Any,
) -> tuple[TrainingResult, keras.Model]:
    """A run whose val_accuracy is classes[epoch] / 10."""
    model = make_net(optimizer=keras.optimizers.SGD(0.0))
    callbacks = [SetOutput(classes), *callbacks]
    return run(model, data, max_epochs=len(classes), patience=patience, callbacks=callbacks, **settings), model


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


@pytest.mark.parametrize("classes", [(3, 2, 1, 2), (1, 4, 4), (2,)])
def test_last_weights_know_no_patience(skewed_labels: ResidentData, classes: Sequence[int]) -> None:
    """All epochs are trained, whatever they bring, and the weights of the last are kept and scored."""
    result, model = run_answers(classes, skewed_labels, patience=1, keep_weights="last")
    assert [epoch.val_accuracy for epoch in result.epochs] == [c / 10 for c in classes]
    assert (result.best_epoch, result.val_accuracy) == (len(classes) - 1, classes[-1] / 10)
    assert int(np.argmax(model.layers[-1].get_weights()[1])) == classes[-1]


class Stop(keras.callbacks.Callback):
    """Ends the training after its second epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = epoch == 1


class PutIn(keras.callbacks.Callback):
    """Has the last word on the weights."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def on_train_end(self, logs: Any = None) -> None:
        self.model.set_weights([weights * self.factor for weights in self.model.get_weights()])


def stopping(patience: int) -> keras.callbacks.EarlyStopping:
    return keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=patience, restore_best_weights=True)


@pytest.mark.parametrize(
    ("callback", "came"),
    [
        (Stop(), "stopped it after 2 of 3 epochs"),
        (stopping(1), "stopped it after 2 of 3 epochs"),
        (stopping(9), "put other weights in when it ended"),
        (PutIn(2.0), "put other weights in when it ended"),
    ],
    ids=["stops", "stops-and-restores", "restores", "puts-in"],
)
def test_last_weights_are_chosen_by_nothing(
    skewed_labels: ResidentData, callback: keras.callbacks.Callback, came: str
) -> None:
    """A callback that ends the training, or has the last word on its weights, is refused: it may choose by images."""
    with pytest.raises(SpecError, match=f"must run to its last epoch .* but a callback {came}; leave the callback out"):
        run_answers((3, 2, 1), skewed_labels, 1, [callback], keep_weights="last")
    run_answers((3, 2, 1), skewed_labels, 9, [callback])


@pytest.mark.parametrize("callback", [stopping(9), PutIn(1.0)], ids=["never-stops", "puts-the-same-in"])
def test_callbacks_that_leave_the_last_weights_may_stay(
    skewed_labels: ResidentData, callback: keras.callbacks.Callback
) -> None:
    """One that might stop and did not, or that put the very weights in."""
    result, _ = run_answers((1, 2, 3), skewed_labels, 1, [callback], keep_weights="last")
    assert (result.best_epoch, result.val_accuracy) == (2, 0.3)


def test_a_cut_training_need_not_reach_its_last_epoch(skewed_labels: ResidentData) -> None:
    """The study lets it end where it is, whatever it was to keep: no callback has stopped it."""
    model, callbacks = make_net(optimizer=keras.optimizers.SGD(0.0)), [SetOutput((3, 2, 1)), stopping(9)]
    training = Training(
        model, skewed_labels, batch_size=32, max_epochs=3, patience=1, seed=0, keep_weights="last", callbacks=callbacks
    )
    training.run(2)
    assert len(training.finish().epochs) == 2


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
    result, model = run_answers((3, 1, 4), skewed_labels, 5, [Stop()])
    assert [epoch.val_accuracy for epoch in result.epochs] == [0.3, 0.1]
    assert result.best_epoch == 0
    assert int(np.argmax(model.layers[-1].get_weights()[1])) == 3


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


def test_training_leaves_no_graph_behind(few_garments: ResidentData) -> None:
    """After a training with Adam its graphs are gone with the model, so a worker does not grow from trial to trial."""
    before = n_graphs()
    run(create_model(8, 0.2, 0.001), few_garments)
    keras.backend.clear_session()
    assert n_graphs() == before
