"""The compiled passes of a training: one epoch over the training images, one over the validation images.

Stock `fit` spends most of a small model's time outside its kernels: the data pipeline, one Python step a batch, metric
updates. Here a pass is one call of one graph: images stay in memory as they are and are gathered a batch at a time. A
step is that of Keras' own `train_step` and `test_step`; the one of training is in `step`. The loop around the passes,
with its callbacks, is in `loop`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import PLAIN, Options
from fmnist_optuna.training.batches import largest_image_bytes, sum_over_batches, trace_scoring, variables_in
from fmnist_optuna.training.contract import find_own_step, optimizers_of
from fmnist_optuna.training.fused import fused
from fmnist_optuna.training.loss import bind_loss
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.step import TrainingStep, forward

# From a shuffled order (n,) int32, the number of steps and what else is drawn for the epoch, or from nothing, to the
# summed loss and hits.
Sums = tuple[tf.Tensor, tf.Tensor]
TrainingGraph = Callable[[tf.Tensor, tf.Tensor, Mapping[str, tf.Tensor]], Sums]
ValidationGraph = Callable[[], Sums]


def use_threads(n_threads: int = 1) -> None:
    """Give each operation of TensorFlow so many threads; must come before the first one in the process.

    One is the fastest where there are as many workers as cores: parallelism is then across workers.
    """
    tf.config.threading.set_intra_op_parallelism_threads(n_threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@dataclass(frozen=True)
class Score:
    """Mean loss and accuracy (0..1) over the images of one pass."""

    loss: float
    accuracy: float


class TrainingPass:
    """One epoch over all training images, in an order of its own.

    The graph is traced when the first epoch runs, as in `fit`: what callbacks changed before it counts.

    Args:
        model: Compiled and built.
        data: Resident images and labels.
        batch_size: Images a step; the last step takes what is left.
        options: What a step does beside.
        max_epochs: Cap on epochs, at which a schedule ends.

    Attributes:
        averages: Of the weights, if there are any.
        variables: Those that the graph reads or writes, once it is traced. A graph alone does not keep them alive.
    """

    def __init__(
        self,
        model: keras.Model,
        data: ResidentData,
        batch_size: int,
        options: Options = PLAIN,
        max_epochs: int = 1,
    ) -> None:
        self._model = model
        self._n_images = int(data.train_images.shape[0])
        self._batch_size = min(batch_size, self._n_images)
        self._step = TrainingStep(model, data, options, max_epochs, math.ceil(self._n_images / self._batch_size))
        self.averages = self._step.averages
        self._graph: TrainingGraph | None = None
        self.variables: list[tf.Variable] = []
        self._compiled_with = model._loss_tracker  # compile() makes a new one each time
        self._traced_with: list[object] = []

    def __call__(self, epoch: int, seed: int) -> Score:
        """Run the 0-based epoch; if the model is to stop already, end after one execution, as `fit` does.

        Args:
            seed: Of the shuffles.

        Returns:
            Means over the images that were seen.

        Raises:
            SpecError: The model's loss is not one number a batch, or what the graph was traced with was exchanged.
        """
        graph = self.prepare()
        if not _are_same(self._traced_with, _parts(self._model)):
            raise SpecError(
                "training.callbacks must leave the optimizer and what is trainable as they are from the first epoch "
                f"on, as an epoch is one graph, but they were changed before epoch {epoch + 1}; change them in "
                "on_train_begin."
            )
        self._step.check_rate(epoch)
        order = np.random.default_rng([seed, epoch]).permutation(self._n_images).astype(np.int32)
        drawn = {name: tf.constant(values) for name, values in self._step.draw(seed, epoch).items()}
        n_steps = self._step.n_steps
        if self._model.stop_training:  # `fit` looks after each execution, which takes some steps
            n_steps = min(n_steps, self._model.steps_per_execution)
        loss, hits = graph(tf.constant(order), tf.constant(n_steps), drawn)
        n_seen = min(n_steps * self._batch_size, self._n_images)
        return Score(float(loss.numpy()) / n_seen, int(hits.numpy()) / n_seen)

    def prepare(self) -> TrainingGraph:
        """Trace the graph, unless it is there.

        Raises:
            SpecError: The model's loss is not one number a batch.
        """
        if self._graph is None:
            self._check_steps()
            with fused(self._model.optimizer):
                self._graph = self._trace()
            self.variables = variables_in(self._graph)
            self._traced_with = _parts(self._model)
        return self._graph

    def _check_steps(self) -> None:
        """Refuse what callbacks changed before the first epoch and an epoch would pass over."""
        is_same = self._model._loss_tracker is self._compiled_with
        step = find_own_step(self._model) if is_same else "compile()"
        if step is not None:
            raise SpecError(
                f"training.callbacks must leave {step} as it is, as an epoch is one graph of its own, but a callback "
                "changed it before the first epoch; let the architecture compile the model."
            )

    def _trace(self) -> TrainingGraph:
        """A concrete function from a shuffled order, the number of steps and what is drawn to summed loss and hits."""

        def take(order: tf.Tensor, drawn: Mapping[str, tf.Tensor], begin: tf.Tensor, size: int) -> Sums:
            rows = tf.ensure_shape(order[begin : begin + size], [size])
            loss, output, labels = self._step(rows, lambda: begin // self._batch_size, drawn)
            return _sum_of(loss, size), _count_hits(output, labels)

        drawn_specs = {
            name: tf.TensorSpec(values.shape, values.dtype) for name, values in self._step.draw(0, 0).items()
        }
        specs = [tf.TensorSpec([self._n_images], tf.int32), tf.TensorSpec([], tf.int32), drawn_specs]

        # Keras traces its steps without AutoGraph too; with it, errors of the user's code would lose their type.
        @tf.function(autograph=False, input_signature=specs)
        def epoch(order: tf.Tensor, n_steps: tf.Tensor, drawn: Mapping[str, tf.Tensor]) -> Sums:
            return sum_over_batches(self._n_images, self._batch_size, partial(take, order, drawn), n_steps)

        return epoch.get_concrete_function()


class ValidationPass:
    """One forward pass over validation images: the same weights give the same score, bit for bit, on one machine.

    Args:
        model: Compiled and built.
        images: (n, *image_shape).
        labels: int32 (n,).
        update_metrics: Told labels and outputs of every batch, in the graph.

    Attributes:
        variables: Those that the graph reads or writes, once it is traced.
    """

    def __init__(
        self,
        model: keras.Model,
        images: tf.Tensor,
        labels: tf.Tensor,
        update_metrics: Callable[[tf.Tensor, tf.Tensor], None] = lambda labels, output: None,
    ) -> None:
        self._model = model
        self._images = images
        self._labels = labels
        self._update_metrics = update_metrics
        self._graph: ValidationGraph | None = None
        self.variables: list[tf.Variable] = []

    def __call__(self) -> Score:
        """Score the weights that the model has now."""
        n_images = int(self._images.shape[0])
        loss, hits = self.prepare()()
        return Score(float(loss.numpy()) / n_images, int(hits.numpy()) / n_images)

    def prepare(self) -> ValidationGraph:
        """Trace the graph, unless it is there."""
        if self._graph is None:
            self._graph = trace_scoring(int(self._images.shape[0]), self._trace)[0]
            self.variables = variables_in(self._graph)
        return self._graph

    def _trace(self, batch: int) -> tuple[ValidationGraph, float]:
        """A concrete function to summed loss and hits, and the bytes an image of its largest tensor."""
        model, compute_loss = self._model, bind_loss(self._model)
        largest: list[float] = []
        n_axes = self._images.shape.rank - 1

        def step(begin: tf.Tensor, size: int) -> Sums:
            images = tf.slice(self._images, [begin, *[0] * n_axes], [size, *[-1] * n_axes])
            labels = tf.slice(self._labels, [begin], [size])
            output = forward(model, images, training=False)
            loss = compute_loss(images, labels, output, False)
            self._update_metrics(labels, output)
            largest.append(largest_image_bytes(size))
            return _sum_of(loss, size), _count_hits(output, labels)

        n_images = int(self._images.shape[0])
        validate = tf.function(lambda: sum_over_batches(n_images, batch, step), autograph=False)
        return validate.get_concrete_function(), largest[0]


def _sum_of(loss: tf.Tensor, n_images: int) -> tf.Tensor:
    """A batch's mean loss times its images; types of few digits are summed in float32."""
    is_narrow = loss.dtype in (tf.float16, tf.bfloat16)
    return (tf.cast(loss, tf.float32) if is_narrow else loss) * n_images


def _count_hits(output: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    hits = tf.equal(tf.argmax(output, axis=-1, output_type=tf.int32), labels)
    return tf.reduce_sum(tf.cast(hits, tf.int32))


def _parts(model: keras.Model) -> list[object]:
    """What a traced epoch holds on to; compile() makes a new loss tracker each time."""
    rates = [getattr(optimizer, "_learning_rate", None) for optimizer in optimizers_of(model.optimizer)]
    return [model.optimizer, *rates, model._loss_tracker, *model.trainable_weights]


def _are_same(first: list[object], second: list[object]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
