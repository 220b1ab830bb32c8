"""Drawn 28x28 garments in the ten classes of Fashion-MNIST, for a demo without network and for fast tests.

Owns the drawing only. A garment is a few trapezoids and ellipses in its own coordinates, u to the right and v down,
both about -1..1, with everything that can vary drawn per image. Neighbouring classes overlap on purpose (T-shirt,
shirt, pullover, coat; sneaker, sandal, boot), so that a small dense net is good, not perfect.

Only + - * / and sqrt of float32 and uniform random numbers are used: these are rounded alike on every machine, so the
bytes, and with them the fingerprint of the data, are too. No sin, exp or normal, whose last bit may differ.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.dataset import Dataset, DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST

SYNTHETIC = DatasetInfo(
    name="SYNTHETIC garments, not Fashion-MNIST",
    image_shape=(28, 28),
    dtype="uint8",
    value_range=(0, 255),
    class_names=FASHION_MNIST.class_names,
    description="shapes drawn by a program in place of Fashion-MNIST, to try the software without data",
    licence="None: the garments are drawn.",
    is_light_on_dark=True,
    is_demo=True,
)
N_TRAIN = 12_000  # enough to tell a good learning rate from a bad one in seconds per training
N_TEST = 2_000
SIZE = 28  # pixels
CHUNK = 100  # images drawn at once: 300 KiB per array stay in the processor's cache; part of what a seed means
SHARPNESS = 10.0  # coverage per unit of distance: an edge is about 1.3 pixels wide, as after downsampling

UInt8Array = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Number = Float | float


def load_garments() -> Dataset:
    """The data set of 12,000 garments for training and validation and 2,000 for the test: the same bytes everywhere."""
    return Dataset(SYNTHETIC, *draw_garments())


def draw_garments(
    n_train: int = N_TRAIN, n_test: int = N_TEST, seed: int = 0
) -> tuple[UInt8Array, UInt8Array, UInt8Array, UInt8Array]:
    """Draw labelled garments; label i stands at i, i + 10, ..., so every class is equally frequent.

    Args:
        n_train: Images for training and validation, >= 0.
        n_test: Images for testing, from a random stream of their own.
        seed: The same seed draws the same bytes.

    Returns:
        Training images (n_train, 28, 28), training labels (n_train,), test images (n_test, 28, 28) and test labels
        (n_test,), all uint8; 0 is background.
    """
    train_stream, test_stream = np.random.SeedSequence(seed).spawn(2)
    return *_draw_set(n_train, train_stream), *_draw_set(n_test, test_stream)


def _draw_set(n_images: int, stream: np.random.SeedSequence) -> tuple[UInt8Array, UInt8Array]:
    labels = (np.arange(n_images) % len(_SILHOUETTES)).astype(np.uint8)
    images = np.empty((n_images, SIZE, SIZE), dtype=np.uint8)
    for label, (silhouette, child) in enumerate(zip(_SILHOUETTES, stream.spawn(len(_SILHOUETTES)), strict=True)):
        of_class = images[label :: len(_SILHOUETTES)]
        generator = np.random.Generator(np.random.PCG64(child))
        for start in range(0, len(of_class), CHUNK):
            part = of_class[start : start + CHUNK]
            pen = _Pen(len(part), generator)
            part[...] = pen.render(*silhouette(pen))
    return images, labels


class _Pen:
    """n garments drawn at once: their coordinates `u`, `v` (n, 28, 28), their random numbers and the shapes.

    A shape is its coverage, float32 (n, 28, 28) in 0..1. Union is np.maximum, a cut is `shape * (1 - hole)`.
    """

    def __init__(self, n_images: int, generator: np.random.Generator) -> None:
        self.n_images = n_images
        self.generator = generator
        pixel = (np.arange(SIZE, dtype=np.float32) + 0.5) / np.float32(SIZE / 2) - 1
        x, y = pixel[None, None, :], pixel[None, :, None]
        self.v = (y - self.between(-0.10, 0.10)) / self.between(0.80, 0.98)
        leaning = self.between(-0.10, 0.10) * self.v
        self.u: Float = (x - self.between(-0.10, 0.10) - leaning) / self.between(0.75, 1.00)

    def between(self, low: float, high: float) -> Float:
        """One random number per image in low..high, shape (n, 1, 1)."""
        uniform = self.generator.random((self.n_images, 1, 1), dtype=np.float32)
        return np.float32(low) + np.float32(high - low) * uniform

    def chance(self, probability: float) -> Float:
        """1 with the given probability, else 0, per image, shape (n, 1, 1)."""
        return (self.between(0, 1) < np.float32(probability)).astype(np.float32)

    def trapezoid(
        self,
        u: Float,
        top: Number,
        bottom: Number,
        widths: tuple[Number, Number],
        centers: tuple[Number, Number] = (0.0, 0.0),
    ) -> Float:
        """Between `top` and `bottom`; half its width and its center go from the first to the second value."""
        down = (self.v - top) / (bottom - top)
        half = widths[0] + (widths[1] - widths[0]) * down
        center = centers[0] + (centers[1] - centers[0]) * down
        outside = np.maximum(np.abs(u - center) - half, np.maximum(top - self.v, self.v - bottom))
        return _cover(outside)

    def ellipse(self, center: tuple[Number, Number], radii: tuple[Number, Number]) -> Float:
        """Filled ellipse around (u, v)."""
        across, down = (self.u - center[0]) / radii[0], (self.v - center[1]) / radii[1]
        return _cover((np.sqrt(across * across + down * down) - 1) * np.minimum(*radii))

    def render(self, coverage: Float, shade: Number) -> UInt8Array:
        """Coverage and shade (1 is plain cloth, less is darker) to pixels, with cloth, light and noise."""
        light = self.between(-0.25, 0.25) * self.u + self.between(-0.25, 0.25) * self.v
        period = self.between(0.12, 0.40)
        across = self.chance(0.5)
        phase = (across * self.u + (1 - across) * self.v + 4) / period
        stripes = self.chance(0.35) * self.between(0.1, 0.5) * (phase - np.floor(phase) > 0.5)
        weave = self.generator.random(coverage.shape, dtype=np.float32) - 0.5
        brightness = self.between(60, 235) * (shade + light - stripes + self.between(0.05, 0.45) * weave)
        pixels: Float = np.clip(coverage * brightness, 0, 255)
        return pixels.astype(np.uint8)


def _cover(outside: Float) -> Float:
    """Coverage from the distance outside the edge (negative inside)."""
    coverage: Float = np.clip(0.5 - SHARPNESS * outside, 0, 1)
    return coverage


def _top(pen: _Pen, length: Float, width: Float, sleeve: Float, flare: Float) -> Float:
    """Body and two sleeves; `sleeve` is where it ends: about -0.2 is short, 0.8 long."""
    mirrored = np.abs(pen.u)
    body = pen.trapezoid(pen.u, -0.85, length, (width, width + flare))
    shoulder = pen.trapezoid(pen.u, -0.9, -0.6, (0.25, width + 0.12))
    reach = (sleeve + 0.85) * pen.between(0.16, 0.32)
    thick = pen.between(0.13, 0.22)
    arm = pen.trapezoid(mirrored, -0.80, sleeve, (0.22, thick), (width, width + reach))
    return np.maximum(np.maximum(body, shoulder), arm)


def _front(pen: _Pen, coverage: Float, neck: Float, front: Float) -> tuple[Float, Float]:
    """Cut the neck, `neck` deep, and draw a dark line down the front, `front` dark."""
    hole = pen.ellipse((0.0, -0.92), (pen.between(0.16, 0.28), neck))
    line = pen.trapezoid(pen.u, -0.9, 1.1, (0.045, 0.045))
    return coverage * (1 - hole), 1 - front * line


def _t_shirt(pen: _Pen) -> tuple[Float, Float]:
    top = _top(
        pen, pen.between(0.75, 0.98), pen.between(0.42, 0.55), pen.between(-0.45, 0.05), pen.between(-0.05, 0.06)
    )
    return _front(pen, top, pen.between(0.10, 0.35), pen.chance(0.10) * pen.between(0.2, 0.5))


def _trouser(pen: _Pen) -> tuple[Float, Float]:
    hip, foot = pen.between(0.30, 0.42), pen.between(0.12, 0.20)
    hips = pen.trapezoid(pen.u, -0.97, -0.50, (hip - 0.04, hip))
    apart = pen.between(0.16, 0.30)
    legs = pen.trapezoid(np.abs(pen.u), -0.60, 0.98, (0.5 * hip, foot), (0.5 * hip, apart))
    return np.maximum(hips, legs), 1 - pen.between(0, 0.4) * pen.trapezoid(pen.u, -1.0, -0.85, (0.6, 0.6))


def _pullover(pen: _Pen) -> tuple[Float, Float]:
    top = _top(pen, pen.between(0.75, 0.98), pen.between(0.42, 0.58), pen.between(0.45, 0.95), pen.between(-0.06, 0.04))
    coverage, shade = _front(pen, top, pen.between(0.08, 0.22), pen.chance(0.10) * pen.between(0.2, 0.5))
    hem = pen.trapezoid(pen.u, pen.between(0.68, 0.76), 1.1, (1.0, 1.0))
    return coverage, shade - pen.chance(0.6) * pen.between(0.1, 0.35) * hem


def _dress(pen: _Pen) -> tuple[Float, Float]:
    waist, at = pen.between(0.18, 0.30), pen.between(-0.30, 0.05)
    bodice = pen.trapezoid(pen.u, -0.95, at, (pen.between(0.24, 0.36), waist))
    skirt = pen.trapezoid(pen.u, at - 0.1, 0.99, (waist, pen.between(0.28, 0.62)))
    sleeves = pen.chance(0.45) * _top(pen, at, waist, pen.between(-0.5, 0.2), pen.between(0, 0.02))
    return _front(pen, np.maximum(np.maximum(bodice, skirt), sleeves), pen.between(0.08, 0.35), pen.between(0, 0))


def _coat(pen: _Pen) -> tuple[Float, Float]:
    top = _top(pen, pen.between(0.86, 1.02), pen.between(0.42, 0.56), pen.between(0.55, 0.98), pen.between(-0.02, 0.12))
    return _front(pen, top, pen.between(0.12, 0.45), pen.chance(0.85) * pen.between(0.3, 0.7))


def _shirt(pen: _Pen) -> tuple[Float, Float]:
    is_short = pen.chance(0.35)
    sleeve = is_short * pen.between(-0.35, 0.10) + (1 - is_short) * pen.between(0.35, 0.95)
    top = _top(pen, pen.between(0.78, 1.00), pen.between(0.36, 0.50), sleeve, pen.between(-0.06, 0.08))
    coverage, shade = _front(pen, top, pen.between(0.08, 0.30), pen.chance(0.65) * pen.between(0.1, 0.5))
    collar = pen.trapezoid(np.abs(pen.u), -0.95, -0.70, (0.08, 0.05), (0.16, 0.06))
    return coverage, shade - pen.chance(0.8) * pen.between(0.2, 0.5) * collar


def _shoe(pen: _Pen, heel: Float, instep: Float, sole: Float) -> Float:
    """Seen from the side, toe to the left: `heel` is the height of the back, `instep` where the toe cap ends."""
    ground = 0.55
    bottom = pen.trapezoid(pen.u, ground - sole, ground, (0.95, 0.93))
    slope = np.maximum(instep + (2.2 * pen.u + 0.7) * (heel - instep), heel)  # from the toe cap up to the collar
    upper = _cover(np.maximum(np.maximum(slope - pen.v, pen.v - ground), np.abs(pen.u - 0.32) - 0.60))
    toe = pen.ellipse((-0.35, ground), (0.60, ground - instep)) * _cover(pen.v - ground)
    shoe: Float = np.maximum(np.maximum(bottom, upper), toe)
    return shoe


def _sandal(pen: _Pen) -> tuple[Float, Float]:
    shoe = _shoe(pen, pen.between(-0.45, 0.05), pen.between(0.05, 0.25), pen.between(0.08, 0.20))
    gap = pen.between(0.28, 0.44)
    along = (pen.u + pen.between(-0.4, 0.4) * pen.v + 4 + pen.between(0, 1)) / gap
    is_open = _cover((np.abs(along - np.floor(along) - 0.5) - pen.between(0.18, 0.38)) * gap)
    above = _cover(pen.v - pen.between(0.28, 0.44))
    return shoe * (1 - is_open * above * pen.between(0.75, 1.0)), np.ones_like(shoe)


def _sneaker(pen: _Pen) -> tuple[Float, Float]:
    shoe = _shoe(pen, pen.between(-0.40, -0.02), pen.between(-0.02, 0.20), pen.between(0.10, 0.22))
    stripe = pen.trapezoid(pen.u, -0.4, 0.4, (0.06, 0.06), (0.25, -0.10))
    return shoe, 1 - pen.chance(0.7) * pen.between(-0.4, 0.6) * stripe


def _bag(pen: _Pen) -> tuple[Float, Float]:
    top, half = pen.between(-0.40, 0.0), pen.between(0.62, 0.90)
    body = pen.trapezoid(pen.u, top, pen.between(0.60, 0.92), (half, half + pen.between(-0.08, 0.10)))
    wide, high = half * pen.between(0.4, 0.8), pen.between(0.25, 0.60)
    handle = pen.ellipse((0.0, top), (wide, high)) * (1 - pen.ellipse((0.0, top), (wide - 0.14, high - 0.14)))
    flap = pen.trapezoid(pen.u, top, top + pen.between(0.2, 0.5), (half, half))
    return np.maximum(body, pen.chance(0.85) * handle), 1 - pen.between(-0.1, 0.4) * flap


def _ankle_boot(pen: _Pen) -> tuple[Float, Float]:
    instep = pen.between(-0.10, 0.18)
    shoe = _shoe(pen, pen.between(-0.55, -0.25), instep, pen.between(0.10, 0.26))
    shaft = pen.trapezoid(pen.u, pen.between(-0.95, -0.38), 0.5, (pen.between(0.30, 0.40), 0.42), (0.50, 0.50))
    return np.maximum(shoe, shaft), 1 - pen.chance(0.4) * pen.between(0.1, 0.5) * pen.trapezoid(
        pen.u, 0.38, 0.6, (1, 1)
    )


_SILHOUETTES: tuple[Callable[[_Pen], tuple[Float, Float]], ...] = (  # the index is the label
    _t_shirt,
    _trouser,
    _pullover,
    _dress,
    _coat,
    _sandal,
    _shirt,
    _sneaker,
    _bag,
    _ankle_boot,
)
