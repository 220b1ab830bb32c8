"""What all built-in architectures have in common: pixels from 0 to 1, and how a model is compiled."""

import keras

from fmnist_optuna.data.dataset import DatasetInfo


def scaling_layers(dataset: DatasetInfo) -> list[keras.layers.Layer]:
    """From the range of a data set's pixels to 0 (black) .. 1 (white), as floats."""
    black, white = dataset.value_range
    if (black, white) == (0, 1):
        return []
    scale = 1 / (white - black)
    return [keras.layers.Rescaling(scale, 0.0 - black * scale)]


def compile_classifier(model: keras.Model, learning_rate: float) -> keras.Model:
    """Give a model that answers with probabilities its loss for integer labels, and Adam."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
