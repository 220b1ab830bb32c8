"""Arrays as a data set may have them, and those with one number for each image: labels and weights."""

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.errors import DataError


def as_array(place: str, values: object) -> NDArray[np.generic]:
    """The values as an array of NumPy's own class; anything else is refused.

    Args:
        place: What the error begins with.

    Raises:
        DataError: No array, or one of which numbers are masked: what lies below a mask was said to be no value.
    """
    if not isinstance(values, np.ndarray):
        raise DataError(f"{place} must be a NumPy array, but got {type(values).__name__}")
    if np.ma.is_masked(values):
        n_masked = int(np.ma.getmaskarray(values).sum())
        raise DataError(
            f"{place} must have a value in every place, but {n_masked:,} of {values.size:,} are masked; leave the "
            "examples out, or fill in values"
        )
    return np.asarray(values)


def check_one_each(place: str, values: object, n_images: int, kinds: str, what: str, noun: str) -> NDArray[np.generic]:
    """The values as an array (n_images,); anything else is refused.

    Args:
        place: What the error begins with.
        kinds: NumPy's letters of the types that they may have: "iu".
        what: The same in words: "integers".
        noun: One of them: "label".

    Raises:
        DataError: No array, of another type, or of another length.
    """
    array = as_array(place, values)
    if array.dtype.kind not in kinds:
        raise DataError(f"{place} must be {what}, but are {array.dtype}")
    if array.shape != (n_images,):
        raise DataError(f"{place} must have the shape ({n_images},), one {noun} an image, but have {array.shape}")
    return array
