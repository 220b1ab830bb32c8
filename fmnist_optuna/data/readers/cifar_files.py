"""The files of CIFAR as its authors published them for Python, and as Keras keeps them.

They are pickles, which may hold any code. They are taken apart here, opcode by opcode, and nothing in them is executed:
the pixels are one long text, the labels the integers behind their key.
"""

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.errors import DataError
from fmnist_optuna.wording import reason_of

SIDE = 32  # pixels
N_NUMBERS = 3 * SIDE * SIDE  # of a picture: red, green and blue, one plane after the other
PIXELS = "data"
KEYS = {
    *(PIXELS, "labels", "fine_labels", "coarse_labels", "filenames", "batch_label"),
    *("fine_label_names", "coarse_label_names", "label_names", "num_cases_per_batch", "num_vis"),
}
INTEGERS = {"INT", "BININT", "BININT1", "BININT2"}  # opcodes of numbers; those of others count what was read
BOOLEANS = {"NEWTRUE": True, "NEWFALSE": False}


@dataclass(frozen=True)
class Batch:
    """Pictures of one file.

    Args:
        images: (n, SIDE, SIDE, 3).
        labels: (n,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_batch(file: Path, key: str) -> Batch:
    """The pictures of a file with their labels.

    Args:
        key: Of the labels.

    Raises:
        DataError: It is no such file.
        FileNotFoundError: It is not there.
    """
    pixels, labels, is_by_columns = "", list[int](), False
    for place, name, value in _walk(file):
        if isinstance(value, bool):
            is_by_columns = value  # the last one before the pixels says in which order they lie
        elif place == PIXELS and isinstance(value, str) and len(value) >= N_NUMBERS:
            pixels = "" if is_by_columns else value
        elif place == key and name in INTEGERS and isinstance(value, int):
            labels.append(value)
    rows = np.frombuffer(pixels.encode("latin-1", "replace"), np.uint8)
    if not pixels or rows.size != len(labels) * N_NUMBERS:
        raise DataError(
            f"{file} must hold pictures of CIFAR with as many {key}, but holds {rows.size:,} bytes of pictures and "
            f"{len(labels):,} {key}."
        )
    images = rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Batch(np.ascontiguousarray(images), np.array(labels, np.int64))


def read_names(file: Path, key: str) -> tuple[str, ...]:
    """The texts behind a key of a file.

    Raises:
        DataError: It is no such file.
        FileNotFoundError: It is not there.
    """
    return tuple(value for place, _, value in _walk(file) if place == key and isinstance(value, str) and value != key)


def _walk(file: Path) -> Iterator[tuple[str, str, object]]:
    """Each opcode of a file: the key that it stands behind, its name and its argument, bytes as text of Latin-1."""
    place = ""
    with file.open("rb") as stream:
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                value = BOOLEANS.get(opcode.name, argument)
                value = value.decode("latin-1") if isinstance(value, bytes) else value
                place = value if value in KEYS else place
                yield place, opcode.name, value
        except Exception as error:  # whatever damaged bytes provoke
            raise DataError(f"{file} must be a file of CIFAR, but cannot be read: {reason_of(error)}.") from error
