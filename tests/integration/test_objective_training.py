"""Trainings that follow another metric than the accuracy: measured as Keras measures it, kept and stopped by it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from brought_models import SparseF1
from one_training import train
from rehearsing import prepare_spec
from users_modules import PLAIN, MakeModule, make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.metric import VAL_ACCURACY, VAL_LOSS, Metric
from fmnist_optuna.spec.objective import ObjectiveSpec
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.training.checkpoint import Checkpoint, Identity, read_checkpoint, save_checkpoint
from fmnist_optuna.training.loop import Training, TrainingResult
from fmnist_optuna.training.measuring import measure
from fmnist_optuna.training.metrics import ModelMetrics
from fmnist_optuna.training.rehearsal import few_garments, rehearse
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.user_code import UserCode

pytestmark = pytest.mark.usefixtures("one_thread")


class SparseAUC(keras.metrics.AUC):
    """Of integer labels."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        return super().update_state(keras.ops.one_hot(labels, 10), y_pred, sample_weight)


class Given(keras.metrics.Metric):
    """One number a validation, as a list has them."""

    def __init__(self, values: Sequence[float], name: str = "given") -> None:
        super().__init__(name=name)
        self.values = values
        self.n_read = 0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pass

    def result(self) -> float:
        return self.values[min(self.n_read, len(self.values) - 1)]


class Next(keras.callbacks.Callback):
    """Lets such a metric go on to its next number after each epoch."""

    def __init__(self, metric: Given) -> None:
        super().__init__()
        self.metric = metric

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.metric.n_read += 1


def make_net(*metrics: Any, rate: float = 0.01) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy", *metrics])
    return model


def three_metrics() -> list[keras.metrics.Metric]:
    top3 = keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")
    return [SparseF1(average="macro", name="macro_f1"), SparseAUC(name="auc"), top3]


def run(model: keras.Model, data: ResidentData, metric: Metric, **settings: Any) -> TrainingResult:
    return train(
        model, data, **{"batch_size": 32, "max_epochs": 4, "patience": 9, "seed": 0, "metric": metric, **settings}
    )


@pytest.mark.parametrize(
    "name",
    [
        "val_macro_f1",
        pytest.param("val_auc", marks=pytest.mark.more),
        pytest.param("val_top3", marks=pytest.mark.more),
        pytest.param("val_loss", marks=pytest.mark.more),
    ],
)
def test_the_value_is_that_of_evaluate(few_garments: ResidentData, name: str) -> None:
    """Of the kept weights, which are those of the best epoch; so is what another pass over any images measures."""
    metric = VAL_LOSS if name == "val_loss" else Metric(name, "maximize")
    model = make_net(*three_metrics())
    result = run(model, few_garments, metric)
    values = [metric.value_of(epoch) for epoch in result.epochs]
    assert result.value == values[result.best_epoch] == metric.best_of(values)
    images, labels = few_garments.validation_images, few_garments.validation_labels
    by_keras = model.evaluate(images, labels, batch_size=500, verbose=0, return_dict=True)
    assert result.value == pytest.approx(by_keras[metric.name_in_logs], rel=2e-5)
    assert measure(model, images.numpy(), labels.numpy(), metric, FASHION_MNIST) == result.value
    assert result.val_accuracy == pytest.approx(by_keras["accuracy"], abs=1e-6)


def follow(
    data: ResidentData, values: Sequence[float], direction: str, patience: int = 9, **settings: Any
) -> TrainingResult:
    """A training in which a metric of the model's own has known values."""
    given = Given(values)
    metric = Metric("val_given", "maximize" if direction == "maximize" else "minimize")
    settings = {"max_epochs": len(values), "patience": patience, "callbacks": [Next(given)], **settings}
    return run(make_net(given), data, metric, **settings)


@pytest.mark.parametrize(
    ("direction", "patience", "n_epochs", "best_epoch"),
    [("maximize", 2, 4, 1), ("minimize", 1, 2, 0), ("minimize", 4, 5, 4)],
)
def test_patience_and_weights_follow_the_direction(
    handful: ResidentData, direction: str, patience: int, n_epochs: int, best_epoch: int
) -> None:
    """The first of equal values is kept, and so many epochs without a better one end the training."""
    result = follow(handful, [0.5, 0.75, 0.625, 0.75, 0.25], direction, patience)
    assert (len(result.epochs), result.best_epoch) == (n_epochs, best_epoch)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_ends_as_diverged(handful: ResidentData, value: float) -> None:
    """As a loss does; the epoch has it."""
    result = follow(handful, [0.5, value, 0.9], "maximize")
    assert (len(result.epochs), result.is_diverged) == (2, True)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (
            "val_auc",
            r"must be what the model Sequential measures \(val_accuracy, val_loss, val_top3\), but is val_auc; name",
        ),
        ("val_f1", r"must be one number, but val_f1 of the model Sequential has the shape \(10,\); let it take the"),
        ("val_wave", "must be one number, but val_wave of the model Sequential is complex; let it be the absolute val"),
    ],
)
def test_what_the_model_does_not_measure_is_refused(handful: ResidentData, metric: str, words: str) -> None:
    """With the names of what it does; one number a class is none to compare by."""
    top3 = keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")
    model = make_net(top3, SparseF1(name="f1"), Wave(name="wave"))
    with pytest.raises(SpecError, match=f"^objective.metric {words}"):
        Training(model, handful, batch_size=32, max_epochs=1, patience=1, seed=0, metric=Metric(metric, "maximize"))


class Wave(keras.metrics.Metric):
    """Gives a complex number, of which a table would keep the real part."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pass

    def result(self) -> Any:
        return tf.constant(1 + 2j)


class Broken(keras.metrics.Metric):
    """Has no result."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pass

    def result(self) -> float:
        raise RuntimeError("no images")


def loss(y_true: Any, y_pred: Any) -> Any:
    """Of a name that another number has in every log."""
    return keras.metrics.sparse_categorical_accuracy(y_true, y_pred)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: loss, "must not be called loss, .* Sequential is compiled with a MeanMetricWrapper of this"),
        (lambda: "acuracy", "must be ones of Keras, but Sequential raised .*acuracy"),
        (
            lambda: Broken(name="broken"),
            "must have results .*, but the model Sequential raised RuntimeError: no",
        ),
    ],
)
def test_metrics_that_fail_are_said(handful: ResidentData, make: Callable[[], Any], words: str) -> None:
    """As an error of the study file, with what they raised, and in one line."""
    model = make_net(make())
    with pytest.raises(SpecError, match=f"^The metrics of a model {words}") as error:
        Training(model, handful, batch_size=32, max_epochs=1, patience=1, seed=0, metric=VAL_LOSS)
    assert "\n" not in str(error.value)


def test_a_study_is_refused_before_it_begins() -> None:
    """Of a built-in architecture too, whose names are accuracy and loss."""
    spec = parse_spec({"grid": {"hidden_size": [4]}, "objective": {"metric": "val_top5"}}, "study.toml")
    with pytest.raises(SpecError, match=r"what dense measures \(val_accuracy, val_loss\), but is val_top5"):
        prepare_spec(
            spec.model_copy(update={"model": spec.model.model_validate({"dropout_rate": 0.0, "learning_rate": 0.01})})
        )


class Converted(keras.metrics.CategoricalAccuracy):
    """Makes labels one-hot by itself."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().update_state(keras.ops.one_hot(y_true, 10), y_pred, sample_weight)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: "categorical_accuracy", "categorical_accuracy takes the place of the largest number of several for"),
        (lambda: keras.metrics.OneHotMeanIoU(10, name="iou"), "iou takes the place of the largest number of several"),
        (lambda: keras.metrics.MeanSquaredError(name="square"), "square raised ValueError: Dimensions must be equal"),
    ],
)
@pytest.mark.parametrize("n_classes", [4, 10])
def test_a_metric_of_one_hot_labels_is_refused(make: Callable[[], Any], words: str, n_classes: int) -> None:
    """Also where Keras takes integers for them without an error, which gives one number for every model."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(n_classes, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[make()])
    with pytest.raises(SpecError, match=rf"^A metric must take integer labels \(n,\) .*, but {words}"):
        ModelMetrics(model, n_classes)


def test_a_metric_that_converts_labels_is_measured() -> None:
    """Whatever it is made of; so is an IoU of labels and of outputs of which the largest counts."""
    iou = keras.metrics.MeanIoU(10, sparse_y_pred=False, name="iou")
    assert {"converted", "iou"} <= ModelMetrics(make_net(Converted(name="converted"), iou), 10).read_all(0.0).keys()


def hits(y_true: Any, y_pred: Any) -> Any:
    """One number for each image."""
    return keras.metrics.sparse_categorical_accuracy(y_true, y_pred)


def share(y_true: Any, y_pred: Any) -> Any:
    """One number for a batch."""
    return keras.ops.mean(hits(y_true, y_pred))


def test_a_function_must_give_a_number_an_image() -> None:
    """The mean of what it gives of batches would follow from how many images there are in one."""
    metrics = ModelMetrics(make_net(hits, share), 10)
    metrics.check_function(Metric("val_hits", "maximize"), "net")
    with pytest.raises(SpecError, match=r"^objective.metric must be measured over all images, but val_share of net is"):
        metrics.check_function(Metric("val_share", "maximize"), "net")


@pytest.mark.usefixtures("settings_set_back")
def test_a_sum_is_no_loss_to_compare_by(make_module: MakeModule) -> None:
    """How many images are validated at once follows from a cell's size, and a sum would follow from that."""
    loss = 'keras.losses.SparseCategoricalCrossentropy(reduction="sum")'
    source = PLAIN.replace('"sparse_categorical_crossentropy"', loss) + "def net(units): return compiled(head())\n"
    spec = make_spec(make_module("users_sum", source), units=[4])
    code = UserCode(spec.model_copy(update={"objective": ObjectiveSpec(metric="val_loss")}), FASHION_MNIST)
    code.bind()
    with pytest.raises(SpecError, match=r"^objective.metric must be of a loss that is a mean over .* twice; take"):
        rehearse(code, *few_garments())


def test_accuracy_is_followed_as_before(handful: ResidentData) -> None:
    """Bit for bit the same as a training that is told no metric, and an epoch has no value beside it."""
    settings = {"batch_size": 32, "max_epochs": 3, "patience": 9, "seed": 0}
    told, untold = run(make_net(), handful, VAL_ACCURACY, max_epochs=3), train(make_net(), handful, **settings)
    assert told.value == told.val_accuracy == untold.val_accuracy
    assert [epoch.objective for epoch in told.epochs] == [None] * 3
    assert [epoch.val_loss for epoch in told.epochs] == [epoch.val_loss for epoch in untold.epochs]


def test_a_pause_keeps_what_was_best(handful: ResidentData, tmp_path: Path) -> None:
    """From a checkpoint a training by loss goes on as if it had never been interrupted, its values included."""
    settings: dict[str, Any] = {"batch_size": 32, "max_epochs": 4, "patience": 2, "seed": 0}
    metric, identity = Metric("val_macro_f1", "minimize"), Identity("cell", 0, "", "")

    def begin() -> Training:
        return Training(make_net(*three_metrics(), rate=0.03), handful, metric=metric, **settings)

    whole, first, second = begin(), begin(), begin()
    whole.run()
    first.run(2)
    save_checkpoint(tmp_path / "checkpoint", first, identity, tmp_path)
    found = read_checkpoint(tmp_path / "checkpoint", identity)
    assert isinstance(found, Checkpoint)
    (tmp_path / "second").mkdir()
    found.restore(second, tmp_path / "second")
    second.run()
    told, again = whole.finish(), second.finish()
    assert (told.best_epoch, told.value) == (again.best_epoch, again.value)
    assert [epoch.objective for epoch in told.epochs] == [epoch.objective for epoch in again.epochs]


class Counting(keras.metrics.Metric):
    """Gives the variable that it counts batches in, as a metric in Keras' own guide does."""

    def __init__(self, name: str = "counting") -> None:
        super().__init__(name=name)
        self.total: keras.Variable = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(1.0)

    def result(self) -> keras.Variable:
        return self.total


def test_a_metric_may_give_its_variable(handful: ResidentData, tmp_path: Path) -> None:
    """The logs have its number of then, which a checkpoint keeps and no later epoch changes."""
    metric, identity = Metric("val_counting", "maximize"), Identity("cell", 0, "", "")
    settings: dict[str, Any] = {"batch_size": 32, "max_epochs": 2, "patience": 1, "seed": 0}
    training = Training(make_net(Counting()), handful, metric=metric, **settings)
    training.run(1)
    save_checkpoint(tmp_path / "checkpoint", training, identity, tmp_path)
    training.model.reset_metrics()
    assert (float(training.logs["val_counting"]), training.epochs[0].objective) == (1, 1)
