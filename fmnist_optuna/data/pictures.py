"""Picture files as a data set has its images: of its size, its colours, its type and its range of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist_optuna.data.dataset import FULL_BYTE, FULL_WORD, DatasetInfo, Images
from fmnist_optuna.data.picture_arrays import as_type, read_arrays, shape_of, shares, to_bytes
from fmnist_optuna.errors import DataError
from fmnist_optuna.wording import reason_of

MIXED = 0.02  # a border whose light share is this near to one half is neither
WIDE_MODES = ("I;16", "I;16L", "I;16B", "I", "F")  # more than 8 bits a pixel

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
            read_arrays(file, info) if file.suffix == ".npy" else [read_image(file)]
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


def read_image(file: Path) -> Image.Image:
    """One picture, upright, of 8 bits a pixel and channel.

    Raises:
        Exception: Whatever damaged bytes provoke in Pillow; ValueError of several pictures in a file.
    """
    with Image.open(file) as image:
        n_frames = getattr(image, "n_frames", 1)
        if n_frames > 1 and image.format != "MPO":  # a photograph of a telephone, with a preview behind it
            raise ValueError(f"it holds {n_frames} pictures one after another; save the one that is meant")
        upright = ImageOps.exif_transpose(image)
        if upright.mode in WIDE_MODES:
            return Image.fromarray(to_bytes(np.asarray(upright), white=FULL_WORD))
        return upright.copy()


def as_picture(image: Images, info: DatasetInfo) -> NDArray[np.uint8]:
    """One image of a data set as Pillow takes it: uint8 (height, width), or (height, width, 3) in colour, 0 black."""
    pixels = np.rint(shares(image, info) * FULL_BYTE).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[2:] == (1,) else pixels


def _keep(name: str, pixels: Images, info: DatasetInfo) -> Picture:
    """A picture that is like the data set's own images."""
    is_inverted, is_mixed = _read_background(_border(shares(pixels, info)), info)
    return Picture(
        name, as_type(sum(info.value_range) - pixels, info) if is_inverted else pixels, is_inverted, is_mixed
    )


def _shrink(name: str, image: Image.Image, info: DatasetInfo) -> Picture:
    """A picture of any size in the size, colours, type and range of the data set."""
    height, width, n_channels = shape_of(info)
    image = flatten(image, "L" if n_channels == 1 else "RGB")
    border = _border(np.asarray(image))
    is_inverted, is_mixed = _read_background(border / FULL_BYTE, info)
    if is_inverted:
        image = ImageOps.invert(image)
    image = fit(image, (width, height), info.resize)
    black, white = info.value_range
    pixels: Images = np.asarray(image, np.uint8).reshape(info.image_shape)
    if (info.dtype, black, white) != ("uint8", 0, FULL_BYTE):
        pixels = as_type(black + pixels / FULL_BYTE * (white - black), info)
    return Picture(name, pixels, is_inverted, is_mixed)


def fit(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    """A picture in another size: with margins of the median colour of its border, cropped to its middle, or stretched.

    Args:
        image: Grey or RGB.
        size: Width and height, in pixels.
        resize: One of RESIZES.
    """
    if image.size == size:
        return image
    if resize == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    if resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    median = np.median(_border(np.asarray(image)), axis=0).astype(int).tolist()
    return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=tuple(median) if image.mode == "RGB" else median)


def flatten(image: Image.Image, mode: str) -> Image.Image:
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
