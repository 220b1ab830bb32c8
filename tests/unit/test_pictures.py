"""Picture files of any size and mode become what the data set has: 28 x 28, grey, light on dark."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.pictures import read_pictures
from fmnist_optuna.errors import DataError

GARMENT = np.zeros((28, 28), np.uint8)
GARMENT[6:22, 9:19] = 200


def save(tmp_path: Path, image: Image.Image, name: str = "a.png") -> Path:
    image.save(tmp_path / name)
    return tmp_path / name


def test_an_image_of_the_data_set_stays_as_it_is(tmp_path: Path) -> None:
    """Not a pixel changes, and its name is that of the file."""
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(GARMENT)), FASHION_MNIST)
    assert (picture.name, picture.is_inverted) == (str(tmp_path / "a.png"), False)
    assert np.array_equal(picture.pixels, GARMENT)


def test_dark_on_light_is_turned_round(tmp_path: Path) -> None:
    """The garment is the one that was drawn, and the turn is marked."""
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(255 - GARMENT)), FASHION_MNIST)
    assert picture.is_inverted
    assert np.array_equal(picture.pixels, GARMENT)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_every_mode_gives_the_same_garment(tmp_path: Path, mode: str) -> None:
    """A white garment of 112 x 112 on black, or in transparent modes on nothing, which is white as paper is."""
    large = np.kron(np.where(GARMENT > 0, 255, 0), np.ones((4, 4))).astype(np.uint8)
    grey = Image.fromarray(large)
    image = Image.fromarray(large.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    name = "a.tif" if mode in ("CMYK", "YCbCr", "F", "I") else "a.png"
    (picture,) = read_pictures(save(tmp_path, image, name), FASHION_MNIST)
    assert picture.pixels.shape == (28, 28)
    assert picture.pixels[14, 14] > 240
    assert picture.pixels[2, 2] < 15
    assert not picture.is_inverted


def test_transparency_is_paper(tmp_path: Path) -> None:
    """A black garment on nothing is dark on light."""
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[10:30, 10:30, 3] = 255
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(rgba)), FASHION_MNIST)
    assert picture.is_inverted
    assert picture.pixels[14, 14] == 255
    assert picture.pixels[0, 0] == 0


def test_a_tall_picture_gets_margins_of_its_background(tmp_path: Path) -> None:
    """It is not stretched: the margins left and right are dark as its border is once inverted."""
    tall = np.full((120, 60), 250, np.uint8)
    tall[30:90, 20:40] = 10
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(tall), "a.jpg"), FASHION_MNIST)
    assert picture.is_inverted
    assert picture.pixels[:, :6].max() <= 12
    assert picture.pixels[14, 14] > 220


@pytest.mark.parametrize(
    ("array", "n_pictures"),
    [
        (GARMENT, 1),
        (np.stack([GARMENT, GARMENT]), 2),
        (GARMENT.astype(np.float32) / 255, 1),
        (GARMENT.astype(np.int64), 1),
        (np.stack([GARMENT] * 3, axis=-1), 1),
        (GARMENT[..., None], 1),
        (GARMENT[None], 1),
        (np.stack([GARMENT] * 5), 5),
        (np.stack([GARMENT] * 2)[..., None], 2),
        (np.stack([np.stack([GARMENT] * 3, axis=-1)] * 2), 2),
        (np.stack([np.stack([GARMENT] * 3)] * 2), 2),
        (GARMENT[None, None], 1),
        (np.dstack([*[GARMENT] * 3, np.full((28, 28), 255, np.uint8)]), 1),
    ],
    ids=[
        "bytes",
        "two",
        "shares",
        "integers",
        "colours",
        "channel",
        "batch",
        "five",
        "batch and channel",
        "colour batch",
        "channels first",
        "one of all",
        "transparency",
    ],
)
def test_an_array_becomes_its_pictures(tmp_path: Path, array: np.ndarray, n_pictures: int) -> None:
    """Of every shape and kind that has one meaning: the pictures in it, numbered where there are several."""
    np.save(tmp_path / "a.npy", array)
    pictures = read_pictures(tmp_path / "a.npy", FASHION_MNIST)
    assert len(pictures) == n_pictures
    assert all(np.array_equal(picture.pixels, GARMENT) for picture in pictures)
    assert [picture.name.endswith(f"[{k}]") for k, picture in enumerate(pictures)] == [n_pictures > 1] * n_pictures


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.png", None, "no such file"),
        ("empty.png", b"", "neither"),
        ("text.png", b"hello", "neither"),
        ("cut.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "must be a picture"),
        ("text.npy", b"hello", "cannot be read"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    """A missing, empty, cut or foreign file is an error with its path."""
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        read_pictures(file, FASHION_MNIST)
    assert str(file) in str(raised.value)


def test_a_mask_is_black_and_white(tmp_path: Path) -> None:
    """True and false, and floats of 0 and 1."""
    for array in (GARMENT > 0, (GARMENT > 0).astype(np.float32)):
        np.save(tmp_path / "a.npy", array)
        assert np.array_equal(read_pictures(tmp_path / "a.npy", FASHION_MNIST)[0].pixels, np.where(GARMENT > 0, 255, 0))


def test_pictures_of_one_array_have_one_scale(tmp_path: Path) -> None:
    """One that is almost black beside a bright one stays almost black."""
    np.save(tmp_path / "a.npy", np.stack([GARMENT * 1.0, (GARMENT > 0) * 1.0]))
    bright, dark = read_pictures(tmp_path / "a.npy", FASHION_MNIST)
    assert (bright.pixels.max(), dark.pixels.max()) == (200, 1)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array(["a", "b"]), "array of numbers"),
        (np.zeros((0, 28)), "array of numbers"),
        (np.zeros(5), "must have a shape"),
        (np.zeros(784), r"rows of 28 x 28 pixels; save rows as array.reshape"),
        (np.zeros((10, 784)), r"rows of 28 x 28 pixels"),
        (np.zeros((3, 3)), "sides of at least 5"),
        (np.zeros((28, 28, 2)), "must have a shape"),
        (np.zeros((3, 28, 3)), "must have a shape"),
        (np.zeros((2, 2, 2, 2)), "must have a shape"),
        (np.zeros((1, 1, 28, 28, 1)), "must have a shape"),
        (np.zeros((3, 28, 28)), r"3 grey pictures or one colour picture, channels first; save the first as array\["),
        (np.zeros((4, 28, 28)), "4 grey pictures or one colour with transparency picture"),
        (np.full((28, 28), np.nan), "finite"),
        (GARMENT / 100 - 1, r"from -1 to 1, and their scale cannot be told; .*127.5"),
        (GARMENT.view(np.int8), "their scale cannot be told"),
        (GARMENT.astype(np.uint16) * 257, "cannot be told what is white"),
        (GARMENT * 2.0, "cannot be told what is white"),
        ((GARMENT > 0).astype(np.uint8), "from 0 to 1, and it cannot be told what is white"),
        ((GARMENT > 0).astype(np.int64), "cannot be told what is white"),
        (GARMENT / 150, "cannot be told what is white"),
    ],
)
def test_arrays_of_no_or_two_meanings(tmp_path: Path, array: np.ndarray, words: str) -> None:
    """The meanings are named, and what to save."""
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=rf"a\.npy must be a picture.*{words}"):
        read_pictures(tmp_path / "a.npy", FASHION_MNIST)


def test_a_file_of_several_frames_is_refused(tmp_path: Path) -> None:
    """An animation and a TIFF of pages."""
    frames = [Image.fromarray(GARMENT), Image.fromarray(255 - GARMENT)]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="holds 2 pictures one after another"):
            read_pictures(tmp_path / name, FASHION_MNIST)


def test_sixteen_bits_are_scaled_by_their_format(tmp_path: Path) -> None:
    """Half of 65,535 is grey; what never leaves the lowest eight bits has two readings."""
    (picture,) = read_pictures(
        save(tmp_path, Image.fromarray(np.where(GARMENT > 0, 32_896, 0).astype(np.uint16))), FASHION_MNIST
    )
    assert picture.pixels.max() == 128
    with pytest.raises(DataError, match="cannot be told what is white"):
        read_pictures(save(tmp_path, Image.fromarray(GARMENT.astype(np.uint16))), FASHION_MNIST)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    """As its EXIF says."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.rot90(GARMENT)).save(tmp_path / "a.png", exif=exif)
    (picture,) = read_pictures(tmp_path / "a.png", FASHION_MNIST)
    assert np.array_equal(picture.pixels, GARMENT)


def test_a_border_of_two_halves_is_said(tmp_path: Path) -> None:
    """Neither light nor dark: taken as light on dark, and marked."""
    halves = np.where(np.arange(28) < 14, 255, 0) * np.ones((28, 1))
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(halves.astype(np.uint8))), FASHION_MNIST)
    assert (picture.is_inverted, picture.is_mixed) == (False, True)
    assert np.array_equal(picture.pixels, halves)
    (garment,) = read_pictures(save(tmp_path, Image.fromarray(GARMENT)), FASHION_MNIST)
    assert not garment.is_mixed


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """An array of objects is refused as it is read."""
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="allow_pickle"):
        read_pictures(tmp_path / "a.npy", FASHION_MNIST)


DIGITS = DatasetInfo("digits", (8, 8), "float32", (0, 16), tuple("0123456789"))
SCANS = DatasetInfo("scans", (12, 10), "float32", (0, 4095), ("a", "b"))  # of 12 bits
COLOURS = DatasetInfo("colours", (12, 10, 3), "float32", (-1, 1), ("red", "green", "blue"))
DIGIT = np.arange(64).reshape(8, 8) / 4


def read_array(tmp_path: Path, array: np.ndarray, info: DatasetInfo) -> np.ndarray:
    np.save(tmp_path / "a.npy", array)
    return np.stack([picture.pixels for picture in read_pictures(tmp_path / "a.npy", info)])


def test_numbers_of_the_data_set_stay_as_they_are(tmp_path: Path) -> None:
    """In any type and without rounding; bytes of the same picture are scaled to its range, and nothing is inverted."""
    for array in (DIGIT, DIGIT.astype(np.float32), DIGIT[None, ..., None]):
        pixels = read_array(tmp_path, array, DIGITS)
        assert (pixels.dtype.name, pixels.shape) == ("float32", (1, 8, 8))
        np.testing.assert_array_equal(pixels[0], DIGIT)
    np.testing.assert_allclose(read_array(tmp_path, np.rint(DIGIT * 255 / 16), DIGITS)[0], DIGIT, atol=16 / 510)
    larger = np.kron(DIGIT, np.ones((4, 4)))
    assert np.abs(read_array(tmp_path, larger, DIGITS)[0] - DIGIT).max() < 1


def test_what_is_light_on_dark_is_turned_in_any_range(tmp_path: Path) -> None:
    """A dark stroke on white, as numbers of the data and as a colour picture of another size."""
    stroke = np.zeros((8, 8))
    stroke[2:6, 3:5] = 12
    info = replace(DIGITS, is_light_on_dark=True)
    np.save(tmp_path / "a.npy", 16 - stroke)
    (picture,) = read_pictures(tmp_path / "a.npy", info)
    assert picture.is_inverted
    np.testing.assert_array_equal(picture.pixels, stroke)
    coloured = replace(COLOURS, is_light_on_dark=True)
    red_on_white = np.full((24, 20, 3), 255, np.uint8)
    red_on_white[8:16, 6:14, 1:] = 0
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(red_on_white)), coloured)
    assert picture.is_inverted
    np.testing.assert_array_equal(picture.pixels[0, 0], [-1, -1, -1])
    assert picture.pixels[6, 5].tolist() == pytest.approx([-1, 1, 1], abs=0.1)


def test_colours_stay_colours(tmp_path: Path) -> None:
    """A red picture of another size is red in the range of the data; a grey one gets three equal channels."""
    red = np.zeros((24, 20, 3), np.uint8)
    red[..., 0] = 255
    for file in (save(tmp_path, Image.fromarray(red)), save(tmp_path, Image.fromarray(red), "a.bmp")):
        (picture,) = read_pictures(file, COLOURS)
        assert (picture.pixels.shape, picture.pixels.dtype.name) == ((12, 10, 3), "float32")
        np.testing.assert_array_equal(picture.pixels.reshape(-1, 3), [[1, -1, -1]] * 120)
    (grey,) = read_pictures(save(tmp_path, Image.fromarray(red[..., 0])), COLOURS)
    assert np.all(grey.pixels == 1)
    assert not grey.is_inverted


@pytest.mark.parametrize(
    ("array", "info", "words"),
    [
        (
            DIGIT / 16,
            DIGITS,
            "from 0 to 0.984375, and may be shares of 1 or numbers of the data set, which go from 0 to",
        ),
        (np.zeros((12, 10, 3)), COLOURS, "may be shares of 1 or numbers of the data set, which go from -1 to 1"),
        (
            np.full((12, 10), 9, np.uint8),
            SCANS,
            "from 9 to 9, and may be bytes or numbers of the data set, which go from "
            "0 to 4095; save a picture, such as PNG, or give the array to",
        ),
        (
            np.full((12, 10), 0.5),
            SCANS,
            "may be shares of 1 or numbers of the data set, .*; save a picture, such as PNG",
        ),
        (DIGIT - 1, DIGITS, "their scale cannot be told"),
        (np.zeros((5, 64)), DIGITS, r"rows of 8 x 8 pixels; save rows as array.reshape\(-1, 8, 8\)"),
        (
            np.zeros((9, 9)),
            replace(DIGITS, image_shape=(3, 3)),
            r"must have the shape \(3, 3\) or \(n, 3, 3\), but has",
        ),
    ],
)
def test_numbers_of_two_meanings_are_refused(tmp_path: Path, array: np.ndarray, info: DatasetInfo, words: str) -> None:
    """Whatever the range of the data set is."""
    with pytest.raises(DataError, match=words):
        read_array(tmp_path, array, info)
