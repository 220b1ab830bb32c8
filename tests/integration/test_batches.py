"""How many images go through a model at once: as many as its largest tensor leaves room for."""

import keras
import pytest

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.training.batches import SCORING_BATCH, SCORING_BYTES
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.probabilities import trace_probabilities

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE, FILTERS = 128, 16


@pytest.mark.parametrize("n_images", [10_000, SCORING_BATCH, 33])
def test_a_conv_net_takes_what_its_largest_tensor_allows(n_images: int) -> None:
    """The feature maps of an image are 128 x 128 x 16 numbers of 4 bytes, 1 MiB, of which 32 fit."""
    info = DatasetInfo("large", (SIDE, SIDE), "uint8", (0, 255), ("cat", "dog", "hen"))
    layers = [
        keras.Input((SIDE, SIDE), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Reshape((SIDE, SIDE, 1)),
        keras.layers.Conv2D(FILTERS, 3, padding="same", activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, "softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert SCORING_BYTES // (SIDE * SIDE * FILTERS * 4) == 32
    assert trace_probabilities(model, n_images, info)[1] == 32


@pytest.mark.parametrize(("n_images", "batch"), [(10_000, SCORING_BATCH), (300, 300)])
def test_a_dense_net_takes_all_that_gain_anything(n_images: int, batch: int) -> None:
    """With 4,096 units an image takes 16 KiB, and 2,000 images less than the room."""
    model = create_model(4_096, 0.2, 0.001)
    assert trace_probabilities(model, n_images, FASHION_MNIST)[1] == batch
