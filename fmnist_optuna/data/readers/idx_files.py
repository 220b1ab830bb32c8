"""The four IDX files of a data set in the manner of MNIST: KMNIST, EMNIST or one's own, of any size.

They are found by their names: `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` and so on, packed with gzip or not,
with `test` for `t10k`, a dot before `idx`, or `emnist-balanced-` before all. The format is that of
yann.lecun.com/exdb/mnist.
"""

import gzip
import math
import re
import string
import zlib
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import CHANNELS, Dataset, DatasetInfo
from fmnist_optuna.data.idx import MAGIC_SIZE, read_shape
from fmnist_optuna.data.readers.background import are_light_on_dark
from fmnist_optuna.data.readers.labels import encode
from fmnist_optuna.data.readers.memory import refuse_too_large
from fmnist_optuna.errors import DataError
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.wording import reason_of

NAME = re.compile(r"(?P<set>.*?)(?P<role>train|test|t10k)[-.](?P<kind>images|labels)[-.]idx\d-ubyte(?:\.gz)?")
MOST_AXES = 4
TRANSPOSED = "emnist"  # whose images lie on their side in their files
LETTERS = "emnist-letters"  # whose labels are 1 to 26
ROLES = {"train": "train", "test": "test", "t10k": "test"}

Files = dict[tuple[str, str], Path]  # by role and kind


def read_idx(data: DataSpec, place: Path) -> Dataset:
    """Read the four files.

    Args:
        place: Their folder; or, where that holds several sets, the folder and the beginning of the names of one.

    Raises:
        DataError: A file is missing, or is not of this format; or the labels are none.
    """
    name, files = _find(place)
    refuse_too_large(f"The data of {place}", sum(_size_of(files[role, "images"]) for role in ("train", "test")))
    images = {role: _read(files[role, "images"], "images") for role in ("train", "test")}
    labels = {role: _read(files[role, "labels"], "labels") for role in ("train", "test")}
    if name.startswith(TRANSPOSED):
        images = {role: np.ascontiguousarray(array.swapaxes(1, 2)) for role, array in images.items()}
    names = data.class_names
    if name == LETTERS:
        labels, names = (
            {role: array - np.uint8(1) for role, array in labels.items()},
            names or tuple(string.ascii_lowercase),
        )
    encoded = encode(labels["train"], labels["test"], f"{place}: the labels", names)
    info = DatasetInfo(
        name=Path(data.place).name or data.source,
        image_shape=images["train"].shape[1:],
        dtype="uint8",
        value_range=(0, 255),
        class_names=encoded.class_names,
        is_light_on_dark=are_light_on_dark(images["train"]),
    )
    return Dataset(info, images["train"], encoded.train, images["test"], encoded.test)


def _find(place: Path) -> tuple[str, Files]:
    """The name of the one set in a folder, if it has one, and its files."""
    folder, wanted = (place, "") if place.is_dir() else (place.parent, place.name)
    sets: dict[str, Files] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if match := NAME.fullmatch(path.name):
            files = sets.setdefault(match["set"].rstrip("-."), {})
            files.setdefault((ROLES[match["role"]], match["kind"]), path)  # the unpacked one, which comes first
    found = {name: files for name, files in sets.items() if not wanted or name == wanted.rstrip("-.")}
    if not found:
        there = f"; it has sets named {', '.join(sorted(sets))}" if wanted and sets else ""
        raise DataError(f"data.source must name a folder with four IDX files, but {place} is none{there}.")
    if len(found) > 1:
        names = ", ".join(str(folder / name) for name in sorted(found))
        raise DataError(f"data.source must name one set of IDX files, but {place} holds several; name one: {names}.")
    ((name, files),) = found.items()
    for role, kind in (("train", "images"), ("train", "labels"), ("test", "images"), ("test", "labels")):
        if (role, kind) not in files:
            raise DataError(f"{place} must hold the {kind} of {role}, as {role}-{kind}-idx?-ubyte, but does not.")
    return name, files


def _size_of(file: Path) -> int:
    """How many bytes the header says that its images take."""
    try:
        with _open(file) as stream:
            return math.prod(_shape_in(stream.read(MAGIC_SIZE + 4 * MOST_AXES), file, "images"))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} must be an IDX file, but cannot be read: {reason_of(error)}.") from error


def _open(file: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def _read(file: Path, kind: str) -> NDArray[np.uint8]:
    """The array of a file, whole and no longer than its header says."""
    try:
        with _open(file) as stream:
            header = stream.read(MAGIC_SIZE)
            header += stream.read(4 * header[3]) if len(header) == MAGIC_SIZE else b""
            shape = _shape_in(header, file, kind)
            content = stream.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} must be an IDX file, but cannot be read: {reason_of(error)}.") from error
    if len(content) != math.prod(shape):
        came = "more" if len(content) > math.prod(shape) else f"{len(content):,}"
        raise DataError(f"{file} must hold {math.prod(shape):,} bytes, as its header says, but holds {came}.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape_in(header: bytes, file: Path, kind: str) -> tuple[int, ...]:
    """The shape that a header names: (n, height, width), with channels or without; of labels (n,)."""
    shape = read_shape(header)
    if shape is None or len(shape) not in ((1,) if kind == "labels" else (MOST_AXES - 1, MOST_AXES)):
        raise DataError(f"{file} must be an IDX file of {kind} as unsigned bytes, but begins with {header[:4]!r}.")
    if len(shape) == MOST_AXES and shape[3] not in CHANNELS:
        raise DataError(f"{file} must hold images of 1 channel or 3, but its header says {shape}.")
    return shape
