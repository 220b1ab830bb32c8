"""The data sets that a study file names by a word of their own, and what any source's images and labels are."""

from collections.abc import Mapping

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.synthetic import SYNTHETIC

BUILT_IN: Mapping[str, DatasetInfo] = {"fashion-mnist": FASHION_MNIST, "synthetic": SYNTHETIC}
