"""The data sets of pictures that `keras.datasets` has on disk, read from its cache without Keras."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fmnist_optuna.data.dataset import Dataset, DatasetInfo
from fmnist_optuna.data.fashion_mnist import keras_cache_dir, load_fashion_mnist
from fmnist_optuna.data.readers.cifar_files import SIDE, Batch, read_batch, read_names
from fmnist_optuna.data.readers.labels import encode
from fmnist_optuna.data.readers.npz_file import read_npz
from fmnist_optuna.errors import DataError
from fmnist_optuna.spec.data_spec import DataSpec

CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = 5  # files of images to train on


def read_keras(data: DataSpec, place: Path) -> Dataset:
    """Read a data set from the cache of Keras.

    Args:
        place: Its name, as `keras.datasets` has it.

    Raises:
        DataError: It is none of pictures, or is not on disk.
    """
    name = str(place)
    if name not in READERS:
        raise DataError(f"data.source must name one of {', '.join(READERS)} of keras.datasets, but names {name}.")
    try:
        return READERS[name](data, keras_cache_dir().parent)
    except FileNotFoundError as error:
        raise DataError(
            f"{name} must be in the cache of Keras, but {error.filename} is not; get it once: python -c 'import keras; "
            f"keras.datasets.{name}.load_data()'."
        ) from None


def _read_mnist(data: DataSpec, folder: Path) -> Dataset:
    file = folder / "mnist.npz"
    file.stat()
    return read_npz(data, file)


def _read_fashion(_data: DataSpec, folder: Path) -> Dataset:
    place = folder / "fashion-mnist"
    place.stat()
    return load_fashion_mnist(place)


def _read_cifar_10(_data: DataSpec, folder: Path) -> Dataset:
    place = folder / "cifar-10-batches-py-target" / "cifar-10-batches-py"
    train = [read_batch(place / f"data_batch_{number}", "labels") for number in range(1, BATCHES + 1)]
    return _make("CIFAR-10", CIFAR_10, train, read_batch(place / "test_batch", "labels"))


def _read_cifar_100(_data: DataSpec, folder: Path) -> Dataset:
    place = folder / "cifar-100-python-target" / "cifar-100-python"
    train, test = (read_batch(place / role, "fine_labels") for role in ("train", "test"))
    return _make("CIFAR-100", read_names(place / "meta", "fine_label_names"), [train], test)


READERS: Mapping[str, Callable[[DataSpec, Path], Dataset]] = {
    "mnist": _read_mnist,
    "fashion_mnist": _read_fashion,
    "cifar10": _read_cifar_10,
    "cifar100": _read_cifar_100,
}


def _make(name: str, class_names: tuple[str, ...], train: Sequence[Batch], test: Batch) -> Dataset:
    images = np.concatenate([batch.images for batch in train])
    labels = np.concatenate([batch.labels for batch in train])
    encoded = encode(labels, test.labels, f"{name}: the labels", class_names)
    info = DatasetInfo(name, (SIDE, SIDE, 3), "uint8", (0, 255), class_names, "photographs (Krizhevsky 2009)")
    return Dataset(info, images, encoded.train, test.images, encoded.test)
