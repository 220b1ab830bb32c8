"""A data set as one object: its images and labels, and what they are.

Owns what a data set must be. Knows no file, no split and no Keras.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.one_each import as_array, check_one_each
from fmnist_optuna.data.weights import Weights, check_weights
from fmnist_optuna.errors import DataError
from fmnist_optuna.json_value import Json
from fmnist_optuna.wording import format_shape

Images = npt.NDArray[np.uint8 | np.float32]  # (n, *image_shape)
Labels = npt.NDArray[np.uint8 | np.uint16]  # (n,)

DTYPES = ("uint8", "float32")
RESIZES = ("pad", "crop", "stretch")
FULL_BYTE, FULL_WORD = 255, 65_535  # white of 8 and of 16 bits
CHANNELS = (1, 3)  # grey or colour, where an image has a third axis
REQUIRED = {"name", "image_shape", "dtype", "value_range", "class_names"}
FEWEST_TO_TRAIN, FEWEST_TO_TEST = 2, 1  # examples of a class: of those to train on one is to validate on
CLASSES = 2, 65_535  # the fewest and the most: labels are kept as uint8, as uint16 where there are more than 256


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set's images and labels are; all else takes shape, type and names from here.

    Args:
        name: For people: "Fashion-MNIST".
        image_shape: Of one image: (height, width), or (height, width, channels) with 1 channel or 3, of a picture;
            (features,) or any other of what is none.
        dtype: Of the images: "uint8" or "float32".
        value_range: The numbers that mean black and white, such as (0, 255), or the smallest and the largest of what is
            no picture; every number lies within.
        class_names: 2 to 65,535 names, all different; the label is the index.
        description: What the images show and where they come from, for the card of an exported model.
        licence: Of the data, for the same card.
        is_light_on_dark: Whether every image shows something light on a dark background, so that `predict` turns a
            picture round that is dark on light.
        resize: How `predict` fits a photograph of other proportions: "pad" with margins of the colour of its border,
            "crop" to its middle, or "stretch".
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
    resize: str = "pad"

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
    def is_of_pictures(self) -> bool:
        """Whether an image is a picture, grey or in colour, rather than numbers of another meaning."""
        return is_picture(self.image_shape)

    @property
    def noun(self) -> str:
        """What one of them is called: `image`, or where they are numbers of another meaning `row` or `array`."""
        return "image" if self.is_of_pictures else "row" if len(self.image_shape) == 1 else "array"

    @property
    def kind(self) -> str:
        """What the images are, for people: `grey 28 x 28 pictures`, `rows of 13 numbers`."""
        size = " x ".join(map(str, self.image_shape[: 2 if self.is_of_pictures else None]))
        if self.is_of_pictures:
            return f"{'colour' if self.image_shape[2:] == (3,) else 'grey'} {size} pictures"
        return f"{self.noun}s of {size} numbers"

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
        """Every field as JSON has it, without `resize` where it is what it was before there was a choice."""
        fields_of = {name: value for name, value in asdict(self).items() if name != "resize" or value != RESIZES[0]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields_of.items()}

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


def is_picture(shape: Sequence[int]) -> bool:
    """Whether an image of a shape is a picture: (height, width), or with 1 channel or 3 as the last axis."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in CHANNELS)


def label_dtype(n_classes: int) -> type[np.uint8 | np.uint16]:
    """The smallest type that holds the labels of so many classes."""
    return np.uint8 if n_classes <= 2**8 else np.uint16


def _rules(info: DatasetInfo) -> Sequence[tuple[str, str, bool]]:
    """Field, what it must be, and whether it is."""
    shape, values, names = info.image_shape, info.value_range, info.class_names
    is_shape = len(shape) > 0 and all(_is_whole(side) and side > 0 for side in shape)
    fewest, most = CLASSES
    is_range = len(values) == 2 and all(_is_number(value) for value in values) and values[0] < values[1]
    is_byte_range = info.dtype != "uint8" or (is_range and values[0] >= 0 and values[1] <= np.iinfo(np.uint8).max)
    return (
        ("name", "a text of one line", _is_line(info.name)),
        ("dtype", " or ".join(DTYPES), info.dtype in DTYPES),
        ("image_shape", "whole numbers above 0: (height, width), (height, width, channels) or (features,)", is_shape),
        ("value_range", "two finite numbers, that of black below that of white", is_range),
        ("value_range", "within 0 and 255 for uint8", is_byte_range),
        ("class_names", "texts of one line, none empty", all(_is_line(name) for name in names)),
        ("class_names", f"{fewest} to {most:,} different names", fewest <= len(set(names)) == len(names) <= most),
        ("description", "a text", isinstance(info.description, str)),
        ("licence", "a text", isinstance(info.licence, str)),
        ("is_light_on_dark", "true or false", isinstance(info.is_light_on_dark, bool)),
        ("is_demo", "true or false", isinstance(info.is_demo, bool)),
        ("resize", ", ".join(RESIZES), info.resize in RESIZES),
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
        test_labels: Integers (m,). Kept as uint8 or uint16, as are those of the training.
        train_weights: What the loss of each training image counts by, numbers (n,), none below 0 and not all 0; kept as
            float32. None where all count alike. The validation and the test images always do.
        n_skipped: Files that were left out because they could not be read; it is said to whoever looks or trains.

    Raises:
        DataError: An array is none of these.
    """

    info: DatasetInfo
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    train_weights: Weights | None = None
    n_skipped: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.info, DatasetInfo):
            raise DataError(f"Dataset.info must be a DatasetInfo, but got {type(self.info).__name__}")
        for role in ("train", "test"):
            images, labels = getattr(self, f"{role}_images"), getattr(self, f"{role}_labels")
            _check_images(f"Dataset.{role}_images", images, self.info)
            _check_labels(f"Dataset.{role}_labels", labels, len(images), self.info)
            object.__setattr__(self, f"{role}_images", np.ascontiguousarray(images))
            object.__setattr__(
                self, f"{role}_labels", np.ascontiguousarray(labels, dtype=label_dtype(self.info.n_classes))
            )
        if self.train_weights is not None:
            check_weights("Dataset.train_weights", self.train_weights, len(self.train_images))
            object.__setattr__(self, "train_weights", np.ascontiguousarray(self.train_weights, dtype=np.float32))
        names = self.info.class_names
        check_classes("Dataset.train_labels", self.train_labels, names, FEWEST_TO_TRAIN)
        check_classes("Dataset.test_labels", self.test_labels, names, FEWEST_TO_TEST)


def check_classes(place: str, labels: npt.NDArray[np.generic], class_names: Sequence[str], fewest: int) -> None:
    """Check that every class is there.

    Args:
        place: What the error begins with.
        labels: Indices of the class names (n,).
        fewest: Times that each must be there, FEWEST_TO_TRAIN or FEWEST_TO_TEST.

    Raises:
        DataError: One is there less often.
    """
    n_of_class = np.bincount(labels, minlength=len(class_names))
    if n_of_class.min() < fewest:
        label = int(n_of_class.argmin())
        name = class_names[label]
        which = f"class {label}" if name == str(label) else f"class {label} ({name})"
        why = "at least twice, to train on and to validate on" if fewest == FEWEST_TO_TRAIN else "at least once"
        often = "is there once" if n_of_class[label] else "is not there"
        raise DataError(f"{place} must have every class {why}, but {which} {often}")


def _check_images(place: str, given: object, info: DatasetInfo) -> None:
    images = as_array(place, given)
    if images.shape[1:] != info.image_shape:
        raise DataError(f"{place} must have the shape {info.array_shape} of the info, but has {images.shape}")
    if images.dtype != info.dtype:
        raise DataError(f"{place} must have the dtype {info.dtype} of the info, but has {images.dtype}")
    if len(images) == 0:
        raise DataError(f"{place} must hold at least one image, but holds none")
    low, high = float(images.min()), float(images.max())  # NaN if there is one
    if not np.isfinite([low, high]).all():
        raise DataError(f"{place} must hold finite numbers, but {find_infinite(images)}")
    if not (info.value_range[0] <= low and high <= info.value_range[1]):
        raise DataError(
            f"{place} must lie within the value_range of the info, {info.value_range[0]:g} to "
            f"{info.value_range[1]:g}, but go from {low:g} to {high:g}"
        )


def find_infinite(images: npt.NDArray[np.generic]) -> str:
    """Where the first number is that is not finite, and which: `the image 3 holds nan`; empty if there is none.

    Args:
        images: (n, *image_shape), n >= 1.
    """
    is_finite = np.isfinite(images) if images.dtype.kind == "f" else np.True_
    if is_finite.all():
        return ""
    index, *place = np.argwhere(~is_finite)[0].tolist()
    what = f"the row {index} holds {images[index, place[0]]} in its column {place[0]}" if images.ndim == 2 else ""
    return what or f"the image {index} holds {images[index, *place]}"


def _check_labels(place: str, labels: object, n_images: int, info: DatasetInfo) -> None:
    found = check_one_each(place, labels, n_images, "iu", "integers", "label")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= info.n_classes:
        raise DataError(
            f"{place} must be 0 to {info.n_classes - 1}, the indices of the {info.n_classes} class names, but go from "
            f"{low} to {high}"
        )
