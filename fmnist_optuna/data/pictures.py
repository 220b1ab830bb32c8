"""Picture files as the data set has its images: 28 x 28, grey, light on dark."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist_optuna.data.dataset import DatasetInfo, Images
from fmnist_optuna.errors import DataError

SIDE = 28  # pixels
LIGHT = 127.5  # a background brighter than this is light
MIXED = 0.02  # a border whose light share is this near to one half is neither
MIN_SIDE = 5  # pixels; less is a number of channels or of pictures
CHANNELS = {1: "grey", 3: "colour", 4: "colour with transparency"}
WIDE_MODES = ("I;16", "I;16L", "I;16B", "I", "F")  # more than 8 bits a pixel
MIN_WHITE = 10  # the brightest number of a picture from 0 to 255; below it nothing could be seen
FULL_BYTE, FULL_WORD = 255, 65_535  # white of 8 and of 16 bits


@dataclass(frozen=True)
class Picture:
    """One picture.

    Args:
        name: File, with `[k]` behind it when the file holds several.
        pixels: uint8 (28, 28).
        is_inverted: Whether it was dark on light.
        is_mixed: Whether its border is neither light nor dark, so that it was left as light on dark.
    """

    name: str
    pixels: NDArray[np.uint8]
    is_inverted: bool
    is_mixed: bool = False


def read_pictures(file: Path) -> list[Picture]:
    """The pictures of a file: PNG, JPEG or what else Pillow reads, or an array as `numpy.save` writes it.

    An array is (h, w) or (n, h, w), with channels also (h, w, c), (n, h, w, c) or (n, c, h, w) of c = 1, 3 or 4; true
    and false, numbers from 0 to 1, or from 0 to 255. One that may be meant in two ways is refused. What is not square
    gets margins of the colour of its background, which is light or dark as most of its border is.

    Raises:
        DataError: There is no such file, it holds no picture, or more than one meaning.
    """
    try:
        grey = _read_arrays(file) if file.suffix == ".npy" else [_read_image(file)]
    except FileNotFoundError:
        raise DataError(f"{file} must be a picture, but there is no such file.") from None
    except UnidentifiedImageError:
        raise DataError(f"{file} must be a picture or a .npy array, but is neither.") from None
    except Exception as error:  # ours, and whatever damaged bytes provoke in Pillow and NumPy
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file} must be a picture or a .npy array, but cannot be read: {cause:.200}") from error
    names = [str(file)] if len(grey) == 1 else [f"{file}[{k}]" for k in range(len(grey))]
    return [_shrink(name, image) for name, image in zip(names, grey, strict=True)]


def _read_image(file: Path) -> Image.Image:
    with Image.open(file) as image:
        n_frames = getattr(image, "n_frames", 1)
        if n_frames > 1 and image.format != "MPO":  # a photograph of a telephone, with a preview behind it
            raise ValueError(f"it holds {n_frames} pictures one after another; save the one that is meant")
        upright = ImageOps.exif_transpose(image)
        if upright.mode in WIDE_MODES:
            return Image.fromarray(_to_bytes(np.asarray(upright), white=FULL_WORD))
        return _flatten(upright)


def _flatten(image: Image.Image) -> Image.Image:
    """Grey, on white where it is transparent."""
    if "A" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return image.convert("L")


def _read_arrays(file: Path) -> list[Image.Image]:
    array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb" or 0 in array.shape:
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise ValueError(f"it must hold an array of numbers, but holds {kind}")
    ordered = order_axes(array)
    values = _to_bytes(ordered, white=FULL_BYTE)
    return [_flatten(Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)) for picture in values]


def order_axes(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The pictures of an array as (n, h, w, c), if its shape has one meaning.

    Raises:
        ValueError: It has none, or several, which are named.
    """
    shape = array.shape
    if shape[-1] == SIDE * SIDE and array.ndim <= 2:
        raise ValueError(
            f"its shape {shape} may be one picture or rows of {SIDE} x {SIDE} pixels; save rows as "
            f"array.reshape(-1, {SIDE}, {SIDE}), and a picture as array[None]"
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


def as_picture(image: Images, info: DatasetInfo) -> NDArray[np.uint8]:
    """One image of a data set as Pillow takes it: uint8 (height, width), or (height, width, 3) in colour, 0 black."""
    low, high = info.value_range
    pixels = np.rint((np.asarray(image, np.float64) - low) / (high - low) * FULL_BYTE).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[2:] == (1,) else pixels


def _shrink(name: str, image: Image.Image) -> Picture:
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    light = float(np.mean(border > LIGHT))
    is_mixed = abs(light - 0.5) < MIXED
    is_inverted = light > 0.5 and not is_mixed
    if is_inverted:
        image, border = ImageOps.invert(image), 255 - border
    if image.size != (SIDE, SIDE):
        image = ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.LANCZOS, color=int(np.median(border)))
    return Picture(name, np.asarray(image, np.uint8), is_inverted, is_mixed)
