"""Pictures in an array, as `numpy.save` writes it: what its shape and its numbers mean, if they have one meaning."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmnist_optuna.data.dataset import FULL_BYTE, FULL_WORD, DatasetInfo, Images

MIN_SIDE = 5  # pixels; less is a number of channels or of pictures
CHANNELS = {1: "grey", 3: "colour", 4: "colour with transparency"}
MIN_WHITE = 10  # the brightest number of a picture from 0 to 255; below it nothing could be seen


def read_arrays(file: Path, info: DatasetInfo) -> list[Image.Image | Images]:
    """The pictures of an array: as they are where they are like the data set's own, else as bytes."""
    array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb" or 0 in array.shape:
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise ValueError(f"it must hold an array of numbers, but holds {kind}")
    ordered = order_axes(array, info)
    if _has_own_range(ordered, info):
        if ordered.shape[1:] == shape_of(info):
            return list(as_type(ordered, info).reshape(-1, *info.image_shape))
        values = np.rint(shares(ordered, info) * FULL_BYTE).astype(np.uint8)
    else:
        values = to_bytes(ordered, white=FULL_BYTE)
    return [Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture) for picture in values]


def shape_of(info: DatasetInfo) -> tuple[int, int, int]:
    """Height, width and channels."""
    height, width, *channels = info.image_shape
    return height, width, channels[0] if channels else 1


def order_axes(array: NDArray[np.generic], info: DatasetInfo) -> NDArray[np.generic]:
    """The pictures of an array as (n, h, w, c), if its shape has one meaning.

    Args:
        info: Of the data set. Where its images have fewer than MIN_SIDE pixels a side, only arrays of them are read.

    Raises:
        ValueError: It has none, or several, which are named.
    """
    shape, (height, width, n_channels) = array.shape, shape_of(info)
    if min(height, width) < MIN_SIDE:
        if shape not in (info.image_shape, (len(array), *info.image_shape)):
            raise ValueError(f"it must have the shape {info.image_shape} or {info.array_shape}, but has {shape}")
        return array.reshape(-1, height, width, n_channels)
    n_numbers = height * width * n_channels
    if shape[-1] == n_numbers and array.ndim <= 2:
        size = " x ".join(map(str, info.image_shape))
        raise ValueError(
            f"its shape {shape} may be one picture or rows of {size} pixels; save rows as "
            f"array.reshape(-1, {', '.join(map(str, info.image_shape))}), and a picture as array[None]"
        )
    meanings = dict(_meanings(array))
    if len(meanings) > 1:
        raise ValueError(
            f"its shape {shape} may be {' or '.join(meanings)}; save the first as array[..., None], the second as "
            "np.moveaxis(array, 0, -1)"
        )
    if not meanings:
        raise ValueError(
            "it must have a shape (h, w), (n, h, w), (h, w, c), (n, h, w, c) or (n, c, h, w) with c = 1, 3 or 4 and "
            f"sides of at least {MIN_SIDE}, but has {shape}"
        )
    return next(iter(meanings.values()))


def _meanings(array: NDArray[np.generic]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """What a shape may mean, each as (n, h, w, c); a side is never shorter than MIN_SIDE."""
    shape = array.shape
    is_side = [length >= MIN_SIDE for length in shape]
    if array.ndim == 2 and all(is_side):
        yield "one picture", array[None, ..., None]
    if array.ndim == 3 and all(is_side[1:]):
        yield f"{shape[0]} grey pictures", array[..., None]
        if shape[0] in CHANNELS and shape[0] > 1:  # of one, both are the same picture
            yield f"one {CHANNELS[shape[0]]} picture, channels first", np.moveaxis(array, 0, -1)[None]
    if array.ndim == 3 and all(is_side[:2]) and shape[2] in CHANNELS:
        yield f"one {CHANNELS[shape[2]]} picture", array[None]
    if array.ndim == 4 and all(is_side[1:3]) and shape[3] in CHANNELS:
        yield f"{shape[0]} pictures", array
    if array.ndim == 4 and all(is_side[2:]) and shape[1] in CHANNELS:
        yield f"{shape[0]} pictures, channels first", np.moveaxis(array, 1, -1)


def to_bytes(values: NDArray[np.generic], white: int) -> NDArray[np.uint8]:
    """0..255 from numbers whose scale can be told: the numbers of one file have one scale.

    Args:
        white: Of integers, when it is not 255: what an image file means by its whitest.

    Raises:
        ValueError: The scale cannot be told; what to save instead is named.
    """
    if values.dtype.kind == "b":
        return np.where(values, np.uint8(FULL_BYTE), np.uint8(0))
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("it must hold finite numbers only")
    low, high = float(numbers.min()), float(numbers.max())
    is_whole = values.dtype.kind in "ui"
    came = f"its numbers go from {low:g} to {high:g}"
    if low < 0:
        raise ValueError(
            f"{came}, and their scale cannot be told; save numbers from 0 to 255, of -1 to 1 as (array + 1) * 127.5"
        )
    if high == 0 or (values.dtype == np.uint8 and high > 1) or (MIN_WHITE <= high <= FULL_BYTE and white == FULL_BYTE):
        return np.rint(numbers).astype(np.uint8)
    if high <= 1 and not is_whole:  # as shades of 255 they would be black throughout
        return np.rint(FULL_BYTE * numbers).astype(np.uint8)
    if white == FULL_WORD and is_whole and FULL_BYTE < high <= FULL_WORD and values.dtype.itemsize == 2:
        return np.rint(numbers * FULL_BYTE / FULL_WORD).astype(np.uint8)
    if white == FULL_WORD and MIN_WHITE <= high <= FULL_BYTE and values.dtype.itemsize > 2:
        return np.rint(numbers).astype(np.uint8)
    raise ValueError(
        f"{came}, and it cannot be told what is white; save true and false, shares from 0 to 1 as floats, or 0 to 255"
    )


def _has_own_range(values: NDArray[np.generic], info: DatasetInfo) -> bool:
    """Whether the numbers of an array are those of the data set's own images, rather than shares of 1 or bytes.

    Raises:
        ValueError: They may be either.
    """
    if values.dtype.kind == "b" or not np.isfinite(values).all():
        return False
    (black, white), low, high = info.value_range, float(values.min()), float(values.max())
    if not (black <= low and high <= white):
        return False
    if (black, white) == (0, FULL_BYTE) and (info.dtype == "uint8" or high < MIN_WHITE):
        return False  # `to_bytes` has rules of its own for these
    are_shares = low >= 0 and high <= 1 and (high > 0 or black < 0) and (black, white) != (0, 1)
    are_bytes = values.dtype == np.uint8 and high > 0 and white > FULL_BYTE
    if are_shares or are_bytes:
        came = "shares of 1" if are_shares else "bytes"
        meant = "a picture, such as PNG" if white > FULL_BYTE else "bytes from 0 to 255"
        raise ValueError(
            f"its numbers go from {low:g} to {high:g}, and may be {came} or numbers of the data set, which go from "
            f"{black:g} to {white:g}; save {meant}, or give the array to load_exported(...).predict"
        )
    return True


def shares(values: NDArray[np.generic], info: DatasetInfo) -> NDArray[np.float64]:
    """Numbers of a data set as shares: 0 is black, 1 is white."""
    black, white = info.value_range
    shares: NDArray[np.float64] = (np.asarray(values, np.float64) - black) / (white - black)
    return shares


def as_type(values: NDArray[np.generic], info: DatasetInfo) -> Images:
    """Numbers of a data set in its type."""
    return (np.rint(values) if info.dtype == "uint8" else values).astype(info.dtype)
