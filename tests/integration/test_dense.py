"""The dense model: its layers, its parameters, its outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.training.architecture import load_architecture
from fmnist_optuna.training.dense import create_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("h", [1, 64, 257])
def test_dense_has_one_hidden_layer(h: int) -> None:
    """784-h-10 has 784 h + h + 10 h + 10 parameters."""
    assert create_model(h, 0.2, 0.001).count_params() == 784 * h + h + h * 10 + 10


def test_dense_counts_hidden_layers() -> None:
    """Each further hidden layer adds h x h + h parameters, none at all leaves 784 x 10 + 10."""
    h = 12
    three = 784 * h + h + 2 * (h * h + h) + h * 10 + 10
    assert create_model(h, 0.2, 0.001, n_hidden_layers=3).count_params() == three
    assert create_model(h, 0.2, 0.001, n_hidden_layers=0).count_params() == 784 * 10 + 10


def test_dense_layers() -> None:
    """Flatten, scale, ReLU, dropout, softmax over ten; Adam of the given rate; uint8 in, float32 out."""
    model = create_model(8, 0.25, 0.003)
    names = [type(layer).__name__ for layer in model.layers]
    assert names == ["Flatten", "Rescaling", "Dense", "Dropout", "Dense"]
    assert (model.input_shape, model.inputs[0].dtype) == ((None, 28, 28), "uint8")
    assert (model.output_shape, model.outputs[0].dtype) == ((None, 10), "float32")
    hidden, dropout, output = model.layers[2:]
    assert (hidden.activation, dropout.rate, output.activation) == (
        keras.activations.relu,
        0.25,
        keras.activations.softmax,
    )
    assert type(model.optimizer) is keras.optimizers.Adam
    assert float(model.optimizer.learning_rate.numpy()) == np.float32(0.003)


def test_dense_scales_within() -> None:
    """A uint8 of 0, 51, 255 reaches the first dense layer as 0, 0.2, 1."""
    model = create_model(8, 0.2, 0.001)
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 0, :3] = 0, 51, 255
    scaled = keras.Sequential(model.layers[:2])(image).numpy()
    np.testing.assert_allclose(scaled[0, :3], [0.0, 0.2, 1.0], rtol=1e-6)


def test_dense_gives_probabilities() -> None:
    """Whatever the image, the ten outputs are positive and sum to 1."""
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    probabilities = create_model(8, 0.2, 0.001)(images).numpy()
    assert probabilities.min() > 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)


def test_dense_accepts_its_parameters() -> None:
    """The dense architecture declares the types of its parameters; only the first three have no default."""
    dense = load_architecture("dense")
    assert dense.parameters == {
        "hidden_size": int, "dropout_rate": float, "learning_rate": float, "n_hidden_layers": int,
        "activation": ("relu", "gelu", "silu"), "batch_norm": bool, "residual": bool, "input_dropout": float,
        "standardize": bool,
    }  # fmt: skip
    assert dense.required == {"hidden_size", "dropout_rate", "learning_rate"}


def test_dense_normalises_before_each_activation() -> None:
    """Dense without a bias, normalisation, activation, dropout; dropout of pixels comes first of all."""
    model = create_model(8, 0.25, 0.003, 2, activation="gelu", batch_norm=True, input_dropout=0.1)
    names = [type(layer).__name__ for layer in model.layers]
    block = ["Dense", "BatchNormalization", "Activation", "Dropout"]
    assert names == ["Flatten", "Rescaling", "Dropout", *block, *block, "Dense"]
    assert (model.layers[2].rate, model.layers[3].use_bias) == (0.1, False)
    assert model.layers[5].activation is keras.activations.gelu


def test_residual_layers_add_to_their_input() -> None:
    """Of three hidden layers the second and the third add; with kernels of zeros they hand on what they are given."""
    model = create_model(6, 0.0, 0.001, 3, residual=True)
    hidden = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][:3]
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == 2
    for layer in hidden[1:]:
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    first, last = (keras.Model(model.inputs[0], layer) for layer in (hidden[0].output, model.layers[-1].input))
    np.testing.assert_array_equal(first(images).numpy(), last(images).numpy())
    assert model.count_params() == 784 * 6 + 6 + 2 * (6 * 6 + 6) + 6 * 10 + 10


DIGITS = DatasetInfo("digits", (8, 8), "float32", (0, 16), tuple("0123456789"))

COLOURS = DatasetInfo("colours", (12, 10, 3), "float32", (0, 1), ("red", "green", "blue"))


@pytest.mark.parametrize(("info", "layers"), [(DIGITS, ["Flatten", "Rescaling"]), (COLOURS, ["Flatten"])])
def test_dense_is_made_for_any_data_set(info: DatasetInfo, layers: list[str]) -> None:
    """Shape, type and classes are those of the data; its range becomes 0 to 1, and one that is so stays as it is."""
    model, n_pixels = create_model(5, 0.2, 0.001, dataset=info), int(np.prod(info.image_shape))
    assert (model.input_shape[1:], model.inputs[0].dtype) == (info.image_shape, "float32")
    assert model.count_params() == n_pixels * 5 + 5 + 5 * info.n_classes + info.n_classes
    assert [type(layer).__name__ for layer in model.layers[:-3]] == layers
    scaled = keras.Sequential(model.layers[:-3])(np.full((1, *info.image_shape), info.value_range[1], np.float32))
    np.testing.assert_array_equal(scaled, np.ones((1, n_pixels)))


@pytest.mark.parametrize("residual", [False, True])
def test_pictures_are_standardised_when_asked(residual: bool) -> None:
    """In every channel mean 0 and deviation 1 over the training images; a model alone has pixels from 0 to 1."""
    model = create_model(4, 0.2, 0.001, 2, dataset=COLOURS, standardize=True, residual=residual)
    pictures = np.random.default_rng(0).beta((2, 3, 4), (5, 4, 1), (90, 12, 10, 3)).astype(np.float32)
    front = keras.Model(model.inputs[0], model.get_layer("standardisation").output)
    np.testing.assert_allclose(front(pictures).numpy(), pictures, rtol=1e-6)
    model.adapt_to(tf.constant(pictures))
    standardised = front(pictures).numpy()
    np.testing.assert_allclose(standardised.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(standardised.std(axis=(0, 1, 2)), 1, rtol=1e-4)
    assert model(pictures).shape == (90, 3)
    assert not hasattr(create_model(4, 0.2, 0.001, dataset=COLOURS), "adapt_to")


def test_features_are_standardised_within_the_model() -> None:
    """Each by its own mean and deviation over the training images; one that never changes becomes 0."""
    info = DatasetInfo("table", (3,), "float32", (-1e6, 1e6), ("a", "b"))
    rows = np.random.default_rng(0).normal((1e5, 0.0, 7.0), (1e4, 1e-5, 0.0), (200, 3)).astype(np.float32)
    model = create_model(4, 0.2, 0.001, dataset=info, input_dropout=0.1)
    assert [type(layer).__name__ for layer in model.layers][:3] == ["Flatten", "BatchNormalization", "Dropout"]
    assert model.count_params() == 3 * 4 + 4 + 4 * 2 + 2 + 2 * 3  # and a mean and a variance of each feature
    model.adapt_to(tf.constant(rows))
    front = keras.Model(model.inputs[0], model.get_layer("standardisation").output)
    standardised = front(rows).numpy()
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(axis=0), [1, 1, 0], atol=1e-4)


@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_what_is_no_picture_is_for_dense_alone(name: str) -> None:
    """The refusal says what the data is."""
    info = DatasetInfo("table", (3,), "float32", (0, 1), ("a", "b"))
    with pytest.raises(
        ValueError, match="the data must be pictures, but is rows of 3 numbers; take the architecture den"
    ):
        load_architecture(name).function(learning_rate=0.001, dataset=info)
