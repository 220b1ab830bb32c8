"""A small convolutional classifier, after the nets of Jordan 2024 (arXiv:2404.00498) for pictures in colour."""

from itertools import chain
from typing import Literal

import keras

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.training.built_in import compile_classifier
from fmnist_optuna.training.pictures_in import adapt_by, picture_layers, standardise, whiten, whitening_layer

Activation = Literal["relu", "gelu", "silu"]
SMALLEST_SIDE = 9  # pixels, of which three poolings leave one
WHITENED = 2  # pixels, the side of the patches that are whitened


def create_conv(
    learning_rate: float,
    width_1: int = 32,
    width_2: int = 64,
    width_3: int = 128,
    dropout_rate: float = 0.0,
    activation: Activation = "gelu",
    logit_scale: float = 0.125,
    dataset: DatasetInfo = FASHION_MNIST,
) -> keras.Model:
    """Build and compile a convolutional net: whitened patches, three groups of two convolutions, a softmax.

    A group has two convolutions of 3 x 3, each followed by batch normalisation and the activation, the first by
    max-pooling by 2 as well. They begin as the identity, as far as they have as many inputs. The first convolution of
    all is fixed: its filters whiten patches of the training images, which the model is told before its first epoch.

    Args:
        learning_rate: Of Adam, > 0.
        width_1, width_2, width_3: Filters of the groups, each >= 1.
        dropout_rate: Share of the last features dropped in training, 0 <= rate < 1.
        activation: After each batch normalisation.
        logit_scale: Factor of what the softmax is put on, > 0.
        dataset: Gives the shape and the range of the images, at least 9 x 9 pixels, and the number of classes.

    Returns:
        A compiled model from images to float32 probabilities (n, n_classes).
    """
    layers = [*picture_layers(dataset, SMALLEST_SIDE), whitening_layer(WHITENED, dataset)]
    layers.append(keras.layers.Activation(activation))
    layers += chain(*(_group(width, activation) for width in (width_1, width_2, width_3)))
    layers += [
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dropout(dropout_rate),
        keras.layers.Dense(dataset.n_classes, use_bias=False),
        keras.layers.Rescaling(logit_scale),
        keras.layers.Softmax(),
    ]
    model = compile_classifier(keras.Sequential(layers), learning_rate)
    _start_as_identity(model)
    return adapt_by(model, standardise, whiten)


def _group(width: int, activation: Activation) -> list[keras.layers.Layer]:
    """A convolution with pooling and one without."""
    layers = []
    for pooling in ([keras.layers.MaxPooling2D(2)], []):
        layers += [
            keras.layers.Conv2D(width, 3, padding="same", use_bias=False),
            *pooling,
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Activation(activation),
        ]
    return layers


def _start_as_identity(model: keras.Model) -> None:
    """Let the first filters of each trained convolution hand on their inputs, as far as there are as many."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.trainable:
            kernel = layer.kernel.numpy()
            centre, n_kept = kernel.shape[0] // 2, min(kernel.shape[2:])
            kernel[:, :, :, :n_kept] = 0
            kernel[centre, centre, range(n_kept), range(n_kept)] = 1
            layer.kernel.assign(kernel)
