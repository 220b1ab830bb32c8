"""What a model's output is: probabilities, or logits that the softmax still has to be put on."""

import inspect
from collections.abc import Callable, Sequence
from typing import TypeVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo, Images
from fmnist_optuna.training.batches import largest_image_bytes, trace_scoring
from fmnist_optuna.training.contract import has_own_loss
from fmnist_optuna.training.heads import reads_as_logits

N_PROBES = 16  # images of noise

Answers = TypeVar("Answers", NDArray[np.float32], tf.Tensor)


def gives_logits(model: keras.Model, info: DatasetInfo) -> bool:
    """Whether the softmax still has to be put on the outputs of a model.

    Args:
        info: Of the data that the model is for.

    Raises:
        SpecError: Its end and its loss do not agree on what the outputs are.
    """
    outputs = keras.ops.convert_to_numpy(model(info.draw_noise(N_PROBES), training=False)).astype(np.float64)
    from_logits = None if has_own_loss(model) else takes_logits(model.loss)
    return reads_as_logits(_last_activation(model), from_logits, outputs)


def _last_activation(model: keras.Model) -> str | None:
    """Keras' name of the function that a model ends in; None for a function of the user's, or where none is seen."""
    try:
        history = model.outputs[0]._keras_history
        while _changes_no_value(history.operation):
            history = history.operation._inbound_nodes[history.node_index].input_tensors[0]._keras_history
        last = history.operation
    except (AttributeError, IndexError, TypeError):  # a subclass, which calls its layers in code
        return None
    if isinstance(last, keras.Model):
        return _last_activation(last)
    if isinstance(last, keras.layers.Activation | keras.layers.Dense | keras.layers.EinsumDense):
        last = last.activation
    name = getattr(last, "__name__", type(last).__name__.lower())  # a function, or the layer or operation Softmax
    is_of_keras = type(last).__module__.startswith("keras.") or getattr(keras.activations, name, None) is last
    return name if is_of_keras and hasattr(keras.activations, name) else None


def _changes_no_value(operation: object) -> bool:
    """Whether an operation gives what it is given, in another type at most: so a model in mixed precision ends."""
    if isinstance(operation, keras.layers.Activation):
        return operation.activation is keras.activations.linear
    is_cast = type(operation).__name__ == "Cast" and type(operation).__module__.startswith("keras.")  # keras.ops.cast
    return is_cast or isinstance(operation, keras.layers.Identity)


def takes_logits(loss: object) -> bool | None:
    """What a loss says of the outputs; None for one that says nothing."""
    if isinstance(loss, list | tuple | dict) and len(loss) == 1:
        loss = next(iter(loss.values() if isinstance(loss, dict) else loss))
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    said = getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits"))
    if said is None and callable(loss) and not isinstance(loss, keras.losses.Loss):
        try:
            parameter = inspect.signature(loss).parameters.get("from_logits")
        except (TypeError, ValueError):
            return None
        said = None if parameter is None else parameter.default
    return said if isinstance(said, bool) else None


def compute_probabilities(
    models: Sequence[keras.Model], images: tf.Tensor, has_logits: bool, flip: bool = False
) -> tf.Tensor:
    """Probabilities float32 (n, n_classes) of images (n, *image_shape).

    Args:
        models: One, or several alike, whose answers are averaged.
        has_logits: What `gives_logits` said of the models.
        flip: Whether they are the mean of those of an image and of its mirror image.
    """
    outputs = [tf.cast(model(images, training=False), tf.float32) for model in models]
    probabilities = average([tf.nn.softmax(output) if has_logits else output for output in outputs])
    if not flip:
        return probabilities
    return (probabilities + compute_probabilities(models, tf.reverse(images, axis=[2]), has_logits)) / 2


def average(answers: Sequence[Answers]) -> Answers:
    """The mean of answers float32 (n, n_classes), in the order of these: arrays and tensors give the same bits."""
    first, *others = answers
    return sum(others, first) * (1 / len(answers)) if others else first


def predict_probabilities(model: keras.Model, images: Images, info: DatasetInfo) -> NDArray[np.float32]:
    """Probabilities float32 (n, n_classes) of images (n, *image_shape); a model that gives logits gets a softmax.

    Args:
        info: What the images are.
    """
    forward, batch = trace_probabilities(model, len(images), info)
    parts = [forward(tf.constant(images[begin : begin + batch])) for begin in range(0, len(images), batch)]
    return np.concatenate([part.numpy() for part in parts])


def trace_probabilities(
    model: keras.Model, n_images: int, info: DatasetInfo
) -> tuple[Callable[[tf.Tensor], tf.Tensor], int]:
    """A graph from a batch of images to their probabilities, and the largest batch that so many images go through in.

    Args:
        info: What the images are.
    """
    has_logits = gives_logits(model, info)

    def trace(batch: int) -> tuple[Callable[[tf.Tensor], tf.Tensor], float]:
        largest: list[float] = []

        def forward(given: tf.Tensor) -> tf.Tensor:
            probabilities = compute_probabilities([model], given, has_logits)
            largest.append(largest_image_bytes(int(given.shape[0])))
            return probabilities

        traced = tf.function(forward, autograph=False)  # again for a smaller rest
        traced.get_concrete_function(tf.TensorSpec((batch, *info.image_shape), info.dtype))
        return traced, largest[0]

    return trace_scoring(n_images, trace)
