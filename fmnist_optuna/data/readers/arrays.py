"""Arrays by name made a data set: x_train, y_train, x_test and y_test, or x and y of which a share is kept out."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import (
    FULL_BYTE,
    FULL_WORD,
    Dataset,
    DatasetInfo,
    Images,
    find_infinite,
    is_picture,
)
from fmnist_optuna.data.one_each import as_array
from fmnist_optuna.data.readers.background import are_light_on_dark
from fmnist_optuna.data.readers.labels import Indices, encode, flatten, refuse_share, take_test
from fmnist_optuna.data.weights import Weights, check_weights
from fmnist_optuna.errors import DataError
from fmnist_optuna.spec.data_spec import DataSpec

SPLIT, WHOLE, NAMES = ("x_train", "y_train", "x_test", "y_test"), ("x", "y"), "class_names"
WEIGHTS = "train_weights"  # one for each of x_train, or of x
RULE = f"{', '.join(SPLIT)}, or {' and '.join(WHOLE)}"
NOISE = 1e-12  # relative: of numbers that are further apart than the rounding of a computation by doubles
MOST_MOVED = 0.05  # of the way from the smallest to the largest number of a feature, by rounding to float32
# Of numbers that are no bytes: the first that holds all is taken for black and white.
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))

Array = NDArray[np.generic]
Parts = tuple[Array, Array, Array, Array]  # as SPLIT has them


def make_dataset(arrays: Mapping[str, object], data: DataSpec, place: str, name: str) -> Dataset:
    """A data set from arrays by name.

    Args:
        arrays: Images are (n, height, width), or with 1 channel or 3 as the last axis, of bytes or of other numbers;
            what has another shape, such as (n, features), is no picture. `class_names` and `train_weights` may be
            there too.
        data: Says which share is kept out, and the names of the classes.
        place: Where they are from, for errors: the file, or the function.
        name: Of the data set.

    Raises:
        DataError: An array is missing, or is something else.
    """
    (x_train, y_train, x_test, y_test), kept = _take_parts(arrays, data, place)
    encoded = encode(y_train, y_test, f"{place}: the labels", data.class_names or _names_in(arrays, place))
    train, test = _as_images(x_train, x_test, place)
    if train.ndim == 2 and x_train.dtype != train.dtype:
        _refuse_lost(x_train, train, f"{place}: x_train")
    value_range = _range_of(train, test, all(map(_are_words, (x_train, x_test))))
    info = DatasetInfo(
        name=name,
        image_shape=train.shape[1:],
        dtype=str(train.dtype),
        value_range=value_range,
        class_names=encoded.class_names,
        is_light_on_dark=is_picture(train.shape[1:]) and are_light_on_dark(train, value_range),
    )
    return Dataset(
        info, train, encoded.train, test, encoded.test, _weights_in(arrays, place, len(y_train), len(y_test), kept)
    )


def _weights_in(
    arrays: Mapping[str, object], place: str, n_train: int, n_test: int, kept: Indices | None
) -> Weights | None:
    """The weights that came with the arrays, of the n_train examples to train on.

    Args:
        kept: Their places among all, where the n_test others were kept out of them; None where the test came by itself.
    """
    weights = arrays.get(WEIGHTS)
    if weights is None:
        return None
    check_weights(f"{place}: {WEIGHTS}", weights, n_train if kept is None else n_train + n_test)
    found = np.asarray(weights, np.float32)
    return found if kept is None else found[kept]


def _take_parts(arrays: Mapping[str, object], data: DataSpec, place: str) -> tuple[Parts, Indices | None]:
    """The four arrays, as long as their labels; and where those to train on were, if the test was kept out of them."""
    names = next((names for names in (SPLIT, WHOLE) if set(names) <= arrays.keys()), None)
    if names is None:
        there = ", ".join(sorted(map(str, arrays))) or "nothing"
        raise DataError(f"{place} must hold {RULE}, but holds {there}.")
    if others := sorted(map(str, arrays.keys() - {*names, NAMES, WEIGHTS})):
        raise DataError(
            f"{place} must hold {', '.join(names)}, perhaps {NAMES} and {WEIGHTS}, and nothing else, but holds "
            f"{', '.join(others)} too; leave that out, or give it another of these names."
        )
    found = [as_array(f"{place}: {name}", arrays[name]) for name in names]
    for at in range(0, len(found), 2):
        found[at + 1] = flatten(found[at + 1], f"{place}: {names[at + 1]}")
        if found[at].ndim == 0 or len(found[at]) != len(found[at + 1]):
            raise DataError(
                f"{place}: {names[at]} must have as many examples as there are labels, {len(found[at + 1]):,}, but has "
                f"the shape {found[at].shape}."
            )
    kept = None
    if names == SPLIT:
        refuse_share(data, place)
    else:
        kept, held_out = take_test(found[1], data, f"{place}: {names[1]}")
        found = [found[0][kept], found[1][kept], found[0][held_out], found[1][held_out]]
    train, y_train, test, y_test = found
    return (train, y_train, test, y_test), kept


def _names_in(arrays: Mapping[str, object], place: str) -> tuple[str, ...]:
    """Names of the classes that came with the arrays: texts, of Unicode or of bytes in UTF-8, or integers."""
    found = np.atleast_1d(np.asarray(arrays.get(NAMES, ())))
    if not found.size:
        return ()
    if all(isinstance(name, str) for name in found.flat):  # an array of Python's own objects
        found = found.astype(np.str_)
    return tuple(map(str, flatten(found, f"{place}: {NAMES}").tolist()))


def _as_images(train: Array, test: Array, place: str) -> tuple[Images, Images]:
    """Pictures as bytes, where they are that, and all else as float32; both alike."""
    for name, images in (("x_train", train), ("x_test", test)):
        if images.dtype.kind not in "uifb":
            raise DataError(f"{place}: {name} must be numbers, but are {images.dtype}.")
        if images.ndim < 2 or 0 in images.shape:
            raise DataError(
                f"{place}: {name} must be images (n, height, width), or with channels as the last axis, or rows "
                f"(n, features), but has the shape {images.shape}."
            )
    if train.shape[1:] != test.shape[1:]:
        raise DataError(f"{place}: x_test must have the shape (n, {_sides(train)}) of x_train, but has {test.shape}.")
    if is_picture(train.shape[1:]) and all(_are_bytes(images) for images in (train, test)):
        return _to_bytes(train), _to_bytes(test)
    return _to_floats(train, f"{place}: x_train"), _to_floats(test, f"{place}: x_test")


def _sides(images: Array) -> str:
    return ", ".join(map(str, images.shape[1:]))


def _are_bytes(images: Array) -> bool:
    """Whether they are true and false, or whole numbers from 0 to 255."""
    is_byte = images.dtype.kind == "b" or images.dtype == np.uint8
    return is_byte or (images.dtype.kind in "iu" and int(images.min()) >= 0 and int(images.max()) <= FULL_BYTE)


def _are_words(images: Array) -> bool:
    """Whether they are numbers of 16 bits, whichever of the two bytes comes first."""
    return images.dtype.kind == "u" and images.dtype.itemsize == FULL_WORD.bit_length() // 8


def _to_bytes(images: Array) -> NDArray[np.uint8]:
    white = FULL_BYTE if images.dtype.kind == "b" else 1
    array = images.astype(np.uint8, copy=False)
    return array if white == 1 else array * np.uint8(white)


def _to_floats(images: Array, place: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a double that is too large becomes infinite
        floats = images.astype(np.float32, copy=False)
    if fault := find_infinite(floats):
        raise DataError(f"{place} must hold finite numbers, as float32, but {fault}.")
    return floats


def _refuse_lost(rows: Array, floats: Images, place: str) -> None:
    """Refuse a feature whose numbers are hardly told apart as float32, such as times in seconds of one hour.

    Args:
        rows: (n, features), as they came.
        floats: The same as float32.
    """
    for column in range(rows.shape[1]):
        numbers = rows[:, column].astype(np.float64)
        low, high = float(numbers.min()), float(numbers.max())
        moved = float(np.abs(floats[:, column] - numbers).max())
        is_noise = high - low <= NOISE * max(abs(low), abs(high))
        if moved > MOST_MOVED * (high - low) and not is_noise:
            raise DataError(
                f"{place} must hold numbers that stay apart as float32, but those of its column {column}, from "
                f"{low:.17g} to {high:.17g}, move by up to {moved:.3g}; take the smallest off each, or scale them."
            )


def _range_of(train: Array, test: Array, are_words: bool) -> tuple[float, float]:
    """What means black and white; of what is no picture the smallest and the largest number.

    Args:
        are_words: Whether they were numbers of 16 bits.
    """
    if train.dtype == np.uint8:
        return 0.0, float(FULL_BYTE)
    low, high = (float(pick([pick(train), pick(test)])) for pick in (np.min, np.max))
    ranges = ((0.0, float(FULL_WORD)),) if are_words else RANGES
    for ends in ranges if is_picture(train.shape[1:]) else ():
        if ends[0] <= low and high <= ends[1]:
            return ends
    return low, high if low < high else low + 1
