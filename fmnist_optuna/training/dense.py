"""Dense classifiers for images of any data set, compiled and ready to train."""

from itertools import chain
from typing import Literal

import keras

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.training.built_in import compile_classifier, scaling_layers
from fmnist_optuna.training.pictures_in import (
    adapt_by,
    feature_layers,
    picture_layers,
    standardise,
    standardise_features,
)

Activation = Literal["relu", "gelu", "silu"]


def create_model(
    hidden_size: int,
    dropout_rate: float,
    learning_rate: float,
    n_hidden_layers: int = 1,
    activation: Activation = "relu",
    batch_norm: bool = False,
    residual: bool = False,
    input_dropout: float = 0.0,
    standardize: bool = False,
    dataset: DatasetInfo = FASHION_MNIST,
) -> keras.Model:
    """Build and compile a dense network: every pixel an input, hidden layers each followed by dropout, a softmax.

    Flattening and scaling to 0 (black) .. 1 (white) are its first layers, so training, export and prediction share one
    preprocessing. Of what is no picture, each number is standardised instead, as the training images have it.

    Args:
        hidden_size: Units of each hidden layer, >= 1.
        dropout_rate: Share of hidden units dropped in training, 0 <= rate < 1.
        learning_rate: Of Adam, > 0.
        n_hidden_layers: Number of hidden layers, >= 0.
        activation: Of each hidden layer.
        batch_norm: Whether the inputs of each activation are normalised over the batch; its layer then has no bias.
        residual: Whether each hidden layer but the first adds to what it is given, instead of replacing it.
        input_dropout: Share of pixels dropped in training, 0 <= rate < 1.
        standardize: Whether pictures get mean 0 and deviation 1 in every channel over the training images instead.
        dataset: Gives the shape and the range of the images, and the number of classes.

    Returns:
        A compiled model from images to float32 probabilities (n, n_classes). With one hidden layer of h units, p pixels
        and c classes it has p h + h + h c + c parameters: for Fashion-MNIST 784 h + h + 10 h + 10.
    """
    first = _first_layers(dataset, standardize, input_dropout)
    hidden = [_hidden_layers(hidden_size, dropout_rate, activation, batch_norm) for _ in range(n_hidden_layers)]
    last = keras.layers.Dense(dataset.n_classes, activation="softmax")
    plain = keras.Sequential(first if residual else [*first, *chain(*hidden), last])
    model = compile_classifier(_add_up(plain, hidden, last) if residual else plain, learning_rate)
    standardises = standardise if dataset.is_of_pictures else standardise_features
    return adapt_by(model, standardises) if standardize or not dataset.is_of_pictures else model


def _first_layers(dataset: DatasetInfo, standardize: bool, input_dropout: float) -> list[keras.layers.Layer]:
    """From images, or what is no picture, to rows of floats."""
    if not dataset.is_of_pictures:
        layers = feature_layers(dataset)
    elif standardize:
        layers = [*picture_layers(dataset), keras.layers.Flatten()]
    else:
        shape = dataset.image_shape
        layers = [keras.Input(shape, dtype=dataset.dtype), keras.layers.Flatten(), *scaling_layers(dataset)]
    return [*layers, keras.layers.Dropout(input_dropout)] if input_dropout else layers


def _hidden_layers(
    hidden_size: int, dropout_rate: float, activation: Activation, batch_norm: bool
) -> list[keras.layers.Layer]:
    if not batch_norm:
        return [keras.layers.Dense(hidden_size, activation=activation), keras.layers.Dropout(dropout_rate)]
    return [
        keras.layers.Dense(hidden_size, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.Activation(activation),
        keras.layers.Dropout(dropout_rate),
    ]


def _add_up(first: keras.Sequential, hidden: list[list[keras.layers.Layer]], last: keras.layers.Layer) -> keras.Model:
    """A model in which each further hidden layer adds to the sum of those before it."""
    total = first.outputs[0]
    for number, layers in enumerate(hidden):
        values = total
        for layer in layers:
            values = layer(values)
        total = keras.layers.Add()([total, values]) if number else values
    return keras.Model(first.inputs, last(total))
