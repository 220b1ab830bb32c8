"""What is trained with a pause: models, optimizers and callbacks that keep something from one epoch to the next."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from brought_models import C, L, O, image_net, net

from fmnist_optuna.spec.options import PLAIN, Options

Callbacks = Callable[[Path], list[keras.callbacks.Callback]]


class Draws(L.Layer):
    """Draws from Keras' global generator."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + 0.1 * keras.random.normal(keras.ops.shape(x)) if training else x


class OwnVariables(L.Layer):
    """Has a generator and a counter that Keras does not know."""

    def build(self, shape: Any) -> None:
        generator = tf.random.Generator.from_seed(5)
        count = tf.Variable(0.0, trainable=False)
        self.hidden: Any = lambda: (generator, count)

    def call(self, x: Any, training: bool = False) -> Any:
        generator, count = self.hidden()
        if not training:
            return x
        count.assign_add(1.0)
        return x * (1 + 0.001 * count) + 0.1 * generator.normal(tf.shape(x))


@dataclass
class Seen:
    """One note of `Recorder`."""

    epoch: int
    loss: float


class Recorder(C.Callback):
    """Counts and collects, and changes the training by what it has."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.random, self.generator = folder, random.Random(1), np.random.default_rng(1)
        self.seen: list[Seen] = []
        self.same = self.seen
        self.means: dict[str, np.ndarray] = {}
        self.rate: Callable[[int], float] = lambda epoch: 0.002 * 0.9**epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = self.rate(epoch) * (1 + self.random.random() + self.generator.random())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        assert self.same is self.seen
        self.seen.append(Seen(epoch, (logs or {})["loss"]))
        self.means[f"epoch {epoch}"] = np.asarray(self.model.get_weights()[0]).mean(axis=0)
        shift = float(np.random.normal() + random.random() + keras.random.normal(()) + tf.random.normal(()))
        kernel = self.model.trainable_variables[0]
        kernel.assign(kernel.numpy() + 0.001 * shift * len(self.seen))
        with (self.folder / "seen.txt").open("a") as file:
            file.write(f"{self.seen[-1]}\n")


class Holder(C.Callback):
    """Holds something."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held


def enclosing(folder: Path) -> list[keras.callbacks.Callback]:
    """Counts in what its functions enclose."""
    losses: list[float] = []
    n_seen = 0

    def note(epoch: int, logs: Any) -> None:
        nonlocal n_seen
        n_seen += 1
        losses.append(logs["loss"])

    return [C.LambdaCallback(on_epoch_end=note), C.LearningRateScheduler(lambda epoch, lr: lr * (1 - 0.1 * n_seen))]


def from_keras(folder: Path) -> list[keras.callbacks.Callback]:
    return [
        C.EarlyStopping("val_loss", patience=1, min_delta=0.3, start_from_epoch=1, restore_best_weights=True),
        C.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.3),
        C.TerminateOnNaN(),
        C.CSVLogger(folder / "log.csv"),
        C.ModelCheckpoint(folder / "best.weights.h5", "val_loss", save_best_only=True, save_weights_only=True),
        C.BackupAndRestore(folder / "backup"),
    ]


def augmented() -> keras.Model:
    return image_net(
        L.RandomFlip("horizontal"),
        L.RandomTranslation(0.1, 0.1),
        L.RandomRotation(0.05),
        L.Conv2D(2, 3, strides=2, activation="relu"),
    )


@dataclass(frozen=True)
class Row:
    """A model and its callbacks."""

    model: Callable[[], keras.Model]
    callbacks: Callbacks = lambda folder: []
    options: Options = PLAIN


def optimized(optimizer: Callable[[], Any]) -> Row:
    return Row(lambda: net(L.Dropout(0.2), optimizer=optimizer()))


EVERY_OPTION: dict[str, Any] = {
    "optimizer": "sgd", "schedule": "cosine", "warmup_epochs": 0.5, "weight_decay": 0.01, "label_smoothing": 0.1,
    "ema": 0.9, "horizontal_flip": "alternating", "shift": 2, "erase": 6, "mixup": 0.3,
}  # fmt: skip
ROWS = {
    "dense": Row(net),
    "normalized": Row(lambda: net(L.BatchNormalization(), L.Dropout(0.3), L.GaussianNoise(0.1))),
    "augmented": Row(augmented),
    "draws": Row(lambda: net(Draws())),
    "own variables": Row(lambda: net(OwnVariables())),
    "cosine": optimized(lambda: O.Adam(O.schedules.CosineDecay(0.01, 20, warmup_target=0.02, warmup_steps=5))),
    "scheduler": Row(net, lambda folder: [C.LearningRateScheduler(lambda epoch, lr: lr * 0.8)]),
    "own callback": Row(lambda: net(L.Dropout(0.2)), lambda folder: [Recorder(folder)]),
    "enclosing": Row(net, enclosing),
    "keras callbacks": Row(net, from_keras),
    "swapped averages": Row(
        lambda: net(optimizer=O.Adam(0.003, use_ema=True, ema_momentum=0.9)),
        lambda folder: [C.SwapEMAWeights(swap_on_epoch=True)],
    ),
    "averages": optimized(lambda: O.SGD(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=5)),
    "own metric": Row(lambda: net(metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")])),
    "bfloat16": Row(lambda: net(L.Dense(8, dtype="bfloat16"))),
    "momentum": optimized(lambda: O.SGD(0.01, momentum=0.9, nesterov=True)),
    "amsgrad": optimized(lambda: O.Adam(0.003, amsgrad=True)),
    "accumulation": optimized(lambda: O.Adam(0.003, gradient_accumulation_steps=3)),
    "adamw": optimized(lambda: O.AdamW(0.003, weight_decay=0.01)),
    "nadam": optimized(lambda: O.Nadam(0.003)),
    "rmsprop": optimized(lambda: O.RMSprop(0.003, momentum=0.5, centered=True)),
    "adagrad": optimized(lambda: O.Adagrad(0.01)),
    "adadelta": optimized(lambda: O.Adadelta(0.5)),
    "lion": optimized(lambda: O.Lion(0.001)),
    "adamax": optimized(lambda: O.Adamax(0.003)),
    "ftrl": optimized(lambda: O.Ftrl(0.01)),
    "adafactor": optimized(lambda: O.Adafactor(0.01)),
    "lamb": optimized(lambda: O.Lamb(0.003)),
    "muon": optimized(lambda: O.Muon(0.003)),
    "by variable": optimized(lambda: O.MultiOptimizer(O.OptimizerMap(O.Adam(0.003), {".*kernel": O.SGD(0.01)}))),
    "schedule free": optimized(lambda: O.ScheduleFreeAdamW(0.003)),
    "options": Row(lambda: net(L.BatchNormalization(), L.Dropout(0.2)), options=Options(**EVERY_OPTION)),
    "averages of epochs": Row(net, options=Options(ema=0.5, ema_after="epoch", optimizer="adam")),
    "scaled": optimized(lambda: O.LossScaleOptimizer(O.Adam(0.003), initial_scale=64.0, dynamic_growth_steps=3)),
}
IN_EVERY_SUITE = {"normalized", "draws", "own callback"}
