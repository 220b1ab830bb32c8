"""What is done to the images of a batch in training: mirrored, moved, partly blackened, mixed with another.

What is drawn for an epoch follows from the seed and the epoch alone and is drawn before it, by NumPy: three integers an
image, a share a step. So a training that goes on later draws what it would have drawn, and the graph has no generator.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import OF_PIXELS, Options, check_pixels

MOVES, SQUARES, SHARES = "moves", "squares", "shares"
STREAM = 1  # sets these draws apart from the order of the images, which is drawn from the seed and the epoch
FLIPS = 2  # the same for what is drawn once a training

Drawn = Mapping[str, NDArray[np.int32 | np.float32]]


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each epoch.

    Args:
        options: Of the training.
        height: Of the images, in pixels.
        width: The same.

    Raises:
        SpecError: The images are smaller than what is to be done to them.
    """

    options: Options
    height: int
    width: int

    def __post_init__(self) -> None:
        for name in OF_PIXELS:
            check_pixels("augment", name, getattr(self.options, name), self.height, self.width)

    def draw(self, n_images: int, n_steps: int, seed: int, epoch: int) -> Drawn:
        """What happens in an epoch.

        Args:
            n_images: Of the data set.
            n_steps: Of an epoch.
            epoch: 0-based.

        Returns:
            As far as the options ask for it. By the place of an image in the data set: `moves` int32 (n_images, 3),
            how many pixels it goes down and to the right, and whether it is mirrored; `squares` int32 (n_images, 2),
            row and column of the upper left pixel of its black square. `shares` float32 (n_steps,): of the first of two
            images, 0.5..1.
        """
        options, random = self.options, np.random.default_rng([seed, epoch, STREAM])
        drawn: dict[str, NDArray[np.int32 | np.float32]] = {}
        if options.shift or options.horizontal_flip != "none":
            shifts = random.integers(-options.shift, options.shift, (n_images, 2), endpoint=True)
            flips = self._draw_flips(n_images, seed, epoch, random)
            drawn[MOVES] = np.column_stack([shifts, flips]).astype(np.int32)
        if options.erase:
            last = [self.height - options.erase, self.width - options.erase]
            drawn[SQUARES] = random.integers(0, last, (n_images, 2), dtype=np.int32, endpoint=True)
        if options.mixup:
            shares = random.beta(options.mixup, options.mixup, n_steps)
            drawn[SHARES] = np.maximum(shares, 1 - shares).astype(np.float32)
        return drawn

    def _draw_flips(self, n_images: int, seed: int, epoch: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Whether each image is mirrored, 0 or 1.

        The alternating way, of Jordan 2024, arXiv:2404.00498, shows both forms of an image in any two epochs in a row.
        """
        match self.options.horizontal_flip:
            case "random":
                return random.integers(0, 2, n_images)
            case "alternating":
                first = np.random.default_rng([seed, 0, FLIPS]).integers(0, 2, n_images)
                return (first + epoch) % 2
            case _:
                return np.zeros(n_images, np.int64)


@dataclass(frozen=True)
class AugmentedImages:
    """Takes images of a data set as an epoch has them, in a graph.

    Args:
        augmentation: What is drawn.
        images: All of them, (n, height, width) or with channels last.
        black: Value of a pixel outside of an image.
    """

    augmentation: Augmentation
    images: tf.Tensor
    black: float

    @classmethod
    def of(cls, options: Options, info: DatasetInfo, images: tf.Tensor) -> "AugmentedImages":
        """Those of a training.

        Raises:
            SpecError: The images are no pictures, or smaller than what is to be done to them.
        """
        if not info.is_of_pictures:
            if options.moves_pictures:
                raise SpecError(
                    "horizontal_flip, shift and erase must be for pictures, but the data is "
                    f"{info.kind}; leave them out of [augment] and [grid]."
                )
            return cls(Augmentation(options, 1, 1), images, 0.0)
        height, width = info.image_shape[:2]
        return cls(Augmentation(options, height, width), images, info.value_range[0])

    def take(self, rows: tf.Tensor, drawn: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The images of some rows, (batch, *image_shape).

        Args:
            rows: int32 (batch,).
            drawn: What `Augmentation.draw` gave for the epoch.
        """
        moves, squares = (drawn.get(name) for name in (MOVES, SQUARES))
        images = tf.gather(self.images, rows) if moves is None else self._move(rows, tf.gather(moves, rows))
        return images if squares is None else self._erase(images, tf.gather(squares, rows))

    def _move(self, rows: tf.Tensor, moves: tf.Tensor) -> tf.Tensor:
        """Each pixel from where it comes, by one gathering, whatever was drawn."""
        height, width = self.augmentation.height, self.augmentation.width
        down, right, is_mirrored = (moves[:, axis, None] for axis in range(3))
        from_row, from_column = tf.range(height)[None] - down, tf.range(width)[None] - right
        has_row, has_column = (from_row >= 0) & (from_row < height), (from_column >= 0) & (from_column < width)
        from_row, from_column = tf.clip_by_value(from_row, 0, height - 1), tf.clip_by_value(from_column, 0, width - 1)
        from_column = tf.where(is_mirrored == 1, width - 1 - from_column, from_column)
        kind = tf.int32 if self.images.shape.num_elements() < 2**31 else tf.int64
        begin = tf.cast(rows[:, None], kind) * height + tf.cast(from_row, kind)
        index = (begin * width)[:, :, None] + tf.cast(from_column, kind)[:, None, :]
        images = tf.gather(tf.reshape(self.images, [-1, *self.images.shape[3:]]), index)
        if not self.augmentation.options.shift:
            return images
        return self._blacken(images, ~(has_row[:, :, None] & has_column[:, None, :]))

    def _erase(self, images: tf.Tensor, squares: tf.Tensor) -> tf.Tensor:
        side = self.augmentation.options.erase
        is_black = []
        for axis, length in enumerate((self.augmentation.height, self.augmentation.width)):
            place = tf.range(length)[None] - squares[:, axis, None]
            is_black.append((place >= 0) & (place < side))
        return self._blacken(images, is_black[0][:, :, None] & is_black[1][:, None, :])

    def _blacken(self, images: tf.Tensor, is_black: tf.Tensor) -> tf.Tensor:
        if images.shape.rank == 4:  # channels
            is_black = is_black[..., None]
        return tf.where(is_black, tf.cast(self.black, images.dtype), images)


def mix(images: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Each image with the one behind it in its batch, the last with the first (Zhang et al. 2018, arXiv:1710.09412).

    The images of a batch are in an order of chance, so that any partner is one drawn at random.

    Args:
        share: Of the image itself, float32 scalar.

    Returns:
        Images of the same type, integers rounded.
    """
    ours, others = (tf.cast(each, tf.float32) for each in (images, partners(images)))
    mixed = others + share * (ours - others)
    return tf.cast(tf.round(mixed) if images.dtype.is_integer else mixed, images.dtype)


def partners(batch: tf.Tensor) -> tf.Tensor:
    """Of each image, or label, of a batch the one that it is mixed with."""
    return tf.roll(batch, -1, axis=0)
