"""The residual net of He et al. 2015 (arXiv:1512.03385, section 4.2) for small pictures: ResNet-20 and its kin."""

import keras

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.training.built_in import compile_classifier
from fmnist_optuna.training.pictures_in import adapt_by, picture_layers, standardise

Values = keras.KerasTensor  # (n, height, width, filters)


def create_resnet(
    learning_rate: float,
    width: int = 16,
    n_blocks: int = 3,
    dropout_rate: float = 0.0,
    dataset: DatasetInfo = FASHION_MNIST,
) -> keras.Model:
    """Build and compile a residual net: three stages of blocks of two convolutions, each stage half as large.

    Args:
        learning_rate: Of Adam, > 0.
        width: Filters of the first stage, >= 1; the second has twice as many, the third four times.
        n_blocks: Blocks of a stage, >= 1; with n blocks the net has 6 n + 2 layers with weights, so 3 is ResNet-20.
        dropout_rate: Share of the last features dropped in training, 0 <= rate < 1.
        dataset: Gives the shape and the range of the images, and the number of classes.

    Returns:
        A compiled model from images to float32 probabilities (n, n_classes).
    """
    stem = keras.Sequential(picture_layers(dataset))
    values = _normalise(_convolve(stem.outputs[0], width, 3))
    for stage in range(3):
        for block in range(n_blocks):
            values = _block(values, width * 2**stage, stride=2 if stage and not block else 1)
    values = keras.layers.GlobalAveragePooling2D()(values)
    values = keras.layers.Dropout(dropout_rate)(values)
    model = keras.Model(stem.inputs, keras.layers.Dense(dataset.n_classes, activation="softmax")(values))
    return adapt_by(compile_classifier(model, learning_rate), standardise)


def _block(values: Values, width: int, stride: int) -> Values:
    shortcut = values
    if stride != 1 or values.shape[-1] != width:
        shortcut = _apply(keras.layers.BatchNormalization(), _convolve(values, width, 1, stride))
    changed = _normalise(_convolve(values, width, 3, stride))
    changed = _apply(keras.layers.BatchNormalization(), _convolve(changed, width, 3))
    return _apply(keras.layers.ReLU(), _apply(keras.layers.Add(), [shortcut, changed]))


def _convolve(values: Values, width: int, size: int, stride: int = 1) -> Values:
    layer = keras.layers.Conv2D(
        width, size, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal"
    )
    return _apply(layer, values)


def _normalise(values: Values) -> Values:
    return _apply(keras.layers.ReLU(), _apply(keras.layers.BatchNormalization(), values))


def _apply(layer: keras.layers.Layer, values: Values | list[Values]) -> Values:
    given: Values = layer(values)
    return given
