"""Augmented images in a graph against plain NumPy: mirrored, moved, blackened, mixed."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.augmentation import MOVES, SHARES, SQUARES, AugmentedImages, mix, partners

pytestmark = pytest.mark.usefixtures("one_thread")

N_IMAGES, HEIGHT, WIDTH = 40, 6, 9
INFO = DatasetInfo("strips", (HEIGHT, WIDTH), "uint8", (7, 255), ("a", "b"))
COLOURS = DatasetInfo("colours", (HEIGHT, WIDTH, 3), "float32", (-1, 1), ("a", "b"))


def draw_images(info: DatasetInfo) -> NDArray[Any]:
    random = np.random.default_rng(1)
    shape = (N_IMAGES, *info.image_shape)
    return random.integers(8, 256, shape, dtype=np.uint8) if info is INFO else random.uniform(-1, 1, shape).astype("f4")


def augment(options: Options, info: DatasetInfo, rows: list[int], epoch: int = 0) -> tuple[Any, Any]:
    """The images of some rows as a graph has them, and what was drawn."""
    images = AugmentedImages.of(options, info, tf.constant(draw_images(info)))
    drawn = images.augmentation.draw(N_IMAGES, 3, 5, epoch)
    tensors = {name: tf.constant(values) for name, values in drawn.items()}
    return tf.function(images.take, autograph=False)(tf.constant(rows), tensors).numpy(), drawn


def by_hand(image: NDArray[Any], black: float, move: NDArray[Any] | None, square: NDArray[Any] | None) -> NDArray[Any]:
    """What should become of an image, pixel by pixel."""
    found = np.full_like(image, black)
    down, right, is_mirrored = (0, 0, 0) if move is None else move
    source = image[:, ::-1] if is_mirrored else image
    for row in range(HEIGHT):
        for column in range(WIDTH):
            if 0 <= row - down < HEIGHT and 0 <= column - right < WIDTH:
                found[row, column] = source[row - down, column - right]
    if square is not None:
        top, left = square
        found[top : top + 3, left : left + 3] = black
    return found


@pytest.mark.parametrize("info", [INFO, COLOURS], ids=["grey", "colour"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"horizontal_flip": "random"},
        {"shift": 2},
        {"erase": 3},
        {"horizontal_flip": "alternating", "shift": 5, "erase": 3},
    ],
    ids=["nothing", "flip", "shift", "erase", "all"],
)
def test_images_are_those_of_the_rule(info: DatasetInfo, given: dict[str, Any]) -> None:
    """Every pixel of every image; what leaves the image is black, and no image sees another."""
    rows = [39, 0, 7, 7, 21, *range(20)]
    found, drawn = augment(Options.model_validate(given), info, rows)
    images, black = draw_images(info), info.value_range[0]
    assert set(drawn) == {name for name, keys in OF_OPTIONS.items() if keys & given.keys()}
    for place, row in enumerate(rows):
        move, square = (drawn[name][row] if name in drawn else None for name in (MOVES, SQUARES))
        np.testing.assert_array_equal(found[place], by_hand(images[row], black, move, square))
    assert found.dtype == images.dtype


OF_OPTIONS = {MOVES: {"horizontal_flip", "shift"}, SQUARES: {"erase"}, SHARES: {"mixup"}}


def test_every_shift_and_square_is_drawn() -> None:
    """Each value of the range about as often as the others, and never one outside."""
    options = Options(shift=2, erase=3, horizontal_flip="random")
    augmentation = AugmentedImages.of(options, INFO, tf.constant(draw_images(INFO))).augmentation
    drawn = augmentation.draw(20_000, 1, 0, 0)
    for values, low, high in (
        (drawn[MOVES][:, 0], -2, 2),
        (drawn[MOVES][:, 1], -2, 2),
        (drawn[MOVES][:, 2], 0, 1),
        (drawn[SQUARES][:, 0], 0, HEIGHT - 3),
        (drawn[SQUARES][:, 1], 0, WIDTH - 3),
    ):
        numbers, counts = np.unique(values, return_counts=True)
        assert list(numbers) == list(range(low, high + 1))
        assert counts.min() > 0.9 * 20_000 / len(numbers)


def test_alternating_flips_show_both_forms() -> None:
    """In two epochs in a row each image comes as it is and mirrored; about half of them begin mirrored."""
    options = Options(horizontal_flip="alternating")
    augmentation = AugmentedImages.of(options, INFO, tf.constant(draw_images(INFO))).augmentation
    flips = [augmentation.draw(N_IMAGES, 1, 5, epoch)[MOVES][:, 2] for epoch in range(3)]
    np.testing.assert_array_equal(flips[0] + flips[1], 1)
    np.testing.assert_array_equal(flips[0], flips[2])
    assert 0.25 < flips[0].mean() < 0.75


def test_draws_follow_from_seed_and_epoch() -> None:
    """The same again for the same, others for another epoch or seed."""
    augmentation = AugmentedImages.of(Options(shift=2, mixup=0.4), INFO, tf.constant(draw_images(INFO))).augmentation
    drawn = [augmentation.draw(N_IMAGES, 3, seed, epoch) for seed, epoch in ((1, 2), (1, 2), (1, 3), (2, 2))]
    for name in (MOVES, SHARES):
        same = [np.array_equal(drawn[0][name], other[name]) for other in drawn]
        assert same == [True, True, False, False]


def test_mixed_images_are_shares_of_two() -> None:
    """Each with the one behind it, the last with the first; bytes are rounded, shares go to the larger part."""
    images = draw_images(INFO)[:4]
    found = mix(tf.constant(images), tf.constant(0.7)).numpy()
    others = np.roll(images, -1, axis=0).astype("f4")
    np.testing.assert_allclose(found, 0.7 * images + 0.3 * others, atol=0.51)
    np.testing.assert_array_equal(partners(tf.constant([3, 1, 2])).numpy(), [1, 2, 3])
    augmentation = AugmentedImages.of(Options(mixup=0.2), INFO, tf.constant(images)).augmentation
    shares = augmentation.draw(4, 1_000, 0, 0)[SHARES]
    assert shares.shape == (1_000,)
    assert 0.5 <= shares.min() < 0.51
    assert 0.9 < np.median(shares) <= 1.0  # of Beta(0.2, 0.2) most are near an end


@pytest.mark.parametrize(
    ("given", "words"), [({"shift": 6}, r"augment\.shift must be at most 5"), ({"erase": 7}, r"augment\.erase must be")]
)
def test_what_is_larger_than_an_image_is_refused(given: dict[str, int], words: str) -> None:
    """With the size of the images."""
    with pytest.raises(SpecError, match=rf"{words}.* for images of 6 x 9 pixels, but got \d\."):
        AugmentedImages.of(Options.model_validate(given), INFO, tf.constant(draw_images(INFO)))
