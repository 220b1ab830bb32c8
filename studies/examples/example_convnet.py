"""A convolutional net of one's own: a function that returns a compiled model, whose parameters a grid may name."""

import keras


def build(filters: int, dropout_rate: float, learning_rate: float) -> keras.Model:
    """For grey pictures of 8 x 8 numbers from 0 to 16, in ten classes."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Rescaling(1 / 16),
            layers.Reshape((8, 8, 1)),
            *_block(filters),
            layers.MaxPooling2D(),
            *_block(2 * filters),
            layers.Flatten(),
            layers.Dropout(dropout_rate),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _block(filters: int) -> list[keras.layers.Layer]:
    convolution = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)
    return [convolution, keras.layers.BatchNormalization(), keras.layers.Activation("relu")]
