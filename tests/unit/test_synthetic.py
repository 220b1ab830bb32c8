"""The drawn garments: what the offline demo and the fast tests may rely on."""

import numpy as np
import pytest

from fmnist_optuna.data.source import load_splits, with_source
from fmnist_optuna.data.synthetic import draw_garments
from fmnist_optuna.spec.data_spec import DataSpec


def test_shapes_and_dtypes() -> None:
    """Images are uint8 (n, 28, 28) and labels uint8 (n,), as many as asked for."""
    train_images, train_labels, test_images, test_labels = draw_garments(23, 11)
    assert (train_images.shape, train_labels.shape) == ((23, 28, 28), (23,))
    assert (test_images.shape, test_labels.shape) == ((11, 28, 28), (11,))
    assert {a.dtype for a in (train_images, train_labels, test_images, test_labels)} == {np.dtype(np.uint8)}


def test_nothing_asked_for_is_nothing_drawn() -> None:
    """No images is a valid wish."""
    images, labels, _, _ = draw_garments(0, 0)
    assert (images.shape, labels.shape) == ((0, 28, 28), (0,))


def test_same_seed_same_bytes() -> None:
    """A seed draws the same bytes each time, another seed others, and the test images are not training images."""
    first, again, other = draw_garments(50, 50), draw_garments(50, 50), draw_garments(50, 50, seed=1)
    assert [a.tobytes() for a in first] == [a.tobytes() for a in again]
    assert first[0].tobytes() != other[0].tobytes()
    assert first[2].tobytes() != other[2].tobytes()
    assert len({image.tobytes() for image in np.concatenate([first[0], first[2]])}) == 100


def test_test_images_do_not_depend_on_the_training_images() -> None:
    """The two sets have random streams of their own."""
    assert draw_garments(10, 20)[2].tobytes() == draw_garments(30, 20)[2].tobytes()


def test_every_class_is_equally_frequent() -> None:
    """The labels cycle through the ten classes."""
    _, train_labels, _, test_labels = draw_garments(120, 40)
    assert np.bincount(train_labels).tolist() == [12] * 10
    assert np.bincount(test_labels).tolist() == [4] * 10


def test_every_image_shows_a_garment_on_black() -> None:
    """Each image has some but not all pixels set, and the rim of most is background."""
    images = draw_garments(200, 0)[0]
    is_set = images.reshape(200, -1) > 0
    assert is_set.any(axis=1).all()
    assert not is_set.all(axis=1).any()
    assert np.median(images[:, 0, :]) == 0
    assert np.median(images[:, -1, :]) == 0


def test_default_spec_splits() -> None:
    """The default n_validation of 12,000 becomes a fifth of the 12,000 synthetic images, stratified."""
    splits = load_splits("synthetic", 12_000, 0)
    assert (splits.source, splits.train_images.shape) == ("synthetic", (9_600, 28, 28))
    assert np.bincount(splits.train_labels).tolist() == [960] * 10
    assert np.bincount(splits.validation_labels).tolist() == [240] * 10
    assert np.bincount(splits.test_labels).tolist() == [200] * 10
    assert splits.train_images.flags.c_contiguous


@pytest.mark.parametrize("n_asked", [100, 12_000])
def test_a_study_says_how_many_images_are_held_out(n_asked: int) -> None:
    """As many as the splits have, once it is known where the images come from."""
    data = with_source(DataSpec(n_validation=n_asked, split_seed=3), "synthetic")
    assert data == DataSpec(source="synthetic", n_validation=min(n_asked, 2_400), split_seed=3)
    splits = load_splits(data.source, data.n_validation, data.split_seed)
    assert len(splits.validation_labels) == data.n_validation


@pytest.mark.parametrize("source", ["auto", "fashion-mnist", "mine:load"])
def test_other_sources_hold_out_what_is_asked_for(source: str) -> None:
    """Or refuse it, once it is known how many images there are."""
    assert with_source(DataSpec(), source) == DataSpec(source=source)
