"""A pass over many images in one graph: batches of one size, then a smaller rest, how large a batch may be, and which
variables the graph has met.
"""

from collections.abc import Callable
from typing import TypeVar

import keras
import tensorflow as tf

SCORING_BATCH = 2_000  # images a forward pass without gradients; larger ones gain nothing and cost memory
# Of the largest tensor of such a pass; two or three live at a time. Dense nets up to 4,096 units stay below it with
# 2,000 images, and convolutions are as fast in smaller batches (measured 2026-11).
SCORING_BYTES = 32 * 2**20

Traced = TypeVar("Traced")
Step = Callable[[tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]]


def sum_over_batches(
    n_items: int, batch_size: int, step: Step, n_steps: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Loop a step over full batches, then over the smaller rest: every shape in the graph is static.

    Args:
        step: Takes the first item (int32 scalar) and the number of items of a batch; returns its loss, summed over
            its items, and its hits.
        n_steps: Batches to take, int32 scalar, from 1 to all of them; None takes all.

    Returns:
        The sums: the loss in float64 where Keras computes in it, else in float32; the hits in int64.
    """
    n_full, rest = divmod(n_items, batch_size)
    dtype = tf.float64 if keras.config.floatx() == "float64" else tf.float32

    def run(begin: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        loss, hits = step(begin, size)
        return tf.cast(loss, dtype), tf.cast(hits, tf.int64)

    def body(index: tf.Tensor, loss: tf.Tensor, hits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        step_loss, step_hits = run(index * batch_size, batch_size)
        return index + 1, loss + step_loss, hits + step_hits

    def run_rest() -> tuple[tf.Tensor, tf.Tensor]:
        return run(tf.constant(n_full * batch_size), rest)

    nothing = tf.zeros([], dtype), tf.zeros([], tf.int64)
    n_looped = n_full if n_steps is None else tf.minimum(n_full, n_steps)
    _, loss, hits = tf.while_loop(lambda index, *_: index < n_looped, body, (0, *nothing), parallel_iterations=1)
    if rest:
        with tf.control_dependencies([loss, hits]):
            is_whole = n_steps is None or n_steps > n_full
            rest_loss, rest_hits = run_rest() if is_whole is True else tf.cond(is_whole, run_rest, lambda: nothing)
        loss, hits = loss + rest_loss, hits + rest_hits
    return loss, hits


def trace_scoring(n_images: int, trace: Callable[[int], tuple[Traced, float]]) -> tuple[Traced, int]:
    """Trace a forward pass for the largest batch whose tensors fit into SCORING_BYTES.

    Args:
        n_images: Images of the whole pass, >= 1.
        trace: Traces for a batch of so many images, and returns what it made and `largest_image_bytes`.

    Returns:
        What was traced last, and its batch.
    """
    batch = min(SCORING_BATCH, n_images)
    traced, image_bytes = trace(batch)
    fitting = max(1, int(SCORING_BYTES // max(1.0, image_bytes)))
    if fitting < batch:
        batch = fitting
        traced, _ = trace(batch)
    return traced, batch


def largest_image_bytes(batch: int) -> float:
    """Bytes an image of the largest tensor made from a batch, in the graph that is being traced."""
    graph = tf.compat.v1.get_default_graph()
    tensors = [
        tensor
        for operation in graph.get_operations()
        if operation.type not in ("Placeholder", "ReadVariableOp")  # images as a whole, and weights
        for tensor in operation.outputs
    ]
    return max((_bytes_of(tensor, batch) for tensor in tensors), default=0.0) / batch


def variables_in(graph: tf.types.experimental.ConcreteFunction) -> list[tf.Variable]:
    """The variables that a traced graph reads or writes, in the order in which it met them."""
    inner = graph.graph
    by_handle = {id(variable.handle): variable for variable in inner.variables}
    return [by_handle[id(outer)] for outer, _ in inner.captures if id(outer) in by_handle]


def _bytes_of(tensor: tf.Tensor, batch: int) -> int:
    """Bytes of a tensor whose rows are those of the batch; 0 of any other."""
    n_elements = tensor.shape.num_elements()
    if not n_elements or tensor.shape.rank == 0 or tensor.shape[0] % batch:
        return 0
    return int(n_elements) * int(tensor.dtype.size)
