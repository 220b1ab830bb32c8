"""What the losses of training images count by: what weights must be."""

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.one_each import check_one_each
from fmnist_optuna.errors import DataError

Weights = npt.NDArray[np.float32]  # (n,)


def check_weights(place: str, weights: object, n_images: int) -> None:
    """Refuse what are no weights of so many images.

    Args:
        place: What the error begins with.

    Raises:
        DataError: Another length, no finite numbers, one below 0, or nothing but 0.
    """
    given = check_one_each(place, weights, n_images, "iuf", "numbers", "weight")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        kept = given.astype(np.float32)
    if len(wrong := np.flatnonzero(~(np.isfinite(kept) & (kept >= 0)))):
        raise DataError(f"{place} must be finite and at least 0, but the image {wrong[0]} has {given[wrong[0]]}")
    if not kept.any():
        raise DataError(f"{place} must not all be 0, but are; nothing would be learnt")
