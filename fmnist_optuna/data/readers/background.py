"""Whether the pictures of a data set are light on dark, so that a photograph that is dark on light is turned round."""

import numpy as np
from numpy.typing import NDArray

DARK = 0.25  # of the way from black to white: the mean of a border that is dark
SHARE = 0.99  # of the images, whose borders are dark


def are_light_on_dark(images: NDArray[np.generic], value_range: tuple[float, float] = (0, 255)) -> bool:
    """Whether nearly all images have a dark border.

    Args:
        images: (n, height, width), or with channels last.
        value_range: Black and white.
    """
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    border = np.concatenate([edge.reshape(len(images), -1) for edge in edges], axis=1)
    black, white = value_range
    return bool(np.mean(border.mean(axis=1) < black + DARK * (white - black)) >= SHARE)
