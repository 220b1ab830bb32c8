"""The rows of the matrix: each is one thing that people bring, and is trained as `fit` does or refused for a reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brought_models as own
import keras
from brought_models import LOSS, C, L, O, compiled, functional, image_net, net

# Of the largest entry of each array. One formula is rounded in another order (fused Adam, batches of the validation),
# some 1e-7 a step, and the next gradients carry that on.
TOLERANCE = 2e-4
Callbacks = list[keras.callbacks.Callback]


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
        has_weights: Whether the losses of the images count by weights of their own.
    """

    model: Callable[[], keras.Model]
    callbacks: Callable[[Path], Callbacks] = lambda folder: []
    refused: str = ""
    logs: Sequence[str] = ()
    like: Callable[[], keras.Model] | None = None
    tolerance: float = TOLERANCE
    options: dict[str, Any] = field(default_factory=dict)
    has_weights: bool = False


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
    "add-loss": layer(lambda: [own.AddsLoss()]),
    "frozen": Row(own.frozen),
    "nested": Row(own.nested),
    "embedding": Row(lambda: image_net(L.Reshape((784,)), L.Rescaling(9.0), L.Embedding(10, 2))),
    "augmentation": Row(lambda: image_net(L.RandomTranslation(0.1, 0.1), L.RandomFlip("horizontal"))),
    "convolution": Row(lambda: image_net(L.Conv2D(4, 5, strides=3), L.SpatialDropout2D(0.2), L.MaxPooling2D())),
    "recurrent": Row(lambda: image_net(L.Reshape((28, 28)), last=L.GRU(6))),
    "float64": Row(lambda: net(L.Dense(8, dtype="float64"))),
    "mixed-bfloat16": Row(  # of three digits: Adam would make 10 % of a rounding
        lambda: net(L.Dense(8, dtype="mixed_bfloat16"), optimizer=O.SGD(0.05)), tolerance=5e-2
    ),
    "mixed-bfloat16-guide": Row(own.mixed_precision, tolerance=5e-2),
}
LOSSES = {
    "logits": Row(lambda: net(head=None, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))),
    "label-smoothing": Row(lambda: net(loss=own.smoothed)),
    "custom-loss": Row(lambda: net(loss=own.FocalLoss())),
    "sum": Row(lambda: net(optimizer=O.SGD(1e-4), loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum"))),
    "loss-weights": Row(lambda: net(loss_weights=[0.3])),
    "not-reduced": Row(
        lambda: net(loss=keras.losses.SparseCategoricalCrossentropy(reduction="none")),
        refused=r"must be one number a batch, but that of Sequential is one of shape \(64,\)",
    ),
    "compute-loss": Row(lambda: functional(own.FullLoss)),
    "compute-loss-without-training": Row(lambda: functional(own.OldLoss)),
    "compute-loss-keywords": Row(lambda: functional(own.KeywordLoss)),
    "compute-loss-short": Row(lambda: functional(own.ShortLoss), like=lambda: functional(own.OldLoss)),
    "compute-loss-tracker": Row(lambda: functional(own.OwnTracker, metrics=None), logs=["entropy", "val_entropy"]),
    "compute-loss-on-instance": Row(own.own_loss_on_instance),
    "compute-loss-vector": Row(
        lambda: functional(own.VectorLoss), refused=r"that of VectorLoss is one of shape \(64,\)"
    ),
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
    "metric-of-classes": Row(lambda: net(metrics=["accuracy", own.SparseF1(name="f1")]), logs=["val_f1"]),
    "metric-of-several": Row(
        lambda: net(metrics=["accuracy", own.Several()]),
        lambda folder: [C.EarlyStopping("val_sure", mode="max", patience=3)],
        logs=["val_sure", "val_unsure"],
    ),
    "metric-of-one-hot": Row(
        lambda: net(metrics=["AUC"]), refused=r"A metric must take integer labels \(n,\) .*, but AUC raised ValueError"
    ),
    "layer-metric": layer(lambda: [own.Tracks()], logs=["size", "val_size"]),
    "other-accuracy": Row(
        lambda: net(metrics=[keras.metrics.SparseTopKCategoricalAccuracy(3, name="accuracy")]),
        refused="metric accuracy of a model must be the share of right answers, but that of Sequential is SparseTopK",
    ),
}
MODELS = {
    "no-input": Row(own.no_input),
    "subclassed": Row(lambda: compiled(own.Subclassed)),
    "without-training": Row(lambda: compiled(own.WithoutTraining)),
    "lazy": Row(lambda: compiled(own.Lazy), refused=r"make_row\w* raised ValueError"),  # as in `fit`
    "functional": Row(functional),
    "steps-per-execution": Row(lambda: net(steps_per_execution=4)),
    "train-step": Row(
        lambda: functional(own.TrainStep), refused="leave train_step to Keras.* returned a TrainStep with"
    ),
    "inherited-step": Row(
        lambda: functional(own.InheritedStep), refused="leave train_step to Keras.* a InheritedStep with"
    ),
    "test-step": Row(lambda: functional(own.TestStep), refused="leave test_step to Keras"),
    "fit": Row(lambda: functional(own.Fit), refused="leave fit to Keras"),
    "compute-metrics": Row(lambda: functional(own.ComputeMetrics), refused="leave compute_metrics to Keras"),
    "make-train-function": Row(lambda: functional(own.MakeTrainFunction), refused="leave make_train_function to Keras"),
    "patched": Row(own.patched, refused="leave train_step to Keras"),
    "patched-keras": Row(own.patched_keras, refused="leave test_step to Keras"),
    "eager": Row(lambda: net(run_eagerly=True), refused="must compile without run_eagerly"),
    "jit": Row(lambda: net(jit_compile=True), refused="must compile without jit_compile"),
    "nothing-to-train": Row(own.untrainable, refused="with weights to train"),
    "random-answers": Row(lambda: net(own.AlwaysNoisy()), refused="must give the same answers"),
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
    "rate-before-first-epoch": callback(lambda _: own.SetRateBefore()),
    "frozen-before-first-epoch": callback(lambda _: own.FreezeBefore()),
    "dropout-before-first-epoch": callback(lambda _: own.DropMore()),
    "around-tests": callback(lambda _: own.AroundTests()),
    "stops-at-once": callback(lambda _: own.StopsAtOnce()),
    "stops-before-first-epoch": callback(lambda _: own.StopsBefore(0), model=lambda: net(L.BatchNormalization())),
    "stops-before-second-epoch": callback(lambda _: own.StopsBefore(1)),
    "stops-and-goes-on": callback(lambda _: [own.StopsAtOnce(), own.StopsBefore(1)]),
    "stops-after-four-steps": callback(lambda _: own.StopsBefore(1), model=lambda: net(steps_per_execution=4)),
    "stops-after-all-steps": callback(lambda _: own.StopsBefore(1), model=lambda: net(steps_per_execution=99)),
    "stops-validation": callback(lambda _: own.StopsValidation(), refused="but one set model.stop_evaluating"),
    "swap-ema": callback(
        lambda _: C.SwapEMAWeights(), model=lambda: net(optimizer=O.Adam(0.003, use_ema=True, ema_momentum=0.9))
    ),
    "swap-ema-on-epoch": callback(
        lambda _: C.SwapEMAWeights(swap_on_epoch=True), model=lambda: net(optimizer=O.SGD(0.1, use_ema=True))
    ),
    "backup": callback(lambda folder: C.BackupAndRestore(folder / "backup")),
    "monitors-added": callback(lambda _: [own.AddsToLogs(), C.EarlyStopping("val_own", mode="max")]),
    "monitors-rate": callback(
        lambda _: [C.LearningRateScheduler(lambda epoch: 0.003), C.EarlyStopping("learning_rate", mode="max")]
    ),
    "monitors-nothing": callback(
        lambda _: C.EarlyStopping("val_auc", mode="max"),
        refused=r"must monitor what the training measures \(accuracy, loss, val_accuracy, val_loss\), but "
        "EarlyStopping monitors val_auc",
    ),
    "monitors-nothing-added": callback(
        lambda _: [own.AddsToLogs(), C.ReduceLROnPlateau("val_auc")], refused="ReduceLROnPlateau monitors val_auc"
    ),
    "recompiles": callback(lambda _: own.Recompiles(), refused="but they were changed before epoch 2"),
    "compiles-before": callback(lambda _: own.CompilesBefore(), refused=r"must leave compile\(\) as it is"),
    "steps-before": callback(lambda _: own.StepsBefore(), refused="must leave train_step as it is"),
    "inner-rate-later": callback(
        lambda _: own.InnerRateLater(),
        model=lambda: net(optimizer=O.LossScaleOptimizer(O.Adam(0.003))),
        refused="but they were changed before epoch 2",
    ),
    "batch-hook": callback(lambda _: own.BatchHook(), refused="returned BatchHook with on_train_batch_end"),
    "test-batch-hook": callback(
        lambda _: own.TestBatchHook(), refused="returned TestBatchHook with on_test_batch_begin"
    ),
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
        lambda folder: own.BusyCheckpoint(folder / "x.keras"),
        refused="returned BusyCheckpoint with on_train_batch_end",
    ),
}


def _top3() -> keras.metrics.Metric:
    return keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")


WEIGHTS = {
    "sample-weights": Row(lambda: net(L.Dropout(0.2)), has_weights=True),
    "sample-weights-logits": Row(
        lambda: net(head=None, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)), has_weights=True
    ),
    "sample-weights-sum": Row(
        lambda: net(optimizer=O.SGD(1e-4), loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum")),
        has_weights=True,
    ),
    "sample-weights-mean-of-weights": Row(
        lambda: net(loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")),
        has_weights=True,
    ),
    "sample-weights-custom-loss": Row(lambda: net(loss=own.FocalLoss()), has_weights=True),
    "sample-weights-regularizers": layer(
        lambda: [L.Dense(8, kernel_regularizer="l2", activity_regularizer="l2")], has_weights=True
    ),
    "sample-weights-metrics": Row(
        lambda: net(metrics=["accuracy"], weighted_metrics=["sparse_categorical_crossentropy"]),
        has_weights=True,
        logs=["val_sparse_categorical_crossentropy"],
    ),
    "sample-weights-compute-loss": Row(lambda: functional(own.FullLoss), has_weights=True),
    "sample-weights-short-loss": Row(
        lambda: functional(own.ShortLoss), has_weights=True, refused="must take sample_weight where images have weights"
    ),
}
ROWS: dict[str, Row] = {**OPTIMIZERS, **LAYERS, **LOSSES, **METRICS, **MODELS, **CALLBACKS, **WEIGHTS}
IN_EVERY_SUITE = {
    "adam",
    *(name for name, row in ROWS.items() if row.refused),
}
