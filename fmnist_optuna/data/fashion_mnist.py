"""Fashion-MNIST: what it is, and its four files on disk: where they are looked for, verified and read.

Owns the file table, the search order and every message about a bad file. Knows nothing of mirrors, of the split, of
Keras or of any study. A corrupt file is an error that names the file; it is never replaced silently.
"""

import contextlib
import hashlib
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fmnist_optuna.data.dataset import Dataset, DatasetInfo
from fmnist_optuna.data.idx import IdxFile, find_fault, unpack
from fmnist_optuna.errors import DataError
from fmnist_optuna.wording import reason_of

FASHION_MNIST = DatasetInfo(
    name="Fashion-MNIST",
    image_shape=(28, 28),
    dtype="uint8",
    value_range=(0, 255),
    class_names=(  # in the order of the labels 0..9; source: README of github.com/zalandoresearch/fashion-mnist
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    description=(
        "articles of clothing (Zalando SE), photographed alone, centred, on a plain background and shrunk to 28 x 28 "
        "grey pixels"
    ),
    licence="MIT, copyright 2017 Zalando SE.",
    is_light_on_dark=True,
)

# Checksums of the files published at github.com/zalandoresearch/fashion-mnist, whose README prints the MD5 of each .gz.
FASHION_MNIST_FILES = (
    IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    IdxFile("train-labels-idx1-ubyte", (60_000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    IdxFile(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    IdxFile("t10k-labels-idx1-ubyte", (10_000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)


@dataclass(frozen=True)
class FileCheck:
    """One line of `data verify`: `path` is None when the file is missing, `n_items` and `sha256` when unreadable."""

    name: str
    path: Path | None
    ok: bool
    n_items: int | None
    sha256: str | None
    message: str


def user_cache_dir() -> Path:
    """Folder that downloads go to: `fmnist-optuna/fashion-mnist` in the user's cache.

    Raises:
        DataError: The user has no home folder and XDG_CACHE_HOME is not set.
    """
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    base = xdg if xdg.is_absolute() else _home() / usual  # XDG says that a relative path must be ignored
    return base / "fmnist-optuna" / "fashion-mnist"


def keras_cache_dir() -> Path:
    """Folder where `keras.datasets.fashion_mnist` leaves the same four files."""
    keras_home = os.environ.get("KERAS_HOME")
    return (Path(keras_home) if keras_home else _home() / ".keras") / "datasets" / "fashion-mnist"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a container that runs under a user id without an entry
        raise DataError(
            "the user's cache needs a home folder, but this user has none; set XDG_CACHE_HOME and KERAS_HOME, "
            "or name the folder (--data-dir DIR)"
        ) from error


def find_data_dir(data_dir: Path | None = None) -> Path | None:
    """Find the folder that holds all four files, without reading them.

    Args:
        data_dir: The only folder looked at, if given; else the user's cache, then that of Keras. Each file may be there
            as `NAME.gz` or unpacked as `NAME`.

    Returns:
        The folder, or None if no cache holds the complete set.

    Raises:
        DataError: The given folder is missing, is no folder, or lacks a file.
    """
    if data_dir is None:
        for cache_dir in (user_cache_dir(), keras_cache_dir()):
            if not missing_files(cache_dir):
                return cache_dir
        return None
    fetch_command = _remedy(data_dir)
    if not data_dir.exists():
        raise DataError(f"the data folder must exist, but {data_dir} does not; {fetch_command}")
    if not data_dir.is_dir():
        raise DataError(f"the data folder must be a folder, but {data_dir} is a file; name another (--data-dir DIR)")
    missing = missing_files(data_dir)
    if missing:
        names = ", ".join(f"{file.name}.gz" for file in missing)
        raise DataError(
            f"the data folder must hold {len(FASHION_MNIST_FILES)} files, but {data_dir} lacks {len(missing)}: "
            f"{names}; {fetch_command}"
        )
    return data_dir


def _locate(folder: Path, file: IdxFile) -> Path | None:
    for path in (folder / file.name, folder / f"{file.name}.gz"):  # unpacked first: it is what the checksum is of
        with contextlib.suppress(PermissionError):  # a folder that may not be searched is not there for us
            if path.is_file():
                return path
    return None


def missing_files(folder: Path) -> list[IdxFile]:
    """The files of the table that the folder holds neither packed nor unpacked; nothing is read."""
    return [file for file in FASHION_MNIST_FILES if _locate(folder, file) is None]


def read_arrays(data_dir: Path, files: Sequence[IdxFile]) -> list[npt.NDArray[np.uint8]]:
    """Read, verify and parse every file of the table, in its order; each is unpacked and hashed once.

    Returns:
        One read-only uint8 array per file, of the table's shape.

    Raises:
        DataError: A file is missing, unreadable or not what the table says.
    """
    arrays = []
    for file in files:
        path = _locate(data_dir, file)
        if path is None:
            raise DataError(f"{data_dir} must hold {file.name}.gz, but it is gone; {_remedy(data_dir)}")
        content, _, fault = _inspect(path, file)
        if fault:
            raise DataError(f"{path}: {fault}; delete this file, then {_remedy(data_dir)}")
        arrays.append(np.frombuffer(content, np.uint8, offset=file.header_size).reshape(file.shape))
    return arrays


def load_fashion_mnist(data_dir: Path | None) -> Dataset:
    """Read the data set from a folder, or from the cache that has it; nothing is downloaded.

    Raises:
        DataError: A file is missing, unreadable or not what the table says.
    """
    found = find_data_dir(data_dir)
    if found is None:
        raise DataError(
            f"Fashion-MNIST must be on disk, but neither {user_cache_dir()} nor "
            f"{keras_cache_dir()} holds all {len(FASHION_MNIST_FILES)} files; run: fmnist-optuna data fetch"
        )
    images, labels, test_images, test_labels = read_arrays(found, FASHION_MNIST_FILES)
    return Dataset(FASHION_MNIST, images, labels, test_images, test_labels)


def _remedy(data_dir: Path) -> str:
    return f"run: fmnist-optuna data fetch --data-dir {shlex.quote(str(data_dir))}"


def verify_files(data_dir: Path) -> list[FileCheck]:
    """Check every file of the table and report on each; a bad or missing file is a line, not an exception."""
    checks = []
    for file in FASHION_MNIST_FILES:
        path = _locate(data_dir, file)
        if path is None:
            checks.append(FileCheck(file.name, None, False, None, None, f"missing; {_remedy(data_dir)}"))
            continue
        content, sha256, fault = _inspect(path, file)
        n_items = int.from_bytes(content[4:8], "big") if len(content) >= 8 else None
        message = f"{fault}; delete this file, then {_remedy(data_dir)}" if fault else "ok"
        checks.append(FileCheck(file.name, path, not fault, n_items, sha256, message))
    return checks


def _inspect(path: Path, file: IdxFile) -> tuple[bytes, str | None, str]:
    """Content of the unpacked file, its SHA-256, and what is wrong with it ("" when nothing is)."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        return b"", None, f"must be readable, but {reason_of(error)}"
    content, fault = unpack(packed, file) if path.suffix == ".gz" else (packed, "")
    if fault:
        return b"", None, fault
    sha256 = hashlib.sha256(content).hexdigest()
    return content, sha256, find_fault(content, sha256, file)
