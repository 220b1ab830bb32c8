"""What people bring, trained here and by stock `fit`: the same weights and curves, or refused for the row's reason.

Both sides start from one seed, see the same batches in the same order, and have the same callbacks; 2,000 training and
1,000 validation images, two epochs. A row that is trained is compared after every epoch: all weights, and everything
that both sides have in their logs.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.study_spec import parse_spec
from fmnist_optuna.training.architecture import build_model, load_architecture
from fmnist_optuna.training.engine import ResidentData
from fmnist_optuna.training.hooks import check_hooks
from fmnist_optuna.training.loop import train

pytestmark = [pytest.mark.usefixtures("one_thread")]

N_TRAIN, N_VALIDATION, N_EPOCHS, BATCH_SIZE = 2_000, 1_000, 2, 64  # 31 batches and a rest of 16
SEED = 3
# Of the largest entry of each array. One formula is rounded in another order (fused Adam, batches of the validation),
# some 1e-7 a step, and the next gradients carry that on.
TOLERANCE = 2e-4
LOSS = "sparse_categorical_crossentropy"
L, O, C = keras.layers, keras.optimizers, keras.callbacks  # noqa: E741

Callbacks = list[keras.callbacks.Callback]


# Models


def layers(*hidden: keras.layers.Layer, head: str | None = "softmax") -> list[keras.layers.Layer]:
    return [L.Flatten(), L.Rescaling(1 / 255), L.Dense(16, "relu"), *hidden, L.Dense(10, head)]


def net(*hidden: keras.layers.Layer, head: str | None = "softmax", **options: Any) -> keras.Model:
    """784 - 16 - hidden layers - 10 as a Sequential with an Input; keywords go to compile()."""
    model = keras.Sequential([keras.Input((28, 28), dtype="uint8"), *layers(*hidden, head=head)])
    model.compile(**{"optimizer": O.Adam(0.003), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


def functional(cls: type[keras.Model] = keras.Model, **options: Any) -> keras.Model:
    """The same as a functional model of a given class."""
    image = keras.Input((28, 28), dtype="uint8")
    output = image
    for layer in layers(L.Dropout(0.2)):
        output = layer(output)
    model = cls(image, output)
    model.compile(**{"optimizer": O.Adam(0.003), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


def image_net(*first: keras.layers.Layer, last: keras.layers.Layer | None = None, **options: Any) -> keras.Model:
    """Layers on (28, 28, 1) images in 0..1, then a dense head."""
    start = [keras.Input((28, 28), dtype="uint8"), L.Rescaling(1 / 255), L.Reshape((28, 28, 1))]
    model = keras.Sequential([*start, *first, last or L.Flatten(), L.Dense(10, "softmax")])
    model.compile(**{"optimizer": O.Adam(0.003), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


def no_input() -> keras.Model:
    model = keras.Sequential(layers(L.Dropout(0.2), L.BatchNormalization()))
    model.compile(O.Adam(0.003), LOSS, metrics=["accuracy"])
    return model


class Subclassed(keras.Model):
    """Builds its weights at its first call; dropout knows of training."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = layers(L.Dropout(0.3))

    def call(self, x: Any, training: bool = False) -> Any:
        for layer in self.parts:
            x = layer(x, training=training) if isinstance(layer, L.Dropout) else layer(x)
        return x


class WithoutTraining(keras.Model):
    """Its call has no `training`: in `fit` its dropout never drops."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = layers(L.Dropout(0.5))

    def call(self, x: Any) -> Any:
        for layer in self.parts:
            x = layer(x)
        return x


class Lazy(keras.Model):
    """Makes its layers in its first call."""

    parts = None

    def call(self, x: Any, training: bool = False) -> Any:
        if self.parts is None:
            self.parts = layers()
        for layer in self.parts:
            x = layer(x)
        return x


def compiled(cls: type[keras.Model], **options: Any) -> keras.Model:
    model = cls()
    model.compile(**{"optimizer": O.Adam(0.003), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


class AddsLoss(L.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(x)))
        return x


class Tracks(L.Layer):
    """Has a metric of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.size = keras.metrics.Mean(name="size")

    def call(self, x: Any) -> Any:
        self.size.update_state(keras.ops.mean(x))
        return x


def frozen() -> keras.Model:
    return net(L.Dense(8, trainable=False), L.BatchNormalization(trainable=False))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((16,)), L.Dense(8, "relu"), L.Dropout(0.2), L.BatchNormalization()])
    return net(inner)


def untrainable() -> keras.Model:
    model = net()
    model.trainable = False
    return model


class AlwaysNoisy(L.Layer):
    """Draws outside of training too."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.random.SeedGenerator(0)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)


# compute_loss


class FullLoss(keras.Model):
    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        factor = 2.0 if training else 0.5
        return factor * super().compute_loss(x, y, y_pred, sample_weight, training)


class OldLoss(keras.Model):
    """As before Keras 3.3: without `training`."""

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        return 3.0 * keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


class KeywordLoss(keras.Model):
    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, **options: Any) -> Any:
        assert not options
        return 3.0 * keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


class ShortLoss(keras.Model):
    """A signature that `fit` cannot call; here it means what it says."""

    def compute_loss(self, x: Any, y: Any, y_pred: Any) -> Any:
        return 3.0 * keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


class OwnTracker(keras.Model):
    """The example in Keras' documentation of compute_loss."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.tracker = keras.metrics.Mean(name="entropy")

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
        loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))
        self.tracker.update_state(loss)
        return loss


class VectorLoss(keras.Model):
    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
        return keras.losses.sparse_categorical_crossentropy(y, y_pred)


def own_loss_on_instance() -> keras.Model:
    """Its loss is on the instance, so that what it was compiled with says nothing of its logits."""
    model = net(head=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compute_loss = lambda x=None, y=None, y_pred=None, sample_weight=None, training=True: loss(y, y_pred)
    return model


class FocalLoss(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        share = keras.ops.sum(keras.ops.one_hot(keras.ops.cast(y_true, "int32"), 10) * y_pred, axis=-1)
        return -keras.ops.square(1 - share) * keras.ops.log(share + 1e-7)


def smoothed(y_true: Any, y_pred: Any) -> Any:
    """Label smoothing for integer labels."""
    return keras.losses.categorical_crossentropy(
        keras.ops.one_hot(keras.ops.cast(y_true, "int32"), 10), y_pred, label_smoothing=0.1
    )


# Metrics


class SparseF1(keras.metrics.F1Score):
    """Makes its variables in its first update; its result is one number a class."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        return super().update_state(keras.ops.one_hot(labels, 10), y_pred, sample_weight)


class Several(keras.metrics.Mean):
    """Its result has names of its own."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().update_state(keras.ops.max(y_pred, axis=-1))

    def result(self) -> Any:
        mean = super().result()
        return {"sure": mean, "unsure": 1 - mean}


# Steps that are refused


class TrainStep(keras.Model):
    def train_step(self, data: Any) -> Any:
        raise NotImplementedError


class TestStep(keras.Model):
    __test__ = False

    def test_step(self, data: Any) -> Any:
        return super().test_step(data)


class InheritedStep(TrainStep):
    pass


class Fit(keras.Model):
    def fit(self, *given: Any, **named: Any) -> Any:
        return super().fit(*given, **named)


class ComputeMetrics(keras.Model):
    def compute_metrics(self, *given: Any, **named: Any) -> Any:
        return super().compute_metrics(*given, **named)


class MakeTrainFunction(keras.Model):
    def make_train_function(self, force: bool = False) -> Any:
        return super().make_train_function(force)


def patched() -> keras.Model:
    model = functional()
    model.train_step = lambda data: {}
    return model


def patched_keras() -> keras.Model:
    """Keras itself is patched; the fixture after each test takes it back."""
    keras.Model.test_step = lambda self, data: {}
    return functional()


# Callbacks


class SetRateBefore(C.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = 0.03


class FreezeBefore(C.Callback):
    """Acts at the last moment at which `fit` has not traced its step."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.layers[2].trainable = False


class DropMore(C.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        next(layer for layer in self.model.layers if isinstance(layer, L.Dropout)).rate = 0.7


class AroundTests(C.Callback):
    """Halves the weights for every validation."""

    def on_test_begin(self, logs: Any = None) -> None:
        self.weights = self.model.get_weights()
        self.model.set_weights([weight * 0.5 for weight in self.weights])

    def on_test_end(self, logs: Any = None) -> None:
        assert set(logs or {}) >= {"loss", "accuracy"}
        self.model.set_weights(self.weights)


class StopsBefore(C.Callback):
    """Stops the training at the beginning of an epoch: `fit` still takes one step, validates and ends the epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = epoch == self.epoch


class StopsAtOnce(C.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        self.model.stop_training = True


class StopsValidation(C.Callback):
    def on_test_begin(self, logs: Any = None) -> None:
        self.model.stop_evaluating = True


class AddsToLogs(C.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        (logs or {})["val_own"] = float(epoch)


class Recompiles(C.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.model.compile("sgd", LOSS)


class CompilesBefore(C.Callback):
    """What `fit` would end on: it has made its train function by then."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.model.compile("sgd", LOSS, metrics=["accuracy"])


class StepsBefore(C.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        self.model.train_step = lambda data: {}


class InnerRateLater(C.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.model.optimizer.learning_rate = O.schedules.CosineDecay(0.01, 60)


class BatchHook(C.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


class TestBatchHook(C.Callback):
    __test__ = False

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        pass


class BusyCheckpoint(C.ModelCheckpoint):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


# Rows


@dataclass(frozen=True)
class Row:
    """One thing that a person may bring.

    Args:
        model: Makes it, from a seed that was just set.
        callbacks: Makes them; takes a folder to write to.
        refused: What the refusal says; empty when it is trained.
        logs: Names that must be among the compared logs.
        like: Makes the model that stock `fit` trains, where it cannot train this one.
        tolerance: Of the weights and losses, of the largest entry of each.
    """

    model: Callable[[], keras.Model]
    callbacks: Callable[[Path], Callbacks] = lambda folder: []
    refused: str = ""
    logs: Sequence[str] = ()
    like: Callable[[], keras.Model] | None = None
    tolerance: float = TOLERANCE
    options: dict[str, Any] = field(default_factory=dict)


def optimizer(make: Callable[[], keras.optimizers.Optimizer], **row: Any) -> Row:
    return Row(lambda: net(L.Dropout(0.2), optimizer=make()), **row)


def layer(make: Callable[[], Sequence[keras.layers.Layer]], **row: Any) -> Row:
    return Row(lambda: net(*make()), **row)


def callback(make: Callable[[Path], Any], **row: Any) -> Row:
    def several(folder: Path) -> Callbacks:
        made = make(folder)
        return list(made) if isinstance(made, list) else [made]

    return Row(**{"model": lambda: net(L.Dropout(0.2)), "callbacks": several, **row})


def schedule_free() -> keras.Model:
    model = net(L.Dropout(0.2), optimizer=O.ScheduleFreeAdamW(0.003))
    model.optimizer.build(model.trainable_variables)
    return model


OPTIMIZERS = {
    "adam": optimizer(lambda: O.Adam(0.003)),
    "adam-amsgrad": optimizer(lambda: O.Adam(0.003, amsgrad=True)),
    "adam-weight-decay": optimizer(lambda: O.Adam(0.003, weight_decay=0.01)),
    "adam-clipnorm": optimizer(lambda: O.Adam(0.003, clipnorm=0.1)),
    "adam-accumulated": optimizer(lambda: O.Adam(0.003, gradient_accumulation_steps=4)),
    "adam-schedule": optimizer(lambda: O.Adam(O.schedules.CosineDecay(0.01, 60))),
    "adam-overwritten-ema": optimizer(lambda: O.Adam(0.003, use_ema=True, ema_overwrite_frequency=5)),
    "adamw": optimizer(lambda: O.AdamW(0.003)),
    "adamax": optimizer(lambda: O.Adamax(0.003)),
    "nadam": optimizer(lambda: O.Nadam(0.003)),
    "sgd-nesterov-clipvalue": optimizer(lambda: O.SGD(0.05, momentum=0.9, nesterov=True, clipvalue=0.01)),
    "sgd-global-clipnorm": optimizer(lambda: O.SGD(0.05, global_clipnorm=0.1)),
    "sgd-loss-scale": optimizer(lambda: O.SGD(0.05, loss_scale_factor=128.0)),
    "rmsprop": optimizer(lambda: O.RMSprop(0.001, momentum=0.5)),
    "adagrad-piecewise": optimizer(lambda: O.Adagrad(O.schedules.PiecewiseConstantDecay([20, 40], [0.1, 0.01, 0.001]))),
    "adadelta": optimizer(lambda: O.Adadelta(1.0)),
    "adafactor": optimizer(lambda: O.Adafactor(0.01)),
    "ftrl": optimizer(lambda: O.Ftrl(0.05)),
    "lamb": optimizer(lambda: O.Lamb(0.003)),
    "lion": optimizer(lambda: O.Lion(0.0003), tolerance=2e-2),  # by the sign of a gradient: one that is 0 by rounding
    "muon": optimizer(lambda: O.Muon(0.003)),
    # Unless it is built before, `fit` of Keras 3.15 begins its averages at zero instead of at the weights.
    "schedule-free": optimizer(lambda: O.ScheduleFreeAdamW(0.003), like=schedule_free),
    "loss-scaling": optimizer(lambda: O.LossScaleOptimizer(O.Adam(0.003))),
}
LAYERS = {
    "batch-normalization": layer(lambda: [L.BatchNormalization(momentum=0.8)]),
    "layer-normalization": layer(lambda: [L.LayerNormalization(), L.UnitNormalization()]),
    "gaussian-noise": layer(lambda: [L.GaussianNoise(0.3), L.GaussianDropout(0.2), L.AlphaDropout(0.1)]),
    "regularizers": layer(lambda: [L.Dense(8, kernel_regularizer="l2", bias_regularizer="l1")]),
    "activity-regularizer": layer(lambda: [L.Dense(8, activity_regularizer="l2")], logs=["loss"]),
    "constraint": layer(lambda: [L.Dense(8, kernel_constraint=keras.constraints.MaxNorm(0.5))]),
    "spectral-normalization": layer(lambda: [L.SpectralNormalization(L.Dense(8))]),
    "add-loss": layer(lambda: [AddsLoss()]),
    "frozen": Row(frozen),
    "nested": Row(nested),
    "embedding": Row(lambda: image_net(L.Reshape((784,)), L.Rescaling(9.0), L.Embedding(10, 2))),
    "augmentation": Row(lambda: image_net(L.RandomTranslation(0.1, 0.1), L.RandomFlip("horizontal"))),
    "convolution": Row(lambda: image_net(L.Conv2D(4, 5, strides=3), L.SpatialDropout2D(0.2), L.MaxPooling2D())),
    "recurrent": Row(lambda: image_net(L.Reshape((28, 28)), last=L.GRU(6))),
    "float64": Row(lambda: net(L.Dense(8, dtype="float64"))),
    "mixed-bfloat16": Row(  # of three digits: Adam would make 10 % of a rounding
        lambda: net(L.Dense(8, dtype="mixed_bfloat16"), optimizer=O.SGD(0.05)), tolerance=5e-2
    ),
}
LOSSES = {
    "logits": Row(lambda: net(head=None, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))),
    "label-smoothing": Row(lambda: net(loss=smoothed)),
    "custom-loss": Row(lambda: net(loss=FocalLoss())),
    "sum": Row(lambda: net(optimizer=O.SGD(1e-4), loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum"))),
    "loss-weights": Row(lambda: net(loss_weights=[0.3])),
    "not-reduced": Row(
        lambda: net(loss=keras.losses.SparseCategoricalCrossentropy(reduction="none")),
        refused=r"must be one number a batch, but that of Sequential is one of shape \(64,\)",
    ),
    "compute-loss": Row(lambda: functional(FullLoss)),
    "compute-loss-without-training": Row(lambda: functional(OldLoss)),
    "compute-loss-keywords": Row(lambda: functional(KeywordLoss)),
    "compute-loss-short": Row(lambda: functional(ShortLoss), like=lambda: functional(OldLoss)),
    "compute-loss-tracker": Row(lambda: functional(OwnTracker, metrics=None), logs=["entropy", "val_entropy"]),
    "compute-loss-on-instance": Row(own_loss_on_instance),
    "compute-loss-vector": Row(lambda: functional(VectorLoss), refused=r"that of VectorLoss is one of shape \(64,\)"),
}
METRICS = {
    "metrics": Row(
        lambda: net(metrics=["acc", keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3"), LOSS]),
        logs=["val_acc", "val_top3", f"val_{LOSS}"],
    ),
    "weighted-metrics": Row(
        lambda: net(metrics=["accuracy"], weighted_metrics=["accuracy", "sparse_categorical_crossentropy"]),
        logs=["val_weighted_accuracy", "val_sparse_categorical_crossentropy"],
    ),
    "class-metric": Row(
        lambda: net(metrics=[keras.metrics.SparseCategoricalAccuracy()]), logs=["val_sparse_categorical_accuracy"]
    ),
    "metric-of-classes": Row(lambda: net(metrics=["accuracy", SparseF1(name="f1")]), logs=["val_f1"]),
    "metric-of-several": Row(
        lambda: net(metrics=["accuracy", Several()]),
        lambda folder: [C.EarlyStopping("val_sure", mode="max", patience=3)],
        logs=["val_sure", "val_unsure"],
    ),
    "metric-of-one-hot": Row(
        lambda: net(metrics=["AUC"]), refused=r"A metric must take integer labels \(n,\) .*, but AUC raised ValueError"
    ),
    "layer-metric": layer(lambda: [Tracks()], logs=["size", "val_size"]),
    "other-accuracy": Row(
        lambda: net(metrics=[keras.metrics.SparseTopKCategoricalAccuracy(3, name="accuracy")]),
        refused="metric accuracy of a model must be the share of right answers, but that of Sequential is SparseTopK",
    ),
}
MODELS = {
    "no-input": Row(no_input),
    "subclassed": Row(lambda: compiled(Subclassed)),
    "without-training": Row(lambda: compiled(WithoutTraining)),
    "lazy": Row(lambda: compiled(Lazy), refused=r"make_row\w* raised ValueError"),  # as in `fit`
    "functional": Row(functional),
    "steps-per-execution": Row(lambda: net(steps_per_execution=4)),
    "train-step": Row(lambda: functional(TrainStep), refused="leave train_step to Keras.* returned a TrainStep with"),
    "inherited-step": Row(
        lambda: functional(InheritedStep), refused="leave train_step to Keras.* a InheritedStep with"
    ),
    "test-step": Row(lambda: functional(TestStep), refused="leave test_step to Keras"),
    "fit": Row(lambda: functional(Fit), refused="leave fit to Keras"),
    "compute-metrics": Row(lambda: functional(ComputeMetrics), refused="leave compute_metrics to Keras"),
    "make-train-function": Row(lambda: functional(MakeTrainFunction), refused="leave make_train_function to Keras"),
    "patched": Row(patched, refused="leave train_step to Keras"),
    "patched-keras": Row(patched_keras, refused="leave test_step to Keras"),
    "eager": Row(lambda: net(run_eagerly=True), refused="must compile without run_eagerly"),
    "jit": Row(lambda: net(jit_compile=True), refused="must compile without jit_compile"),
    "nothing-to-train": Row(untrainable, refused="with weights to train"),
    "random-answers": Row(lambda: net(AlwaysNoisy()), refused="must give the same answers"),
    "batch-answers": Row(
        lambda: net(L.Lambda(lambda x: x - keras.ops.mean(x, axis=0))), refused="must answer each image by itself"
    ),
    "ema": optimizer(lambda: O.Adam(0.003, use_ema=True), refused="must say when its averages are used, but Adam"),
}
CALLBACKS = {
    "rate-scheduler": callback(lambda _: C.LearningRateScheduler(lambda epoch, rate: rate * 0.3)),
    "reduce-on-plateau": callback(
        lambda _: C.ReduceLROnPlateau("val_accuracy", patience=1, factor=0.1, min_delta=1.0, verbose=0)
    ),
    "reduce-without-metrics": callback(
        lambda _: C.ReduceLROnPlateau("val_accuracy", mode="max", patience=1, min_delta=1.0),
        model=lambda: net(metrics=None),
    ),
    "early-stopping": callback(lambda _: C.EarlyStopping("val_accuracy", patience=3, restore_best_weights=True)),
    "early-stopping-baseline": callback(lambda _: C.EarlyStopping("val_loss", baseline=1e-9, patience=1)),
    "early-stopping-metric": callback(
        lambda _: C.EarlyStopping("val_top3", patience=3), model=lambda: net(metrics=[_top3()]), logs=["val_top3"]
    ),
    "checkpoint": callback(
        lambda folder: C.ModelCheckpoint(folder / "{epoch}.keras", monitor="val_accuracy", save_best_only=True)
    ),
    "csv-logger": callback(lambda folder: C.CSVLogger(folder / "log.csv")),
    "lambda": callback(lambda _: C.LambdaCallback(on_epoch_end=lambda epoch, logs: None)),
    "rate-before-first-epoch": callback(lambda _: SetRateBefore()),
    "frozen-before-first-epoch": callback(lambda _: FreezeBefore()),
    "dropout-before-first-epoch": callback(lambda _: DropMore()),
    "around-tests": callback(lambda _: AroundTests()),
    "stops-at-once": callback(lambda _: StopsAtOnce()),
    "stops-before-first-epoch": callback(lambda _: StopsBefore(0), model=lambda: net(L.BatchNormalization())),
    "stops-before-second-epoch": callback(lambda _: StopsBefore(1)),
    "stops-and-goes-on": callback(lambda _: [StopsAtOnce(), StopsBefore(1)]),
    "stops-after-four-steps": callback(lambda _: StopsBefore(1), model=lambda: net(steps_per_execution=4)),
    "stops-after-all-steps": callback(lambda _: StopsBefore(1), model=lambda: net(steps_per_execution=99)),
    "stops-validation": callback(lambda _: StopsValidation(), refused="but one set model.stop_evaluating"),
    "swap-ema": callback(
        lambda _: C.SwapEMAWeights(), model=lambda: net(optimizer=O.Adam(0.003, use_ema=True, ema_momentum=0.9))
    ),
    "swap-ema-on-epoch": callback(
        lambda _: C.SwapEMAWeights(swap_on_epoch=True), model=lambda: net(optimizer=O.SGD(0.1, use_ema=True))
    ),
    "backup": callback(lambda folder: C.BackupAndRestore(folder / "backup")),
    "monitors-added": callback(lambda _: [AddsToLogs(), C.EarlyStopping("val_own", mode="max")]),
    "monitors-rate": callback(
        lambda _: [C.LearningRateScheduler(lambda epoch: 0.003), C.EarlyStopping("learning_rate", mode="max")]
    ),
    "monitors-nothing": callback(
        lambda _: C.EarlyStopping("val_auc", mode="max"),
        refused=r"must monitor what the training measures \(accuracy, loss, val_accuracy, val_loss\), but "
        "EarlyStopping monitors val_auc",
    ),
    "monitors-nothing-added": callback(
        lambda _: [AddsToLogs(), C.ReduceLROnPlateau("val_auc")], refused="ReduceLROnPlateau monitors val_auc"
    ),
    "recompiles": callback(lambda _: Recompiles(), refused="but they were changed before epoch 2"),
    "compiles-before": callback(lambda _: CompilesBefore(), refused=r"must leave compile\(\) as it is"),
    "steps-before": callback(lambda _: StepsBefore(), refused="must leave train_step as it is"),
    "inner-rate-later": callback(
        lambda _: InnerRateLater(),
        model=lambda: net(optimizer=O.LossScaleOptimizer(O.Adam(0.003))),
        refused="but they were changed before epoch 2",
    ),
    "batch-hook": callback(lambda _: BatchHook(), refused="returned BatchHook with on_train_batch_end"),
    "test-batch-hook": callback(lambda _: TestBatchHook(), refused="returned TestBatchHook with on_test_batch_begin"),
    "terminate-on-nan": callback(lambda _: C.TerminateOnNaN(), refused="returned TerminateOnNaN with on_batch_end"),
    "lambda-batch": callback(
        lambda _: C.LambdaCallback(on_test_batch_end=lambda batch, logs: None),
        refused="returned LambdaCallback with on_test_batch_end",
    ),
    "progress-bar": callback(lambda _: C.ProgbarLogger(), refused="returned ProgbarLogger with on_train_batch_end"),
    "backup-batches": callback(
        lambda folder: C.BackupAndRestore(folder / "b", save_freq=10), refused="returned BackupAndRestore with"
    ),
    "checkpoint-batches": callback(
        lambda folder: C.ModelCheckpoint(folder / "x.keras", save_freq=10), refused="returned ModelCheckpoint with"
    ),
    "checkpoint-subclass": callback(
        lambda folder: BusyCheckpoint(folder / "x.keras"), refused="returned BusyCheckpoint with on_train_batch_end"
    ),
}


def _top3() -> keras.metrics.Metric:
    return keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")


ROWS: dict[str, Row] = {**OPTIMIZERS, **LAYERS, **LOSSES, **METRICS, **MODELS, **CALLBACKS}
IN_EVERY_SUITE = {
    *("adam", "metrics"),
    *(name for name, row in ROWS.items() if row.refused),
}


# Both sides


@dataclass
class Run:
    """What a training left after each epoch."""

    weights: list[list[np.ndarray]] = field(default_factory=list)
    logs: list[dict[str, float]] = field(default_factory=list)


class Snapshot(C.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.run = Run()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.run.weights.append(self.model.get_weights())
        self.run.logs.append(dict(logs or {}))


class Batches(keras.utils.PyDataset):
    """The batches of the engine's epochs, for `fit`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        self.images, self.labels, self.epoch = images, labels, 0

    def __len__(self) -> int:
        return -(-N_TRAIN // BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng([SEED, self.epoch]).permutation(N_TRAIN)
        rows = order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        return self.images[rows], self.labels[rows]


class Turn(C.Callback):
    """Tells the batches which epoch it is."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.epoch = epoch


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def arrays(garments: Splits) -> Arrays:
    return (
        garments.train_images[:N_TRAIN],
        garments.train_labels[:N_TRAIN].astype(np.int32),
        garments.validation_images[:N_VALIDATION],
        garments.validation_labels[:N_VALIDATION].astype(np.int32),
    )


@pytest.fixture(scope="module")
def data(arrays: Arrays) -> ResidentData:
    return ResidentData.from_arrays(FASHION_MNIST, *arrays)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keras.Model, "test_step", keras.Model.test_step)  # which a row replaces
    yield
    keras.backend.clear_session(free_memory=False)


def run_stock(row: Row, arrays: Arrays, folder: Path) -> Run:
    keras.utils.set_random_seed(SEED)
    model, snapshot, batches = (row.like or row.model)(), Snapshot(), Batches(*arrays[:2])
    model.fit(
        batches,
        validation_data=arrays[2:],
        validation_batch_size=N_VALIDATION,
        epochs=N_EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[Turn(batches), *row.callbacks(folder), snapshot],
    )
    return snapshot.run


def run_engine(row: Row, data: ResidentData, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As a worker does it: `build_model`, hooks, `train`."""

    monkeypatch.setattr(sys.modules[__name__], "make_row_model", row.model, raising=False)
    spec = parse_spec(
        {"name": "row", "model": {"architecture": f"{__name__}:make_row_model"}, "grid": {"a": [1]}}, "row"
    )
    keras.utils.set_random_seed(SEED)
    model, snapshot = build_model(load_architecture(spec.model.architecture), spec, {}, FASHION_MNIST), Snapshot()
    callbacks = row.callbacks(folder)
    for made in callbacks:
        check_hooks(made, "row:make")
    result = train(
        model,
        data,
        batch_size=BATCH_SIZE,
        max_epochs=N_EPOCHS,
        patience=N_EPOCHS,
        seed=SEED,
        callbacks=[*callbacks, snapshot],
    )
    answers = model(data.validation_images, training=False).numpy().argmax(axis=1)
    assert result.val_accuracy == float(np.mean(answers == data.validation_labels.numpy()))
    return snapshot.run


def assert_close(found: Any, expected: Any, tolerance: float, name: str) -> None:
    scale = max(1e-3, float(np.max(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in IN_EVERY_SUITE else pytest.mark.matrix) for name in ROWS],
)
def test_training_is_that_of_fit(
    name: str, arrays: Arrays, data: ResidentData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and curves of the row are those of stock `fit`, or the row is refused for its reason."""
    row = ROWS[name]
    folder = tmp_path / "engine"
    folder.mkdir()
    if row.refused:
        with pytest.raises(SpecError, match=row.refused):
            run_engine(row, data, folder, monkeypatch)
        return
    found = run_engine(row, data, folder, monkeypatch)
    stock_folder = tmp_path / "stock"
    stock_folder.mkdir()
    expected = run_stock(row, arrays, stock_folder)
    assert len(found.logs) == len(expected.logs) > 0
    for epoch in range(len(found.logs)):
        for index, (ours, theirs) in enumerate(zip(found.weights[epoch], expected.weights[epoch], strict=True)):
            assert_close(ours, theirs, row.tolerance, f"epoch {epoch}, weight {index}")
        compared = found.logs[epoch].keys() & expected.logs[epoch].keys()
        assert compared >= {"loss", "val_loss", *row.logs}
        for key in sorted(compared):
            few_images = 3 / N_VALIDATION  # that rounding may tip over
            tolerance = few_images if "acc" in key or "top3" in key else row.tolerance
            assert_close(found.logs[epoch][key], expected.logs[epoch][key], tolerance, f"epoch {epoch}, {key}")


def test_matrix_is_large_enough() -> None:
    """At least forty things that people bring are compared with `fit`, and some twenty are refused by name."""
    n_refused = sum(bool(row.refused) for row in ROWS.values())
    assert len(ROWS) - n_refused >= 40
    assert n_refused >= 20
