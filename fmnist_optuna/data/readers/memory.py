"""Whether a data set fits in the memory of this machine: asked before it is read."""

import psutil

from fmnist_optuna.errors import DataError
from fmnist_optuna.wording import format_bytes

SHARE = 0.8  # of what is free; arrays are there twice for a moment, when they are split


def refuse_too_large(place: str, n_bytes: int) -> None:
    """Refuse what would not fit.

    Args:
        place: What is read, for errors.
        n_bytes: Of its arrays.

    Raises:
        DataError: Twice as much is more than is free.
    """
    n_free = psutil.virtual_memory().available
    if 2 * n_bytes > SHARE * n_free:
        raise DataError(
            f"{place} must fit in the memory twice, but takes {format_bytes(n_bytes)}, and {format_bytes(n_free)} are "
            "free; keep fewer examples, or smaller ones."
        )
