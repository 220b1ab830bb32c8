"""The 8 x 8 digits of scikit-learn as a data set: what a function of your own returns."""

import numpy as np
from sklearn.datasets import load_digits

from fmnist_optuna import Dataset, DatasetInfo

N_TEST = 450  # of 1,797; they come in an order in which any part is like any other


def load() -> Dataset:
    """1,347 images to train and to validate on, and 450 for the test, of numbers from 0 (paper) to 16 (ink)."""
    found = load_digits()
    images, labels = found.images.astype(np.float32), found.target
    info = DatasetInfo(
        name="8 x 8 digits",
        image_shape=(8, 8),
        dtype="float32",
        value_range=(0, 16),
        class_names=tuple("0123456789"),
        description="handwritten digits (Alpaydin and Kaynak 1998), as scikit-learn has them",
        licence="CC BY 4.0",
        is_light_on_dark=True,
    )
    return Dataset(info, images[N_TEST:], labels[N_TEST:], images[:N_TEST], labels[:N_TEST])
