"""The dense classifier for 28 x 28 images, compiled and ready to train."""

import keras

N_CLASSES = 10
IMAGE_SHAPE = (28, 28)


def create_model(hidden_size: int, dropout_rate: float, learning_rate: float, n_hidden_layers: int = 1) -> keras.Model:
    """Build and compile a dense network: 784 inputs, ReLU layers each followed by dropout, softmax over ten classes.

    Flattening and scaling to 0..1 are its first layers, so training, export and prediction share one preprocessing.

    Args:
        hidden_size: Units of each hidden layer, >= 1.
        dropout_rate: Share of hidden units dropped in training, 0 <= rate < 1.
        learning_rate: Of Adam, > 0.
        n_hidden_layers: Number of hidden layers, >= 0.

    Returns:
        A compiled model from uint8 images (n, 28, 28) to float32 probabilities (n, 10). With one hidden layer it has
        784 h + h + 10 h + 10 parameters.
    """
    layers = [keras.Input(IMAGE_SHAPE, dtype="uint8"), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255)]
    for _ in range(n_hidden_layers):
        layers += [keras.layers.Dense(hidden_size, activation="relu"), keras.layers.Dropout(dropout_rate)]
    model = keras.Sequential([*layers, keras.layers.Dense(N_CLASSES, activation="softmax")])
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
