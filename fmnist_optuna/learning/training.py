"""One training run: whole epochs inside one compiled graph over resident images, driven by real Keras callbacks.

Stock `fit` spends most of a small model's time outside its kernels: the data pipeline, one Python step a batch, metric
updates. Here an epoch, validation included, is one call: images stay in memory as uint8 and are gathered a batch at a
time. One thread a worker is the fastest at these sizes, so parallelism is across workers.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.learning.adam import fuse
from fmnist_optuna.learning.probabilities import compute_probabilities, gives_logits

SCORING_BATCH = 2_000  # images a forward pass without gradients; larger ones gain nothing and cost memory


def use_one_thread() -> None:
    """Give TensorFlow one thread; must come before its first operation in the process."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@dataclass(frozen=True)
class ResidentData:
    """Training and validation images as tensors: uint8 (n, 28, 28), with int32 labels (n,)."""

    train_images: tf.Tensor
    train_labels: tf.Tensor
    validation_images: tf.Tensor
    validation_labels: tf.Tensor

    @classmethod
    def from_arrays(
        cls,
        train_images: NDArray[np.uint8],
        train_labels: NDArray[np.uint8],
        validation_images: NDArray[np.uint8],
        validation_labels: NDArray[np.uint8],
    ) -> "ResidentData":
        """Take arrays into TensorFlow once: mapped images stay in the pages where they are, others are copied."""
        return cls(
            _as_tensor(train_images),
            tf.constant(train_labels.astype(np.int32)),
            _as_tensor(validation_images),
            tf.constant(validation_labels.astype(np.int32)),
        )


def _as_tensor(images: NDArray[np.uint8]) -> tf.Tensor:
    if isinstance(images, np.memmap):
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return tf.constant(images, tf.uint8)


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch: losses and accuracies (0..1) over all training (with dropout) and all validation images."""

    epoch: int  # 0-based
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float

    @property
    def is_finite(self) -> bool:
        """Whether neither loss is NaN or infinite."""
        return math.isfinite(self.train_loss) and math.isfinite(self.val_loss)


@dataclass(frozen=True)
class TrainingResult:
    """How a training run ended. The model holds the weights of `best_epoch`.

    Args:
        epochs: One entry for each epoch that ran.
        best_epoch: 0-based epoch whose weights are kept.
        val_accuracy: Of those very weights, 0..1.
        is_diverged: Whether a loss became NaN or infinite.
    """

    epochs: tuple[EpochMetrics, ...]
    best_epoch: int
    val_accuracy: float
    is_diverged: bool


def train(
    model: keras.Model,
    data: ResidentData,
    *,
    batch_size: int,
    max_epochs: int,
    patience: int,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainingResult:
    """Train a compiled model with early stopping on val_accuracy; the best epoch's weights stay in it.

    The updates of an optimizer that is exactly keras.optimizers.Adam are fused.

    Args:
        model: Compiled; takes uint8 images (n, 28, 28).
        data: Resident images and labels.
        batch_size: Images a step; the last step of an epoch takes what is left.
        max_epochs: Cap on epochs, >= 1.
        patience: Epochs without a better val_accuracy before training stops, >= 1.
        seed: Of the shuffles; the model's own seeds are set before it is built.
        callbacks: Keras callbacks with epoch hooks; `model.stop_training = True` ends the run after the epoch.

    Returns:
        The epochs and which one was kept.
    """
    fuse(model.optimizer)
    run_epoch = compile_epoch(model, data, batch_size)
    early_stopping = keras.callbacks.EarlyStopping(
        monitor="val_accuracy", mode="max", patience=patience, restore_best_weights=True
    )
    n_steps = math.ceil(int(data.train_images.shape[0]) / batch_size)
    callback_list = keras.callbacks.CallbackList(
        [early_stopping, *callbacks], add_history=True, model=model, epochs=max_epochs, steps=n_steps, verbose=0
    )
    model.stop_training = False
    epochs: list[EpochMetrics] = []
    logs: dict[str, float] = {}
    callback_list.on_train_begin()
    for epoch in range(max_epochs):
        callback_list.on_epoch_begin(epoch)
        epochs.append(run_epoch(epoch, seed))
        logs = _logs(epochs[-1])
        callback_list.on_epoch_end(epoch, logs)
        if model.stop_training or not epochs[-1].is_finite:
            break
    callback_list.on_train_end(logs)
    best = epochs[early_stopping.best_epoch]
    return TrainingResult(tuple(epochs), best.epoch, best.val_accuracy, not epochs[-1].is_finite)


def _logs(metrics: EpochMetrics) -> dict[str, float]:
    """Under the names that Keras' callbacks expect."""
    return {
        "accuracy": metrics.train_accuracy,
        "loss": metrics.train_loss,
        "val_accuracy": metrics.val_accuracy,
        "val_loss": metrics.val_loss,
    }


def compile_epoch(model: keras.Model, data: ResidentData, batch_size: int) -> Callable[[int, int], EpochMetrics]:
    """Trace one epoch, training and validation, into one graph.

    Returns:
        A function of the 0-based epoch and the seed of the shuffles that runs the epoch.
    """
    n_train, n_validation = int(data.train_images.shape[0]), int(data.validation_images.shape[0])
    model.optimizer.build(model.trainable_variables)
    graph = _trace_epoch(model, data, min(batch_size, n_train)).get_concrete_function()

    def run_epoch(epoch: int, seed: int) -> EpochMetrics:
        began = time.perf_counter()
        order = np.random.default_rng([seed, epoch]).permutation(n_train).astype(np.int32)
        train_loss, train_correct, val_loss, val_correct = (value.numpy() for value in graph(tf.constant(order)))
        return EpochMetrics(
            epoch=epoch,
            train_loss=float(train_loss) / n_train,
            train_accuracy=int(train_correct) / n_train,
            val_loss=float(val_loss) / n_validation,
            val_accuracy=int(val_correct) / n_validation,
            seconds=time.perf_counter() - began,
        )

    return run_epoch


def _trace_epoch(model: keras.Model, data: ResidentData, batch_size: int) -> Any:
    """A tf.function from a shuffled order (n,) int32 to summed training loss and hits, validation loss and hits."""
    n_train, n_validation = int(data.train_images.shape[0]), int(data.validation_images.shape[0])
    weights = model.trainable_variables

    def train_step(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.gather(data.train_images, rows)
        labels = tf.gather(data.train_labels, rows)
        with tf.GradientTape() as tape:
            output = model(images, training=True)
            loss = model.compute_loss(x=images, y=labels, y_pred=output, training=True)
            scaled = model.optimizer.scale_loss(loss)
        model.optimizer.apply(tape.gradient(scaled, weights), weights)
        return loss * int(rows.shape[0]), _count_hits(output, labels)

    def validate(begin: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.slice(data.validation_images, [begin, 0, 0], [size, -1, -1])
        labels = tf.slice(data.validation_labels, [begin], [size])
        output = model(images, training=False)
        loss = model.compute_loss(x=images, y=labels, y_pred=output, training=False)
        return loss * size, _count_hits(output, labels)

    # Keras marks its own train_step as not to be converted, so the loops live in this function of ours.
    @tf.function(input_signature=[tf.TensorSpec([n_train], tf.int32)])  # type: ignore[untyped-decorator]
    def epoch(order: tf.Tensor) -> tuple[tf.Tensor, ...]:
        train_total = _sum_over_batches(
            n_train, batch_size, lambda begin, size: train_step(tf.ensure_shape(order[begin : begin + size], [size]))
        )
        with tf.control_dependencies(train_total):  # validation sees the epoch's last weights
            validation_total = _sum_over_batches(n_validation, min(SCORING_BATCH, n_validation), validate)
        return (*train_total, *validation_total)

    return epoch


def _sum_over_batches(
    n_items: int, batch_size: int, step: Callable[[Any, int], tuple[tf.Tensor, tf.Tensor]]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Loop a step over full batches, then over the smaller rest: every shape in the graph is static."""
    n_full, rest = divmod(n_items, batch_size)

    def body(index: tf.Tensor, loss: tf.Tensor, hits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        step_loss, step_hits = step(index * batch_size, batch_size)
        return index + 1, loss + step_loss, hits + step_hits

    _, loss, hits = tf.while_loop(
        lambda index, *_: index < n_full, body, (0, tf.constant(0.0), tf.constant(0)), parallel_iterations=1
    )
    if rest:
        with tf.control_dependencies([loss, hits]):
            rest_loss, rest_hits = step(tf.constant(n_full * batch_size), rest)
        loss, hits = loss + rest_loss, hits + rest_hits
    return loss, hits


def _count_hits(output: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    hits = tf.equal(tf.argmax(output, axis=-1, output_type=tf.int32), labels)
    return tf.reduce_sum(tf.cast(hits, tf.int32))


def predict_probabilities(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 (n, 10) of uint8 images (n, 28, 28), with a softmax on the output of a model without."""
    has_logits = gives_logits(model)
    forward = tf.function(lambda batch: compute_probabilities(model, batch, has_logits), reduce_retracing=True)
    return np.concatenate(
        [forward(images[i : i + SCORING_BATCH]).numpy() for i in range(0, len(images), SCORING_BATCH)]
    )
