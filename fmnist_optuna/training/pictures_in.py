"""What architectures do first: standardise pictures or features; in one of them pictures are whitened as well.

Both depend on the training images. A model tells its training so by `adapt_to`, a function that is given them before
the first epoch; what it sets are weights, so a stored model has them.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.training.built_in import scaling_layers

STANDARDISATION, WHITENING = "standardisation", "whitening"
SMALLEST_VARIANCE = 1e-7  # added to that of pixels from 0 to 1
SMALLEST_EIGENVALUE = 5e-4  # added to those of patches of standardised pixels
FEATURE_VARIANCES = 1e-30, 1e30  # between which that of a feature is kept, for float32; of a constant it is taken as 1
N_WHITENED = 5_000  # images whose patches are whitened, evenly spread over all: the data may be sorted by class
CHUNK_BYTES = 16 * 2**20  # of pictures that are looked at together, as float64; their patches take a few times as much

Pictures = NDArray[np.float64]


def picture_layers(dataset: DatasetInfo, smallest_side: int = 1) -> list[keras.layers.Layer]:
    """From images of a data set to float pictures (n, height, width, channels), standardised.

    The last layer is a batch normalisation that is never trained: `standardise` gives it mean and variance.

    Args:
        smallest_side: Pixels that the height and the width must have.
    """
    if not dataset.is_of_pictures:
        raise ValueError(f"the data must be pictures, but is {dataset.kind}; take the architecture dense")
    if min(dataset.image_shape[:2]) < smallest_side:
        raise ValueError(f"pictures must have at least {smallest_side} x {smallest_side} pixels")
    return [
        keras.Input(dataset.image_shape, dtype=dataset.dtype),
        *scaling_layers(dataset),
        keras.layers.Reshape((*dataset.image_shape, 1)[:3]),
        keras.layers.BatchNormalization(
            center=False, scale=False, epsilon=SMALLEST_VARIANCE, trainable=False, name=STANDARDISATION
        ),
    ]


def feature_layers(dataset: DatasetInfo) -> list[keras.layers.Layer]:
    """From what is no picture to features (n, features), each standardised by itself.

    The last layer is a batch normalisation that is never trained: `standardise_features` gives it mean and variance.
    """
    return [
        keras.Input(dataset.image_shape, dtype=dataset.dtype),
        keras.layers.Flatten(),
        keras.layers.BatchNormalization(center=False, scale=False, epsilon=0.0, trainable=False, name=STANDARDISATION),
    ]


def whitening_layer(size: int, dataset: DatasetInfo) -> keras.layers.Layer:
    """A convolution that is never trained: `whiten` gives it its filters, two for each entry of a patch.

    Args:
        size: Of a patch, in pixels.
    """
    n_channels = (*dataset.image_shape, 1)[2]
    n_filters = 2 * size * size * n_channels
    layer: keras.layers.Layer = keras.layers.Conv2D(n_filters, size, use_bias=False, trainable=False, name=WHITENING)
    return layer


def standardise(model: keras.Model, images: tf.Tensor) -> None:
    """Let pictures have mean 0 and variance 1 in every channel, over the training images."""
    layer = model.get_layer(STANDARDISATION)
    mean, covariance = _moments(_inputs_of(model, STANDARDISATION, images), 1)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(covariance.diagonal())


def standardise_features(model: keras.Model, images: tf.Tensor) -> None:
    """Let every feature have mean 0 and variance 1 over the training images."""
    layer = model.get_layer(STANDARDISATION)
    n_images = int(images.shape[0])
    n_at_once = max(1, CHUNK_BYTES // (8 * math.prod(images.shape[1:])))

    def mean_of(change: Callable[[Pictures], Pictures]) -> Pictures:
        chunks = (images[begin : begin + n_at_once] for begin in range(0, n_images, n_at_once))
        sums = (change(np.asarray(some, np.float64).reshape(len(some), -1)).sum(axis=0) for some in chunks)
        return sum(sums, np.zeros(1)) / n_images

    mean = mean_of(lambda rows: rows)
    variance = mean_of(lambda rows: (rows - mean) ** 2)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(np.where(variance > 0, np.clip(variance, *FEATURE_VARIANCES), 1.0))


def whiten(model: keras.Model, images: tf.Tensor) -> None:
    """Let the filters be the eigenvectors of patches of training images, each with both signs.

    Each is scaled so that its answers have variance 1 (Jordan 2024, arXiv:2404.00498, section 3.2).
    """
    kernel = model.get_layer(WHITENING).kernel
    size, _, n_channels, n_filters = kernel.shape
    every = math.ceil(int(images.shape[0]) / N_WHITENED)
    _, covariance = _moments(_inputs_of(model, WHITENING, images[::every]), size)
    variances, vectors = np.linalg.eigh(covariance)
    filters = (vectors / np.sqrt(variances + SMALLEST_EIGENVALUE)).T
    both = np.concatenate([filters, -filters]).reshape(n_filters, size, size, n_channels)
    kernel.assign(both.transpose(1, 2, 3, 0))


def _moments(pictures: Iterable[Pictures], size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of all patches of size x size pixels, their entries in the order row, column, channel."""
    n, total, products = 0, np.zeros(1), np.zeros((1, 1))
    for some in pictures:
        windows = np.lib.stride_tricks.sliding_window_view(some, (size, size), axis=(1, 2))
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * some.shape[3])
        n, total, products = n + len(patches), total + patches.sum(axis=0), products + patches.T @ patches
    mean = total / n
    return mean, products / n - np.outer(mean, mean)


def _inputs_of(model: keras.Model, name: str, images: tf.Tensor) -> Iterator[Pictures]:
    """What a layer is given for the images, (n, height, width, channels), so many at a time as CHUNK_BYTES allows."""
    front = keras.Model(model.inputs[0], model.get_layer(name).input)
    n_at_once = max(1, CHUNK_BYTES // (8 * math.prod(front.output_shape[1:])))
    for begin in range(0, int(images.shape[0]), n_at_once):
        yield np.asarray(front(images[begin : begin + n_at_once], training=False), np.float64)


def adapt_by(model: keras.Model, *steps: Callable[[keras.Model, tf.Tensor], None]) -> keras.Model:
    """Let a model be told the training images before its first epoch, for one step after another."""

    def adapt_to(images: tf.Tensor) -> None:
        for step in steps:
            step(model, images)

    model.adapt_to = adapt_to
    return model
