"""The dense classifier for images of any data set, compiled and ready to train."""

import keras

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST


def create_model(
    hidden_size: int,
    dropout_rate: float,
    learning_rate: float,
    n_hidden_layers: int = 1,
    dataset: DatasetInfo = FASHION_MNIST,
) -> keras.Model:
    """Build and compile a dense network: every pixel an input, ReLU layers each followed by dropout, a softmax.

    Flattening and scaling to 0 (black) .. 1 (white) are its first layers, so training, export and prediction share one
    preprocessing.

    Args:
        hidden_size: Units of each hidden layer, >= 1.
        dropout_rate: Share of hidden units dropped in training, 0 <= rate < 1.
        learning_rate: Of Adam, > 0.
        n_hidden_layers: Number of hidden layers, >= 0.
        dataset: Gives the shape and the range of the images, and the number of classes.

    Returns:
        A compiled model from images to float32 probabilities (n, n_classes). With one hidden layer of h units, p pixels
        and c classes it has p h + h + h c + c parameters: for Fashion-MNIST 784 h + h + 10 h + 10.
    """
    black, white = dataset.value_range
    layers = [keras.Input(dataset.image_shape, dtype=dataset.dtype), keras.layers.Flatten()]
    if (black, white) != (0, 1):
        scale = 1 / (white - black)
        layers.append(keras.layers.Rescaling(scale, 0.0 - black * scale))
    for _ in range(n_hidden_layers):
        layers += [keras.layers.Dense(hidden_size, activation="relu"), keras.layers.Dropout(dropout_rate)]
    model = keras.Sequential([*layers, keras.layers.Dense(dataset.n_classes, activation="softmax")])
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
