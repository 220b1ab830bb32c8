"""The data sets that a study file names by a word of their own, and what any source's images and labels are."""

from collections.abc import Mapping

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.synthetic import SYNTHETIC

BUILT_IN: Mapping[str, DatasetInfo] = {"fashion-mnist": FASHION_MNIST, "synthetic": SYNTHETIC}


def expect_info(source: str) -> DatasetInfo:
    """What the images and labels of a study file will be, before it is known where they come from.

    Args:
        source: As the study file has it; "auto" falls back to images of the same form.
    """
    return BUILT_IN.get(source, FASHION_MNIST)
