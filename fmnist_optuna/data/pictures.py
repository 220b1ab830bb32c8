"""Picture files as a data set has its images: of its size, its colours, its type and its range of numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist_optuna.data.dataset import DatasetInfo, Images
from fmnist_optuna.errors import DataError
from fmnist_optuna.wording import reason_of

MIXED = 0.02  # a border whose light share is this near to one half is neither
MIN_SIDE = 5  # pixels; less is a number of channels or of pictures
CHANNELS = {1: "grey", 3: "colour", 4: "colour with transparency"}
WIDE_MODES = ("I;16", "I;16L", "I;16B", "I", "F")  # more than 8 bits a pixel
MIN_WHITE = 10  # the brightest number of a picture from 0 to 255; below it nothing could be seen
FULL_BYTE, FULL_WORD = 255, 65_535  # white of 8 and of 16 bits

Element = TypeVar("Element", bound=np.generic)


@dataclass(frozen=True)
class Picture:
    """One picture.

    Args:
        name: File, with `[k]` behind it when the file holds several.
        pixels: As the data set has an image: its shape, its type, its range.
        is_inverted: Whether it was dark on light, where the data set's images are light on dark.
        is_mixed: Whether its border is neither light nor dark, so that it was left as light on dark.
    """

    name: str
    pixels: Images
    is_inverted: bool
    is_mixed: bool = False


def read_pictures(file: Path, info: DatasetInfo) -> list[Picture]:
    """The pictures of a file: PNG, JPEG or what else Pillow reads, or an array as `numpy.save` writes it.

    An array is (h, w) or (n, h, w), with channels also (h, w, c), (n, h, w, c) or (n, c, h, w) of c = 1, 3 or 4. Its
    numbers are those of the data set where they lie within its range, else true and false, numbers from 0 to 1, or from
    0 to 255. One that may be meant in two ways is refused. What has not the proportions of the data set's images gets
    margins of the colour of its background. Where these are light on dark, a picture that is light at most of its
    border is turned round.

    Args:
        info: Of the data set.

    Raises:
        DataError: There is no such file, it holds no picture, or more than one meaning.
    """
    try:
        pictures: Sequence[Image.Image | Images] = (
            _read_arrays(file, info) if file.suffix == ".npy" else [_read_image(file)]
        )
    except FileNotFoundError:
        raise DataError(f"{file} must be a picture, but there is no such file.") from None
    except UnidentifiedImageError:
        raise DataError(f"{file} must be a picture or a .npy array, but is neither.") from None
    except Exception as error:  # ours, and whatever damaged bytes provoke in Pillow and NumPy
        raise DataError(f"{file} must be a picture or a .npy array, but cannot be read: {reason_of(error)}") from error
    names = [str(file)] if len(pictures) == 1 else [f"{file}[{k}]" for k in range(len(pictures))]
    return [
        _shrink(name, picture, info) if isinstance(picture, Image.Image) else _keep(name, picture, info)
        for name, picture in zip(names, pictures, strict=True)
    ]


def _read_image(file: Path) -> Image.Image:
    with Image.open(file) as image:
        n_frames = getattr(image, "n_frames", 1)
        if n_frames > 1 and image.format != "MPO":  # a photograph of a telephone, with a preview behind it
            raise ValueError(f"it holds {n_frames} pictures one after another; save the one that is meant")
        upright = ImageOps.exif_transpose(image)
        if upright.mode in WIDE_MODES:
            return Image.fromarray(_to_bytes(np.asarray(upright), white=FULL_WORD))
        return upright.copy()


def _read_arrays(file: Path, info: DatasetInfo) -> list[Image.Image | Images]:
    """The pictures of an array: as they are where they are like the data set's own, else as bytes."""
    array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb" or 0 in array.shape:
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise ValueError(f"it must hold an array of numbers, but holds {kind}")
    ordered = order_axes(array, info)
    if _has_own_range(ordered, info):
        if ordered.shape[1:] == _shape_of(info):
            return list(_as_type(ordered, info).reshape(-1, *info.image_shape))
        values = np.rint(_shares(ordered, info) * FULL_BYTE).astype(np.uint8)
    else:
        values = _to_bytes(ordered, white=FULL_BYTE)
    return [Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture) for picture in values]


def _shape_of(info: DatasetInfo) -> tuple[int, int, int]:
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
    shape, (height, width, n_channels) = array.shape, _shape_of(info)
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


def _to_bytes(values: NDArray[np.generic], white: int) -> NDArray[np.uint8]:
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
        return False  # `_to_bytes` has rules of its own for these
    if low >= 0 and high <= 1 and (high > 0 or black < 0) and (black, white) != (0, 1):
        raise ValueError(
            f"its numbers go from {low:g} to {high:g}, and may be shares of 1 or numbers of the data set, "
            f"which go from {black:g} to {white:g}; save bytes from 0 to 255, or give the array to "
            "load_exported(...).predict"
        )
    return True


def _shares(values: NDArray[np.generic], info: DatasetInfo) -> NDArray[np.float64]:
    """Numbers of a data set as shares: 0 is black, 1 is white."""
    black, white = info.value_range
    shares: NDArray[np.float64] = (np.asarray(values, np.float64) - black) / (white - black)
    return shares


def _as_type(values: NDArray[np.generic], info: DatasetInfo) -> Images:
    """Numbers of a data set in its type."""
    return (np.rint(values) if info.dtype == "uint8" else values).astype(info.dtype)


def as_picture(image: Images, info: DatasetInfo) -> NDArray[np.uint8]:
    """One image of a data set as Pillow takes it: uint8 (height, width), or (height, width, 3) in colour, 0 black."""
    pixels = np.rint(_shares(image, info) * FULL_BYTE).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[2:] == (1,) else pixels


def _keep(name: str, pixels: Images, info: DatasetInfo) -> Picture:
    """A picture that is like the data set's own images."""
    is_inverted, is_mixed = _read_background(_border(_shares(pixels, info)), info)
    return Picture(
        name, _as_type(sum(info.value_range) - pixels, info) if is_inverted else pixels, is_inverted, is_mixed
    )


def _shrink(name: str, image: Image.Image, info: DatasetInfo) -> Picture:
    """A picture of any size in the size, colours, type and range of the data set."""
    height, width, n_channels = _shape_of(info)
    image = _flatten(image, "L" if n_channels == 1 else "RGB")
    border = _border(np.asarray(image))
    is_inverted, is_mixed = _read_background(border / FULL_BYTE, info)
    if is_inverted:
        image, border = ImageOps.invert(image), FULL_BYTE - border
    if image.size != (width, height):
        color = tuple(np.median(border, axis=0).astype(int).tolist()) if n_channels > 1 else int(np.median(border))
        image = ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=color)
    black, white = info.value_range
    pixels: Images = np.asarray(image, np.uint8).reshape(info.image_shape)
    if (info.dtype, black, white) != ("uint8", 0, FULL_BYTE):
        pixels = _as_type(black + pixels / FULL_BYTE * (white - black), info)
    return Picture(name, pixels, is_inverted, is_mixed)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Grey or in colour, and on white where it is transparent."""
    if "A" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return image.convert(mode)


def _border(pixels: NDArray[Element]) -> NDArray[Element]:
    """The pixels at the four edges, (n) or (n, channels)."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _read_background(border: NDArray[np.generic], info: DatasetInfo) -> tuple[bool, bool]:
    """Whether a picture has to be turned round, and whether its background is neither light nor dark.

    Args:
        border: Shares, 0 black and 1 white.
    """
    if not info.is_light_on_dark:
        return False, False
    light = float(np.mean(border.reshape(len(border), -1).mean(axis=1) > 0.5))
    is_mixed = abs(light - 0.5) < MIXED
    return light > 0.5 and not is_mixed, is_mixed
