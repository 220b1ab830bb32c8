"""A data set as one object: its images and labels, and what they are.

Owns what a data set must be. Knows no file, no split and no Keras.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from fmnist_optuna.errors import DataError
from fmnist_optuna.json_value import Json
from fmnist_optuna.wording import format_shape

Images = npt.NDArray[np.uint8 | np.float32]  # (n, *image_shape)
Labels = npt.NDArray[np.uint8]  # (n,)

DTYPES = ("uint8", "float32")
CHANNELS = (1, 3)  # grey or colour, where an image has a third axis
REQUIRED = {"name", "image_shape", "dtype", "value_range", "class_names"}
CLASSES = 2, 256  # the fewest and the most: labels are kept as uint8


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set's images and labels are; all else takes shape, type and names from here.

    Args:
        name: For people: "Fashion-MNIST".
        image_shape: Of one image: (height, width), or (height, width, channels) with 1 channel or 3.
        dtype: Of the images: "uint8" or "float32".
        value_range: The numbers that mean black and white, such as (0, 255); every pixel lies within.
        class_names: 2 to 256 names, all different; the label is the index.
        description: What the images show and where they come from, for the card of an exported model.
        licence: Of the data, for the same card.
        is_light_on_dark: Whether every image shows something light on a dark background, so that `predict` turns a
            picture round that is dark on light.
        is_demo: Whether the images only stand in for real ones: every output then names the data set beside the study.

    Raises:
        DataError: A value is none of these.
    """

    name: str
    image_shape: tuple[int, ...]
    dtype: str
    value_range: tuple[float, float]
    class_names: tuple[str, ...]
    description: str = ""
    licence: str = "not stated"
    is_light_on_dark: bool = False
    is_demo: bool = False

    def __post_init__(self) -> None:
        for field in ("image_shape", "value_range", "class_names"):
            value = getattr(self, field)
            value = value.tolist() if isinstance(value, np.ndarray) else value
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise DataError(f"DatasetInfo.{field} must be a tuple, but got {value!r:.80}")
            plain = (each.item() if isinstance(each, np.generic) else each for each in value)  # NumPy's own numbers
            object.__setattr__(self, field, tuple(plain))
        for field, rule, is_right in _rules(self):
            if not is_right:
                raise DataError(f"DatasetInfo.{field} must be {rule}, but got {getattr(self, field)!r:.80}")
        object.__setattr__(self, "value_range", tuple(map(float, self.value_range)))

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def warning(self) -> str:
        """What stands beside the name of a study on demonstration data; empty for any other."""
        return self.name if self.is_demo else ""

    @property
    def form(self) -> str:
        """What an image is, as documents have it: `uint8 (n, 28, 28)`."""
        return f"{self.dtype} {self.array_shape}"

    @property
    def array_shape(self) -> str:
        """The shape of an array of images: `(n, 28, 28)`."""
        return format_shape(self.image_shape)

    def draw_noise(self, n_images: int) -> Images:
        """The same images of noise each time: what a model is tried on where no data is at hand."""
        generator, shape = np.random.default_rng(0), (n_images, *self.image_shape)
        black, white = self.value_range
        if self.dtype == "uint8":
            return generator.integers(round(black), round(white) + 1, shape, dtype=np.uint8)
        return generator.uniform(black, white, shape).astype(self.dtype)

    def to_content(self) -> dict[str, Json]:
        """Every field as JSON has it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_content(cls, content: object) -> "DatasetInfo":
        """The same from what `to_content` gave.

        Raises:
            DataError: It is something else.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or not REQUIRED <= content.keys() <= names:
            known = ", ".join(sorted(names))
            raise DataError(f"A DatasetInfo must be kept as a table of {known}, but is {content!r:.80}")
        return cls(**content)


def _rules(info: DatasetInfo) -> Sequence[tuple[str, str, bool]]:
    """Field, what it must be, and whether it is."""
    shape, values, names = info.image_shape, info.value_range, info.class_names
    is_shape = len(shape) in (2, 3) and all(_is_whole(side) and side > 0 for side in shape)
    fewest, most = CLASSES
    is_range = len(values) == 2 and all(_is_number(value) for value in values) and values[0] < values[1]
    is_byte_range = info.dtype != "uint8" or (is_range and values[0] >= 0 and values[1] <= np.iinfo(np.uint8).max)
    return (
        ("name", "a text of one line", _is_line(info.name)),
        ("dtype", " or ".join(DTYPES), info.dtype in DTYPES),
        (
            "image_shape",
            "(height, width), or (height, width, channels) with 1 channel or 3",
            is_shape and (len(shape) == 2 or shape[2] in CHANNELS),
        ),
        ("value_range", "two finite numbers, that of black below that of white", is_range),
        ("value_range", "within 0 and 255 for uint8", is_byte_range),
        ("class_names", "texts of one line, none empty", all(_is_line(name) for name in names)),
        ("class_names", f"{fewest} to {most} different names", fewest <= len(set(names)) == len(names) <= most),
        ("description", "a text", isinstance(info.description, str)),
        ("licence", "a text", isinstance(info.licence, str)),
        ("is_light_on_dark", "true or false", isinstance(info.is_light_on_dark, bool)),
        ("is_demo", "true or false", isinstance(info.is_demo, bool)),
    )


def _is_line(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels for training and validation, and those of the test, with what they are.

    Args:
        info: What they are.
        train_images: (n, *image_shape) in the type of the info, n >= twice the number of classes.
        train_labels: Integers (n,), each the index of a class name; every class is there at least twice.
        test_images: (m, *image_shape), m >= 1.
        test_labels: Integers (m,). Kept as uint8, as are those of the training.

    Raises:
        DataError: An array is none of these.
    """

    info: DatasetInfo
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels

    def __post_init__(self) -> None:
        if not isinstance(self.info, DatasetInfo):
            raise DataError(f"Dataset.info must be a DatasetInfo, but got {type(self.info).__name__}")
        for role in ("train", "test"):
            images, labels = getattr(self, f"{role}_images"), getattr(self, f"{role}_labels")
            _check_images(f"Dataset.{role}_images", images, self.info)
            _check_labels(f"Dataset.{role}_labels", labels, len(images), self.info)
            object.__setattr__(self, f"{role}_images", np.ascontiguousarray(images))
            object.__setattr__(self, f"{role}_labels", np.ascontiguousarray(labels, dtype=np.uint8))
        n_of_class = np.bincount(self.train_labels, minlength=self.info.n_classes)
        if n_of_class.min() < 2:
            label = int(n_of_class.argmin())
            raise DataError(
                f"Dataset.train_labels must have every class at least twice, to train on and to validate on, but class "
                f"{label} ({self.info.class_names[label]}) is there {n_of_class[label]} times"
            )


def _check_images(place: str, images: object, info: DatasetInfo) -> None:
    if not isinstance(images, np.ndarray):
        raise DataError(f"{place} must be a NumPy array, but got {type(images).__name__}")
    images = np.asarray(images)  # what a masked array hides is kept as well
    if images.shape[1:] != info.image_shape:
        raise DataError(f"{place} must have the shape {info.array_shape} of the info, but has {images.shape}")
    if images.dtype != info.dtype:
        raise DataError(f"{place} must have the dtype {info.dtype} of the info, but has {images.dtype}")
    if len(images) == 0:
        raise DataError(f"{place} must hold at least one image, but holds none")
    low, high = float(images.min()), float(images.max())  # NaN if there is one
    if not np.isfinite([low, high]).all():
        index = int(np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))[0])
        came = images[index][~np.isfinite(images[index])][0]
        raise DataError(f"{place} must hold finite numbers, but the image {index} holds {came}")
    if not (info.value_range[0] <= low and high <= info.value_range[1]):
        raise DataError(
            f"{place} must lie within the value_range of the info, {info.value_range[0]:g} to "
            f"{info.value_range[1]:g}, but go from {low:g} to {high:g}"
        )


def _check_labels(place: str, labels: object, n_images: int, info: DatasetInfo) -> None:
    if not isinstance(labels, np.ndarray):
        raise DataError(f"{place} must be a NumPy array, but got {type(labels).__name__}")
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise DataError(f"{place} must be integers, but are {labels.dtype}")
    if labels.shape != (n_images,):
        raise DataError(f"{place} must have the shape ({n_images},), one label an image, but have {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= info.n_classes:
        raise DataError(
            f"{place} must be 0 to {info.n_classes - 1}, the indices of the {info.n_classes} class names, but go from "
            f"{low} to {high}"
        )
