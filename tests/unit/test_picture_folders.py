"""A folder of pictures for each class: what is read, how it is fitted, and the one line for what is wrong."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fmnist_optuna.data.dataset import Dataset
from fmnist_optuna.data.pictures import read_pictures
from fmnist_optuna.data.readers.forms import read_form
from fmnist_optuna.errors import DataError
from fmnist_optuna.spec.data_spec import DataSpec

CLASSES = ("cat", "dog")


def read(folder: Path, **keys: Any) -> Dataset:
    return read_form(DataSpec.model_validate({"source": f"folder:{folder}", **keys}), folder)


def fault(folder: Path, **keys: Any) -> str:
    with pytest.raises(DataError) as error:
        read(folder, **keys)
    return str(error.value)


def write_picture(file: Path, number: int, size: tuple[int, int] = (8, 6), mode: str = "L") -> np.ndarray:
    """A picture of noise of a width and a height; returns its pixels."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return pixels


def write_folder(folder: Path, n_each: int = 4, **how: Any) -> dict[str, list[np.ndarray]]:
    return {
        name: [write_picture(folder / name / f"{number}.png", 10 * index + number, **how) for number in range(n_each)]
        for index, name in enumerate(CLASSES)
    }


def test_folders_train_and_test_are_read(tmp_path: Path) -> None:
    """In the order of their paths, without loss; hidden files and what systems leave are not looked at."""
    train, test = write_folder(tmp_path / "train"), write_folder(tmp_path / "test", n_each=2)
    (tmp_path / "train" / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "train" / ".cache").mkdir()
    write_picture(tmp_path / "train" / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png", 0)
    (tmp_path / "test" / "dog" / "Thumbs.db").write_text("x")
    dataset = read(tmp_path)
    info = dataset.info
    assert (info.name, info.class_names, info.image_shape) == (tmp_path.name, CLASSES, (6, 8))
    np.testing.assert_array_equal(dataset.train_images, np.stack([*train["cat"], *train["dog"]]))
    np.testing.assert_array_equal(dataset.test_images, np.stack([*test["cat"], *test["dog"]]))
    assert dataset.train_labels.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("inner", ["", "train"])
def test_without_a_test_a_share_is_kept_out(tmp_path: Path, inner: str) -> None:
    """Of each class, whether the classes stand at the top or within `train`."""
    write_folder(tmp_path / inner, n_each=8)
    dataset = read(tmp_path, test_share=0.25)
    assert np.bincount(dataset.train_labels).tolist() == [6, 6]
    assert np.bincount(dataset.test_labels).tolist() == [2, 2]


def test_one_picture_in_colour_makes_all_of_them_so(tmp_path: Path) -> None:
    """Unless the study file says grey."""
    write_folder(tmp_path)
    write_picture(tmp_path / "cat" / "0.png", 0, mode="RGB")
    assert read(tmp_path).info.image_shape == (6, 8, 3)
    assert read(tmp_path, mode="grey").info.image_shape == (6, 8)
    assert read(tmp_path, mode="colour").info.image_shape == (6, 8, 3)


@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_palette_of_greys_is_grey(tmp_path: Path, ending: str) -> None:
    """What programs that make files small write of a grey picture makes no set a set in colour; one of colours does."""
    write_folder(tmp_path)
    shades = Image.new("P", (8, 6), 1)
    shades.putpalette([9, 9, 9, 70, 70, 70])
    shades.save(tmp_path / "cat" / f"small.{ending}")
    dataset = read(tmp_path)
    assert dataset.info.image_shape == (6, 8)
    assert any((image == 70).all() for image in (*dataset.train_images, *dataset.test_images))
    shades.putpalette([9, 9, 9, 70, 70, 71])
    shades.save(tmp_path / "cat" / f"small.{ending}")
    assert read(tmp_path).info.image_shape == (6, 8, 3)


@pytest.mark.parametrize("inner", ["", "train"])
def test_a_picture_of_no_class_is_said(tmp_path: Path, inner: str) -> None:
    """One beside the folders of the classes; what is no picture, hidden, or beside train and test is no business."""
    write_folder(tmp_path / inner)
    for name in ("labels.csv", ".hidden.png", *(["sheet.png"] if inner else [])):
        write_picture(tmp_path / "x.png", 0).tofile(tmp_path / name)
    (tmp_path / "x.png").rename(tmp_path / inner / "x.PNG")
    words = (
        f"{tmp_path / inner} must hold pictures in the folders of their classes alone, but {tmp_path / inner / 'x.PNG'}"
    )
    assert fault(tmp_path).startswith(f"{words} lies beside these; move what is to be used into")
    (tmp_path / inner / "x.PNG").unlink()
    assert read(tmp_path).info.class_names == CLASSES


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
def test_pictures_are_fitted_as_predict_fits_them(tmp_path: Path, resize: str) -> None:
    """Of any size, upright, in one size; a photograph that is predicted gets the same pixels."""
    write_folder(tmp_path)
    file = tmp_path / "cat" / "0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 30), dtype=np.uint8)).save(file, exif=exif)
    dataset = read(tmp_path, size=[10, 12], resize=resize)
    assert dataset.info.image_shape == (10, 12)
    (picture,) = read_pictures(file, dataset.info)
    assert any(np.array_equal(picture.pixels, image) for image in (*dataset.train_images, *dataset.test_images))


def test_a_png_that_its_xmp_turns_is_measured_upright(tmp_path: Path) -> None:
    """As it is read: else a whole folder of such pictures would be shrunk and padded to the size of one on its side."""
    write_folder(tmp_path)
    turned = PngInfo()
    tiff = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"'
    turned.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><d {tiff}/></x:xmpmeta>")
    for file in sorted(tmp_path.glob("*/*")):
        Image.fromarray(np.random.default_rng(5).integers(0, 256, (12, 7), dtype=np.uint8)).save(
            file.with_suffix(".png"), pnginfo=turned
        )
        if file.suffix != ".png":
            file.unlink()
    assert read(tmp_path).info.image_shape == (7, 12)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "cat" / "note.txt").write_text("x"), "note.txt is called otherwise"),
        (lambda folder: (folder / "cat" / "bad.png").write_text("x"), "bad.png cannot be read"),
        (lambda folder: (folder / "cat" / "gone.png").symlink_to("nowhere"), "gone.png cannot be read: No such file"),
        (lambda folder: (folder / "cat" / "more").symlink_to(folder / "dog"), "more is a link to a folder"),
        (lambda folder: write_picture(folder / "dog" / "large.png", 7, (9, 9)), "large.png of 9 x 9; give data.size"),
        (lambda folder: (folder / "empty").mkdir(), "empty must hold pictures of the class empty, but holds none"),
        (lambda folder: (folder / "dog").rename(folder / ".dog"), "must be of 2 to 65,535 classes, but are all cat"),
        (lambda folder: [path.unlink() for path in (folder / "dog").iterdir()], "must hold pictures of the class dog"),
        (
            lambda folder: write_picture(folder / "one" / "0.png", 7),
            "classes must have .* at least three .*, but one is there once",
        ),
    ],
)
def test_wrong_folders_are_said(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    """The file or the folder, what must hold, and what to do."""
    write_folder(tmp_path)
    spoil(tmp_path)
    assert re.search(words, fault(tmp_path))


@pytest.mark.parametrize("roles", [("train",), ("test",), ("train", "test", "val")])
def test_roles_without_classes_are_no_classes(tmp_path: Path, roles: tuple[str, ...]) -> None:
    """Pictures right in `test` are neither left out nor a class of that name."""
    for role in ("train", "test", *roles):
        if role in roles:
            write_picture(tmp_path / role / "0.png", 1)
        else:
            write_folder(tmp_path / role)
    assert fault(tmp_path) == f"{tmp_path / roles[0]} must hold a folder for each class, but holds none."


@pytest.mark.parametrize("roles", [("Train", "Test"), ("training", "testing"), ("seg_train", "seg_test")])
def test_roles_of_other_names_are_no_classes(tmp_path: Path, roles: tuple[str, ...]) -> None:
    """All of their pictures would be of two classes, which tell nothing of what they show."""
    for role in roles:
        write_folder(tmp_path / role)
    assert fault(tmp_path).endswith(f"but holds {', '.join(sorted(roles))}; rename these to train and test.")


@pytest.mark.parametrize("classes", [CLASSES, ("test_negative", "test_positive"), ("trained", "untrained")])
def test_classes_may_hold_folders_of_like_names(tmp_path: Path, classes: tuple[str, ...]) -> None:
    """As where each has a folder for every year; words in their names do not make them parts of a split."""
    for name in classes:
        for year in ("2024", "2025"):
            write_picture(tmp_path / name / year / "0.png", int(year))
            write_picture(tmp_path / name / year / "1.png", int(year) + 10)
    assert read(tmp_path).info.class_names == classes


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """Beside others, without folders in it."""
    write_folder(tmp_path)
    (tmp_path / "dog").rename(tmp_path / "train")
    assert read(tmp_path).info.class_names == ("cat", "train")


@pytest.mark.parametrize(("role", "came"), [("val", "train, test, val"), ("cat", "train, test, cat")])
def test_a_folder_beside_train_and_test_is_said(tmp_path: Path, role: str, came: str) -> None:
    """It is not left out quietly, as images to validate on might be; a class may be called train all the same."""
    for root in ("train", "test", role):
        write_folder(tmp_path / root)
    assert f"must hold train, perhaps test, and no other folder, or the classes alone, but holds {came}" in fault(
        tmp_path
    )
    write_picture(tmp_path / "vehicles" / "train" / "0.png", 1)
    write_folder(tmp_path / "vehicles")
    write_picture(tmp_path / "vehicles" / "train" / "1.png", 2)
    write_picture(tmp_path / "vehicles" / "train" / "2.png", 3)
    assert read(tmp_path / "vehicles").info.class_names == ("cat", "dog", "train")


def test_a_class_that_is_in_the_test_alone_is_said(tmp_path: Path) -> None:
    """And one that is missing there."""
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test")
    write_picture(tmp_path / "test" / "cow" / "0.png", 1)
    assert "of the test must be among those to train on, but 'cow' is not" in fault(tmp_path)
    (tmp_path / "test" / "cow").rename(tmp_path / "train" / "cow")
    write_picture(tmp_path / "train" / "cow" / "1.png", 1)
    assert "of the test must have every class at least once, but class 1 (cow) is not there" in fault(tmp_path)


def test_broken_files_are_left_out_on_request(tmp_path: Path) -> None:
    """What cannot be read, and what is no picture; how many they are is known."""
    write_folder(tmp_path)
    (tmp_path / "cat" / "note.txt").write_text("x")
    (tmp_path / "cat" / "bad.png").write_text("x")
    dataset = read(tmp_path, skip_broken=True)
    assert len(dataset.train_images) + len(dataset.test_images) == 8
    file = tmp_path / "dog" / "0.png"
    file.write_bytes(file.read_bytes()[:50])  # its header is whole
    assert (dataset.n_skipped, read(tmp_path, skip_broken=True).n_skipped) == (2, 3)


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    """Missing, or without classes."""
    assert "must name a folder with a folder for each class" in fault(tmp_path / "none")
    assert "must hold a folder for each class, but holds none" in fault(tmp_path)
