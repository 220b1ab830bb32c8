"""What a data set must be: each rule is said in one line, with what came."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fmnist_optuna import Dataset, DatasetInfo
from fmnist_optuna.errors import DataError

INFO = DatasetInfo("shapes", (6, 5), "float32", (0, 1), ("disc", "square"))
LABELS = np.array([0, 1, 0, 1])


def images(n: int = 4, dtype: str = "float32") -> np.ndarray:
    return np.linspace(0, 1, n * 30).reshape(n, 6, 5).astype(dtype)


def make(**changes: Any) -> Dataset:
    arrays = {"train_images": images(), "train_labels": LABELS, "test_images": images(2), "test_labels": LABELS[:2]}
    return Dataset(**{"info": INFO, **arrays, **changes})


def spoiled(value: float) -> np.ndarray:
    array = images()
    array[1, 2, 3] = value
    return array


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": " "}, "name must be a text of one line, but got ' '"),
        ({"dtype": "float64"}, "dtype must be uint8 or float32, but got 'float64'"),
        ({"image_shape": 28}, "image_shape must be a tuple, but got 28"),
        ({"image_shape": ()}, r"image_shape must be whole numbers above 0: \(height, width\), \(height, width, chan"),
        ({"image_shape": (28, 0)}, "image_shape must be"),
        ({"image_shape": (28.0, 28)}, "image_shape must be"),
        ({"value_range": (1, 0)}, "value_range must be two finite numbers, that of black below that of white"),
        ({"value_range": (0, float("inf"))}, "value_range must be two finite numbers"),
        ({"value_range": "01"}, "value_range must be a tuple, but got '01'"),
        ({"dtype": "uint8", "value_range": (0, 256)}, "value_range must be within 0 and 255 for uint8"),
        ({"class_names": ("a",)}, "class_names must be 2 to 65,535 different names"),
        ({"class_names": ("a", "a")}, "class_names must be 2 to 65,535 different names"),
        ({"class_names": ("a", "b\n")}, "class_names must be texts of one line, none empty"),
        ({"class_names": "ab"}, "class_names must be a tuple, but got 'ab'"),
        ({"class_names": tuple(map(str, range(65_536)))}, "class_names must be 2 to 65,535 different names"),
        ({"licence": None}, "licence must be a text, but got None"),
        ({"is_demo": 1}, "is_demo must be true or false, but got 1"),
    ],
)
def test_an_info_of_another_form_is_refused(changes: dict[str, Any], words: str) -> None:
    """The field, what it must be, and what it is."""
    with pytest.raises(DataError, match=f"^DatasetInfo.{words}"):
        replace(INFO, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"info": {"name": "shapes"}}, "info must be a DatasetInfo, but got dict"),
        ({"train_images": images().tolist()}, "train_images must be a NumPy array, but got list"),
        ({"train_images": images().reshape(4, 30)}, r"must have the shape \(n, 6, 5\) of the info, but has \(4, 30\)"),
        ({"train_images": images(4, "float64")}, "must have the dtype float32 of the info, but has float64"),
        ({"train_images": images().astype(">f4")}, "must have the dtype float32 of the info, but has >f4"),
        ({"test_images": images()[:0], "test_labels": LABELS[:0]}, "test_images must hold at least one image"),
        ({"train_images": spoiled(np.nan)}, "train_images must hold finite numbers, but the image 1 holds nan"),
        ({"train_images": spoiled(np.inf)}, "train_images must hold finite numbers, but the image 1 holds inf"),
        (
            {"test_images": images(2) * 2},
            "test_images must lie within the value_range of the info, 0 to 1, but go from",
        ),
        ({"train_images": images() - 0.5}, "0 to 1, but go from -0.5 to 0.5"),
        ({"train_images": np.ma.masked_less(spoiled(np.nan), 0)}, "must hold finite numbers, but the image 1"),
        ({"train_images": np.ma.masked_less(images(), 0.5)}, "train_images must have a value in every place, but"),
        ({"train_labels": LABELS.tolist()}, "train_labels must be a NumPy array, but got list"),
        ({"train_labels": LABELS * 1.0}, "train_labels must be integers, but are float64"),
        ({"train_labels": LABELS == 1}, "train_labels must be integers, but are bool"),
        ({"train_labels": np.eye(2, dtype=int)[LABELS]}, r"must have the shape \(4,\), one label an image, but have"),
        ({"test_labels": LABELS}, r"test_labels must have the shape \(2,\), one label an image, but have \(4,\)"),
        ({"train_labels": LABELS + 1}, "must be 0 to 1, the indices of the 2 class names, but go from 1 to 2"),
        ({"train_labels": LABELS - 1}, "but go from -1 to 0"),
        ({"train_labels": np.array([0, 1, 0, 0])}, r"class 1 \(square\) is there once"),
        ({"train_labels": np.array([0, 256, 0, 1])}, "but go from 0 to 256"),
    ],
)
def test_arrays_of_another_form_are_refused(changes: dict[str, Any], words: str) -> None:
    """The array, what it must be, and what it is."""
    with pytest.raises(DataError, match=rf"^Dataset\..*{words}") as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_what_is_right_is_kept() -> None:
    """Labels of any integers become bytes; an info comes back from its JSON as it was."""
    dataset = make(train_labels=LABELS.astype(np.uint64))
    assert (dataset.train_labels.dtype.name, dataset.train_labels.tolist()) == ("uint8", [0, 1, 0, 1])
    assert DatasetInfo.from_content(INFO.to_content()) == INFO
    of_arrays: dict[str, Any] = {
        "value_range": (images().min(), images().max()),
        "class_names": np.array(["disc", "square"]),
    }
    assert replace(INFO, **of_arrays) == INFO
    assert (INFO.form, INFO.n_classes, INFO.value_range) == ("float32 (n, 6, 5)", 2, (0.0, 1.0))
    noise = INFO.draw_noise(50)
    assert (noise.shape, noise.dtype.name, 0 <= noise.min() < noise.max() <= 1) == ((50, 6, 5), "float32", True)


@pytest.mark.parametrize("content", [None, [], {"name": "x"}, {**INFO.to_content(), "author": "me"}])
def test_another_content_is_no_info(content: Any) -> None:
    """What is stored of an info is all of it and nothing else."""
    with pytest.raises(DataError, match="must be kept as a table of class_names, "):
        DatasetInfo.from_content(content)
