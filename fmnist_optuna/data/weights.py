"""What the losses of training images count by: what weights must be."""

import numpy as np
import numpy.typing as npt

from fmnist_optuna.errors import DataError

Weights = npt.NDArray[np.float32]  # (n,)


def check_weights(place: str, weights: object, n_images: int) -> None:
    """Refuse what are no weights of so many images.

    Args:
        place: What the error begins with.

    Raises:
        DataError: Another length, no finite numbers, one below 0, or nothing but 0.
    """
    if not isinstance(weights, np.ndarray):
        raise DataError(f"{place} must be a NumPy array, but got {type(weights).__name__}")
    weights = np.asarray(weights)
    if weights.dtype.kind not in "iuf":
        raise DataError(f"{place} must be numbers, but are {weights.dtype}")
    if weights.shape != (n_images,):
        raise DataError(f"{place} must have the shape ({n_images},), one weight an image, but have {weights.shape}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        kept = weights.astype(np.float32)
    if len(wrong := np.flatnonzero(~(np.isfinite(kept) & (kept >= 0)))):
        raise DataError(f"{place} must be finite and at least 0, but the image {wrong[0]} has {weights[wrong[0]]}")
    if not kept.any():
        raise DataError(f"{place} must not all be 0, but are; nothing would be learnt")
