"""What is counted of a data set before anybody trains on it, and what is refused then."""

from dataclasses import replace

import numpy as np
import pytest

from fmnist_optuna.data import summary as summaries
from fmnist_optuna.data.contact_sheet import draw_sheet
from fmnist_optuna.data.dataset import Dataset, DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.source import load_splits
from fmnist_optuna.data.split import Splits, split_dataset
from fmnist_optuna.data.summary import check_content, summarise
from fmnist_optuna.errors import DataError, UsageError

INFO = DatasetInfo("shapes", (6, 5), "uint8", (0, 255), ("disc", "square"))
LABELS = (np.arange(40) % 2).astype(np.uint8)


def make(
    n_repeated: int = 0, labels: np.ndarray = LABELS, info: DatasetInfo = INFO, source: str = "npz:a.npz"
) -> Splits:
    """Forty images of noise to train and validate on and ten for the test, some of which are among the former."""
    numbers = np.random.default_rng(0).integers(0, 256, (50, *info.image_shape), dtype=np.uint8)
    numbers[40 : 40 + n_repeated] = numbers[:n_repeated]
    return split_dataset(Dataset(info, numbers[:40], labels, numbers[40:], LABELS[:10]), source, 8, 0)


def test_repeated_test_images_are_counted() -> None:
    """Whether they are among those to train on or to validate on; one in a hundred is worth a warning."""
    assert [summarise(make(n)).n_repeated for n in (0, 1, 5)] == [0, 1, 5]
    found = summarise(make(1))
    assert found.warnings == {
        "data_repeated": "1 of 10 test images are among those to train or validate on, bit for bit"
    }
    assert replace(found, n_of_class={**found.n_of_class, "test": (100, 101)}).warnings == {}
    check_content("npz:a.npz", summarise(make(5)))


@pytest.mark.parametrize(("shape", "noun"), [((7,), "row"), ((6, 5, 4), "array"), ((6, 5, 3), "image")])
def test_what_is_no_picture_is_called_otherwise(shape: tuple[int, ...], noun: str) -> None:
    """Rows of numbers, and arrays of them."""
    found = summarise(make(6, info=replace(INFO, image_shape=shape)))
    assert found.on_repeated == f"6 of 10 test {noun}s are among those to train or validate on, bit for bit"
    with pytest.raises(DataError, match=rf"^The test {noun}s of npz:a.npz must be others .* but 6 of 10 test {noun}s"):
        check_content("npz:a.npz", found)


def test_a_test_that_is_trained_on_is_refused() -> None:
    """More than half of it."""
    with pytest.raises(
        DataError, match=r"test images of npz:a.npz must be others .* but 6 of 10 test images are among"
    ):
        check_content("npz:a.npz", summarise(make(6)))


def test_unequal_classes_are_said() -> None:
    """Ten times as many of one as of another."""
    labels = (np.arange(40) < 4).astype(np.uint8)
    found = summarise(make(labels=labels))
    assert found.n_of_class == {"train": (29, 3), "validation": (7, 1), "test": (5, 5)}
    assert found.warnings == {}
    found = replace(found, n_of_class={**found.n_of_class, "train": (30, 3)})
    assert found.warnings["data_unequal"].startswith("the classes are unequal: 30 images of disc and 3 of square")


def test_pictures_of_another_scale_are_said() -> None:
    """Bytes to train on and shares of 1 to test with, rows too, and numbers up to 16 where 255 is white."""
    found = summarise(make())
    assert found.warnings == {}
    assert replace(found, test_range=(0, 1)).warnings == {
        "data_scaled": "the test images go from 0 to 1 and those to train on from 0 to 255, as if they were scaled in "
        "two ways"
    }
    dim = replace(found, value_range=(0, 16), test_range=(0, 16))
    assert dim.warnings["data_scaled"].startswith(
        "the images to train on go from 0 to 16, where 0 is black and 255 white, and so it is for `predict`; give "
    )
    assert replace(dim, info=replace(INFO, value_range=(0, 16))).warnings == {}
    assert replace(dim, info=replace(INFO, image_shape=(7,))).warnings == {}
    rows = replace(found, info=replace(INFO, image_shape=(7,)), value_range=(-3.5, 3.25), test_range=(-9, 1200))
    assert rows.warnings["data_scaled"].startswith("the test rows go from -9 to 1200 and those to train on from -3.5 ")
    assert summarise(replace(make(), test_images=make().test_images // 255)).warnings.keys() == {"data_scaled"}


def test_files_that_were_left_out_are_said() -> None:
    """To whoever trains, and to whoever looks, from whatever process they were read in."""
    assert "data_skipped" not in summarise(make()).warnings
    for n, words in ((1, "1 file that is no picture is left out"), (3, "3 files that are no pictures are left out")):
        found = summarise(replace(make(), n_skipped=n)).warnings
        assert found == {"data_skipped": f"{words}, as data.skip_broken says"}


def test_answers_that_cannot_be_kept_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes, ten images and four bytes are 80 bytes."""
    monkeypatch.setattr(summaries, "MOST_ANSWERS", 79)
    with pytest.raises(DataError, match=r"must take at most .* those to 10 images in 2 classes take"):
        check_content("npz:a.npz", summarise(make()))


def test_there_is_nothing_to_say_of_drawn_garments() -> None:
    """So a start need not count: no test image is repeated, and every class has as many images."""
    summary = summarise(load_splits("synthetic", 2_000, 0))
    assert (summary.n_repeated, summary.warnings) == (0, {})


def test_a_sheet_has_a_row_for_each_class() -> None:
    """Two rows of ten pictures of 6 x 5 pixels with margins of two, the first image of class 0 in the first place."""
    splits = make()
    sheet = draw_sheet(splits)
    assert (sheet.mode, sheet.size) == ("L", (10 * 7 + 2, 2 * 8 + 2))
    first = splits.train_images[np.flatnonzero(splits.train_labels == 0)[0]]
    np.testing.assert_array_equal(np.asarray(sheet)[2:8, 2:7], first)
    rows = make(info=replace(INFO, image_shape=(7,)))
    with pytest.raises(DataError, match=r"A contact sheet must be of pictures, but npz:a\.npz has rows of 7 numbers"):
        draw_sheet(rows)


def test_a_fingerprint_of_files_is_over_their_content() -> None:
    """Wherever they are and whatever form they have; of a function its name counts; other content is other data."""
    first = make().fingerprint
    assert make(source="folder:/elsewhere").fingerprint == first
    assert len({first, make(source="my:load").fingerprint, make(n_repeated=1).fingerprint}) == 3


def test_files_of_a_built_in_data_set_are_that_data_set() -> None:
    """A study on them is the same study."""
    info = replace(FASHION_MNIST, image_shape=(28, 28))
    labels = (np.arange(40) % 10).astype(np.uint8)
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
    dataset = Dataset(info, images[:40], labels, images[40:], labels[:10])
    prints = [split_dataset(dataset, source, 10, 0).fingerprint for source in ("fashion-mnist", "keras:fashion_mnist")]
    assert prints[0] == prints[1]


def test_a_class_that_nobody_validates_on_is_refused() -> None:
    """Its share of the images held out is less than half of one."""
    labels = np.where(np.arange(40) < 2, 1, 0).astype(np.uint8)
    images = np.zeros((50, 6, 5), np.uint8)
    dataset = Dataset(INFO, images[:40], labels, images[40:], LABELS[:10])
    words = r"every class, but 8 of 40 hold out none of the 2 of class 1 \(square\); with 20 there is one of each"
    with pytest.raises(UsageError, match=words):
        split_dataset(dataset, "npz:a.npz", 8, 0)
    assert np.bincount(split_dataset(dataset, "npz:a.npz", 20, 0).validation_labels).tolist() == [19, 1]
