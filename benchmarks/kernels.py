"""The kernels of one training step of a 784-h-10 net, each in a compiled loop of its own.

A loop reads its inputs from variables and carries what it computed into its next turn: TensorFlow may then neither
compute it once for all nor leave it out. Knows no clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.training.batches import SCORING_BATCH
from fmnist_optuna.training.resident_data import ResidentData

GROUPS = ("GEMM", "Adam", "random", "gather", "small")
N_PIXELS = 28 * 28
DROPOUT_RATE = 0.2
PHILOX = 1  # TensorFlow's number of the algorithm that Keras' dropout draws with on a CPU


@dataclass(frozen=True)
class Kernel:
    """One kernel of a training step, or a few that TensorFlow fuses.

    Args:
        group: One of GROUPS.
        run: Takes the number of the step and the values of `inputs`; returns what it computes. Returns None if it
            changes variables instead.
        inputs: Read anew each time, so that nothing is computed once for all.
    """

    group: str
    run: Callable[..., tf.Tensor | None]
    inputs: tuple[tf.Variable, ...] = ()


def make_kernels(hidden_size: int, batch_size: int, data: ResidentData) -> list[Kernel]:
    """The kernels of one step of a 784-h-10 net, on values like those of training."""
    normal = np.random.default_rng(0).standard_normal

    def variable(*shape: int) -> tf.Variable:
        return tf.Variable(normal(shape, np.float32) / 10)

    def whole(values: Any, dtype: Any) -> tf.Variable:
        return tf.Variable(tf.constant(values, dtype))

    n_images = int(data.train_images.shape[0])
    n_steps = n_images // batch_size
    order = np.random.default_rng(0).permutation(n_images)[: n_steps * batch_size].reshape(n_steps, batch_size)
    rows = tf.constant(order, tf.int32)
    bytes_ = tf.Variable(tf.reshape(data.train_images[:batch_size], [batch_size, N_PIXELS]))
    labels = tf.Variable(data.train_labels[:batch_size])
    images, hidden, logits = variable(batch_size, N_PIXELS), variable(batch_size, hidden_size), variable(batch_size, 10)
    kept = tf.Variable(tf.random.stateless_uniform([batch_size, hidden_size], [0, 0]) >= DROPOUT_RATE)
    noise = tf.Variable(tf.random.stateless_uniform([batch_size, hidden_size], [0, 1]))
    weights_1, bias_1 = variable(N_PIXELS, hidden_size), variable(hidden_size)
    weights_2, bias_2 = variable(hidden_size, FASHION_MNIST.n_classes), variable(FASHION_MNIST.n_classes)
    key, counter = whole([1], tf.uint64), whole([2, 3], tf.uint64)
    scale = 1 / (1 - DROPOUT_RATE)
    return [
        # Forward, with bias and ReLU in the same kernel as TensorFlow fuses them; then backward.
        Kernel("GEMM", lambda _, x, w, b: tf.nn.relu(tf.nn.bias_add(x @ w, b)), (images, weights_1, bias_1)),
        Kernel("GEMM", lambda _, x, w, b: tf.nn.bias_add(x @ w, b), (hidden, weights_2, bias_2)),
        Kernel("GEMM", lambda _, x, g: tf.matmul(x, g, transpose_a=True), (images, hidden)),
        Kernel("GEMM", lambda _, x, g: tf.matmul(x, g, transpose_a=True), (hidden, logits)),
        Kernel("GEMM", lambda _, g, w: tf.matmul(g, w, transpose_b=True), (logits, weights_2)),
        *[make_adam(weights) for weights in (weights_1, bias_1, weights_2, bias_2)],
        Kernel("random", lambda _, k, c: draw_uniform([batch_size, hidden_size], k, c), (key, counter)),
        Kernel("gather", lambda i: tf.gather(data.train_images, rows[i])),
        Kernel("gather", lambda i: tf.gather(data.train_labels, rows[i])),
        Kernel("gather", lambda _, x: tf.cast(x, tf.float32), (bytes_,)),
        Kernel("gather", lambda _, x: x * (1 / 255), (images,)),
        # Dropout: which units are kept, what they give, and their gradient; ReLU's gradient, and the biases'.
        Kernel("small", lambda _, u: u >= DROPOUT_RATE, (noise,)),
        Kernel("small", lambda _, x, k: tf.where(k, x, 0.0), (hidden, kept)),
        Kernel("small", lambda _, x: x * scale, (hidden,)),
        Kernel("small", lambda _, g, k: tf.where(k, g, 0.0), (hidden, kept)),
        Kernel("small", lambda _, g, x: tf.raw_ops.ReluGrad(gradients=g, features=x), (hidden, hidden)),
        Kernel("small", lambda _, g: tf.raw_ops.BiasAddGrad(out_backprop=g), (hidden,)),
        Kernel("small", lambda _, g: tf.raw_ops.BiasAddGrad(out_backprop=g), (logits,)),
        # The loss and its gradient come from one kernel; the gradient is then scaled; hits.
        Kernel("small", lambda _, x, y: cross_entropy(x, y).backprop, (logits, labels)),
        Kernel("small", lambda _, g: g * (1 / batch_size), (logits,)),
        Kernel("small", lambda _, x: tf.argmax(x, axis=-1, output_type=tf.int32), (logits,)),
        Kernel("small", lambda _, y: count_equal(y, y), (labels,)),
    ]


def make_adam(parameter: tf.Variable) -> Kernel:
    momentum, velocity = tf.Variable(tf.zeros_like(parameter)), tf.Variable(tf.zeros_like(parameter))
    gradient = tf.Variable(parameter / 100)

    def step(_: tf.Tensor, value: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyAdam(
            var=parameter.handle,
            m=momentum.handle,
            v=velocity.handle,
            beta1_power=0.5,
            beta2_power=0.9,
            lr=0.001,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-7,
            grad=value,
        )

    return Kernel("Adam", step, (gradient,))


def draw_uniform(shape: Sequence[int], key: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.StatelessRandomUniformV2(shape=shape, key=key, counter=counter, alg=PHILOX)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> Any:
    return tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)


def count_equal(classes: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.equal(classes, labels), tf.int32))


def compile_loop(kernel: Kernel, n_steps: int) -> Callable[[], Any]:
    """A call that runs the kernel so many times in one graph.

    What a kernel returns is carried into the next turn: were it dropped, TensorFlow would not compute it.
    """
    sample = kernel.run(tf.constant(0), *kernel.inputs)
    carried = tf.constant(0) if sample is None else tf.zeros_like(sample)

    def turn(step: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        made = kernel.run(step, *(read.read_value() for read in kernel.inputs))
        return step + 1, last if made is None else made

    return compile_turns(turn, carried, n_steps)


def compile_empty_loop(n_inputs: int, n_steps: int) -> Callable[[], Any]:
    """The loop around a kernel of so many inputs, without the kernel."""
    variables = [tf.Variable(0.0) for _ in range(n_inputs)]

    def turn(step: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([variable.read_value() for variable in variables[1:]]):
            return step + 1, variables[0].read_value() if variables else tf.identity(last)

    return compile_turns(turn, tf.constant(0.0), n_steps)


def compile_turns(turn: Callable[..., Any], carried: tf.Tensor, n_steps: int) -> Callable[[], Any]:
    def run() -> tf.Tensor:
        _, last = tf.while_loop(lambda step, _: step < n_steps, turn, (0, carried), parallel_iterations=1)
        return last

    graph = tf.function(run).get_concrete_function()
    return lambda: graph().numpy()


def compile_validation(hidden_size: int, data: ResidentData) -> Callable[[], Any]:
    """One forward over the validation images in batches as the engine has them, with loss and hits, without Keras."""
    normal = np.random.default_rng(0).standard_normal
    weights_1 = tf.Variable(normal((N_PIXELS, hidden_size), np.float32) / 10)
    weights_2 = tf.Variable(normal((hidden_size, FASHION_MNIST.n_classes), np.float32) / 10)
    bias_1, bias_2 = tf.Variable(tf.zeros([hidden_size])), tf.Variable(tf.zeros([FASHION_MNIST.n_classes]))

    def turn(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.slice(data.validation_images, [step * SCORING_BATCH, 0, 0], [SCORING_BATCH, -1, -1])
        labels = tf.slice(data.validation_labels, [step * SCORING_BATCH], [SCORING_BATCH])
        scaled = tf.cast(tf.reshape(images, [SCORING_BATCH, N_PIXELS]), tf.float32) * (1 / 255)
        hidden = tf.nn.relu(tf.nn.bias_add(scaled @ weights_1, bias_1))
        logits = tf.nn.bias_add(hidden @ weights_2, bias_2)
        loss = tf.reduce_sum(cross_entropy(logits, labels).loss)
        n_hits = count_equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)
        return step + 1, total + loss + tf.cast(n_hits, tf.float32)

    return compile_turns(turn, tf.constant(0.0), int(data.validation_images.shape[0]) // SCORING_BATCH)
