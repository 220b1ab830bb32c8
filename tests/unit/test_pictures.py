"""Picture files of any size and mode become what the data set has: 28 x 28, grey, light on dark."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist_optuna.errors import DataError
from fmnist_optuna.learning.pictures import read_pictures

GARMENT = np.zeros((28, 28), np.uint8)
GARMENT[6:22, 9:19] = 200


def save(tmp_path: Path, image: Image.Image, name: str = "a.png") -> Path:
    image.save(tmp_path / name)
    return tmp_path / name


def test_an_image_of_the_data_set_stays_as_it_is(tmp_path: Path) -> None:
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(GARMENT)))
    assert (picture.name, picture.is_inverted) == (str(tmp_path / "a.png"), False)
    assert np.array_equal(picture.pixels, GARMENT)


def test_dark_on_light_is_turned_round(tmp_path: Path) -> None:
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(255 - GARMENT)))
    assert picture.is_inverted
    assert np.array_equal(picture.pixels, GARMENT)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_every_mode_gives_the_same_garment(tmp_path: Path, mode: str) -> None:
    """A white garment of 112 x 112 on black, or in transparent modes on nothing, which is white as paper is."""
    large = np.kron(np.where(GARMENT > 0, 255, 0), np.ones((4, 4))).astype(np.uint8)
    grey = Image.fromarray(large)
    image = Image.fromarray(large.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    name = "a.tif" if mode in ("CMYK", "YCbCr", "F", "I") else "a.png"
    (picture,) = read_pictures(save(tmp_path, image, name))
    assert picture.pixels.shape == (28, 28)
    assert picture.pixels[14, 14] > 240
    assert picture.pixels[2, 2] < 15
    assert not picture.is_inverted


def test_transparency_is_paper(tmp_path: Path) -> None:
    """A black garment on nothing is dark on light."""
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[10:30, 10:30, 3] = 255
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(rgba)))
    assert picture.is_inverted
    assert picture.pixels[14, 14] == 255
    assert picture.pixels[0, 0] == 0


def test_a_tall_picture_gets_margins_of_its_background(tmp_path: Path) -> None:
    tall = np.full((120, 60), 250, np.uint8)
    tall[30:90, 20:40] = 10
    (picture,) = read_pictures(save(tmp_path, Image.fromarray(tall), "a.jpg"))
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
    ],
    ids=["bytes", "two", "shares", "integers", "colours"],
)
def test_arrays(tmp_path: Path, array: np.ndarray, n_pictures: int) -> None:
    np.save(tmp_path / "a.npy", array)
    pictures = read_pictures(tmp_path / "a.npy")
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
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        read_pictures(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    "array", [np.array(["a", "b"]), np.zeros((0, 28)), np.zeros(5), np.full((3, 3), np.nan), np.zeros((2, 2, 2, 2))]
)
def test_arrays_that_are_no_pictures(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=r"a\.npy must be a picture"):
        read_pictures(tmp_path / "a.npy")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="allow_pickle"):
        read_pictures(tmp_path / "a.npy")
