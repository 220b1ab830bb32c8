"""Picture files as the data set has its images: 28 x 28, grey, light on dark."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist_optuna.errors import DataError

SIDE = 28  # pixels
LIGHT = 127.5  # a background brighter than this is light
WIDE_MODES = ("I;16", "I;16L", "I;16B", "I", "F")  # more than 8 bits a pixel: scaled by the picture's own range


@dataclass(frozen=True)
class Picture:
    """One picture.

    Args:
        name: File, with `[k]` behind it when the file holds several.
        pixels: uint8 (28, 28).
        is_inverted: Whether it was dark on light.
    """

    name: str
    pixels: NDArray[np.uint8]
    is_inverted: bool


def read_pictures(file: Path) -> list[Picture]:
    """The pictures of a file: PNG, JPEG or what else Pillow reads, or an array as `numpy.save` writes it.

    An array is (h, w), (h, w, 3) or (n, h, w); uint8, or any number from 0 to 1 or from 0 to 255. What is not square
    gets margins of the colour of its background, which is light or dark as most of its border is.

    Raises:
        DataError: There is no such file, or it holds no picture.
    """
    try:
        grey = _read_arrays(file) if file.suffix == ".npy" else [_read_image(file)]
    except FileNotFoundError:
        raise DataError(f"{file} must be a picture, but there is no such file.") from None
    except UnidentifiedImageError:
        raise DataError(f"{file} must be a picture or a .npy array, but is neither.") from None
    except Exception as error:  # Pillow and NumPy raise whatever damaged bytes provoke
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file} must be a picture or a .npy array, but cannot be read: {cause:.200}") from error
    names = [str(file)] if len(grey) == 1 else [f"{file}[{k}]" for k in range(len(grey))]
    return [_shrink(name, image) for name, image in zip(names, grey, strict=True)]


def _read_image(file: Path) -> Image.Image:
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in WIDE_MODES:
            return Image.fromarray(_to_bytes(np.asarray(upright, np.float64)))
        if "A" in upright.getbands() or "transparency" in upright.info:
            layers = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
        return upright.convert("L")


def _read_arrays(file: Path) -> list[Image.Image]:
    array = np.load(file, allow_pickle=False)
    if array.dtype.kind not in "uifb" or array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"it must hold numbers of shape (h, w), (h, w, 3) or (n, h, w), but holds {array.dtype} {array.shape}"
        )
    if array.ndim == 3 and array.shape[-1] == 3:
        return [Image.fromarray(_to_bytes(array)).convert("L")]
    return [Image.fromarray(_to_bytes(image)) for image in (array if array.ndim == 3 else array[None])]


def _to_bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """0..255 from any numbers: bytes as they are, 0..1 and 0..255 by their scale, anything else by its own range."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8)
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("it must hold finite numbers only")
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and high <= 1:
        numbers = 255 * numbers
    elif low < 0 or high > 255:
        numbers = 255 * (numbers - low) / ((high - low) or 1.0)
    return np.rint(numbers).astype(np.uint8)


def _shrink(name: str, image: Image.Image) -> Picture:
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    is_inverted = float(np.median(border)) > LIGHT
    if is_inverted:
        image, border = ImageOps.invert(image), 255 - border
    if image.size != (SIDE, SIDE):
        image = ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.LANCZOS, color=int(np.median(border)))
    return Picture(name, np.asarray(image, np.uint8), is_inverted)
