"""The convolutional architectures: what they know of the training images, how they begin, what they answer."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from one_training import train

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.training.conv import create_conv
from fmnist_optuna.training.engine import TrainingPass
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.resnet import create_resnet
from fmnist_optuna.training.weights import hash_weights, load_weights, save_weights

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

COLOURS = DatasetInfo("colours", (28, 28, 3), "float32", (-1, 1), ("a", "b", "c"))
SMALL: dict[str, Any] = {"conv": {"width_1": 4, "width_2": 4, "width_3": 8}, "resnet": {"width": 2, "n_blocks": 1}}
MAKERS: dict[str, Callable[..., keras.Model]] = {"conv": create_conv, "resnet": create_resnet}


def make(name: str, **given: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    return MAKERS[name](0.003, **SMALL[name], **given)


def adapted(name: str, data: ResidentData) -> keras.Model:
    """A model that its training has told the images, before its first step."""
    model = make(name)
    TrainingPass(model, data, 32)
    return model


@pytest.mark.parametrize("name", MAKERS)
def test_pictures_are_standardised(few_garments: ResidentData, name: str) -> None:
    """Mean and variance are those of the training images, scaled to 0..1; a model alone has 0 and 1."""
    fresh, model = make(name), adapted(name, few_garments)
    pixels = few_garments.train_images.numpy() / 255
    for each, mean, variance in ((fresh, 0.0, 1.0), (model, pixels.mean(), pixels.var())):
        layer = each.get_layer("standardisation")
        np.testing.assert_allclose(layer.moving_mean.numpy(), [mean], rtol=1e-5)
        np.testing.assert_allclose(layer.moving_variance.numpy(), [variance], rtol=1e-5)
    front = keras.Model(model.inputs[0], model.get_layer("standardisation").output)
    pictures = front(few_garments.train_images).numpy()
    assert (abs(pictures.mean()), pictures.std()) == (pytest.approx(0, abs=1e-4), pytest.approx(1, rel=1e-3))


def test_first_filters_whiten_patches(few_garments: ResidentData) -> None:
    """Four answers that go up and down alone, each of variance 1, and the same four with the other sign."""
    model = adapted("conv", few_garments)
    front = keras.Model(model.inputs[0], model.get_layer("whitening").output)
    answers = front(few_garments.train_images).numpy().reshape(-1, 8)
    np.testing.assert_allclose(np.cov(answers[:, :4], rowvar=False), np.eye(4), atol=0.05)
    np.testing.assert_allclose(answers[:, 4:], -answers[:, :4], atol=1e-5)
    assert not model.get_layer("whitening").trainable


def test_images_sorted_by_class_are_whitened_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is whitened is spread over all images: dark ones in front do not decide alone."""
    monkeypatch.setattr("fmnist_optuna.training.pictures_in.N_WHITENED", 8)
    noise = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    pictures = np.concatenate([noise // 32, noise])
    model = make("conv")
    model.adapt_to(tf.constant(pictures))
    front = keras.Model(model.inputs[0], model.get_layer("whitening").output)
    answers = front(pictures).numpy()[..., :4]
    assert np.var(answers) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("name", MAKERS)
def test_what_was_adapted_is_kept_with_the_weights(few_garments: ResidentData, name: str, tmp_path: Any) -> None:
    """Training leaves it alone, and a model that loads the weights has it without any image."""
    model = make(name)
    result = train(model, few_garments, batch_size=64, max_epochs=1, patience=1, seed=0)
    before = adapted(name, few_garments).get_layer("standardisation").get_weights()
    for found, expected in zip(model.get_layer("standardisation").get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    sha256 = save_weights(model, tmp_path / "w.weights.h5")
    loaded = make(name)
    load_weights(loaded, tmp_path / "w.weights.h5", sha256)
    assert hash_weights(loaded) == sha256
    images = few_garments.validation_images[:100]
    np.testing.assert_array_equal(loaded(images).numpy(), model(images).numpy())
    assert 0 < result.val_accuracy < 1


def test_convolutions_begin_as_the_identity() -> None:
    """The first filters hand on their inputs; the others are drawn."""
    model = make("conv")
    first, second = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)][1:3]
    pictures = tf.random.stateless_normal((2, 9, 9, 8), (1, 2))
    np.testing.assert_allclose(first(pictures)[..., :4], pictures[..., :4], atol=1e-6)
    np.testing.assert_allclose(second(pictures[..., :4]), pictures[..., :4], atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_any_pictures_are_taken(name: str) -> None:
    """In colour, as floats, of other classes; answers are probabilities."""
    model = make(name, dataset=COLOURS)
    answers = model(COLOURS.draw_noise(3)).numpy()
    assert (answers.shape, answers.dtype) == ((3, 3), np.float32)
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)


def test_resnet_20_has_its_size() -> None:
    """Twenty layers with weights beside the two of the shortcuts: 272 thousand parameters for pictures in grey."""
    keras.utils.set_random_seed(0)
    model = create_resnet(0.1)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    assert len(layers) == 20 + 2
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 272_186
