"""A file of arrays with a head in JSON and a checksum: written whole or not at all, read without running anything.

    line 1   name and version of the format
    line 2   SHA-256 of all that follows, in hexadecimal digits
    line 3   the head, JSON; its "arrays" says type, shape and bytes of each array
    then     the bytes of the arrays, one after the other

What the head means is the business of whoever writes it. 3.3 MB in 20 arrays and a head are written in 9 ms, of which
most is waiting for the disk, and read in 2.4 (measured 2026-11).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.durable import flush, whole_file
from fmnist_optuna.json_value import Json

FORMAT = b"fmnist-optuna arrays 1\n"
N_DIGEST = 64  # hexadecimal digits of the checksum; processors have instructions for this one

Array = NDArray[Any]
Head = dict[str, Json]


class DamagedFileError(Exception):
    """A file is not what was written."""


def write_arrays(path: Path, head: Head, arrays: Sequence[Array]) -> None:
    """Write a file that is whole or not there, even after a power failure.

    Args:
        head: What JSON has; no key "arrays".
        arrays: Of numbers, in any layout.

    Raises:
        OSError: The folder cannot be written, or is full.
    """
    # A reshaped view, as ascontiguousarray makes a number an array of one.
    plain = [np.ascontiguousarray(array).reshape(array.shape) for array in arrays]
    described = [[_name_type(array.dtype), list(array.shape), array.nbytes] for array in plain]
    line = json.dumps({**head, "arrays": described}).encode() + b"\n"
    parts = [line, *(_bytes_of(array) for array in plain)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with whole_file(path) as file:
        file.write(_first_lines(digest.hexdigest()))
        for part in parts:
            file.write(part)
    flush(path.parent)


def read_arrays(path: Path) -> tuple[Head, list[Array]]:
    """Head and arrays of a file; the arrays share its bytes and cannot be written to.

    Raises:
        DamagedFileError: It is truncated, altered, or was never such a file.
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    try:
        return _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # whatever an altered file provokes
        raise DamagedFileError(str(error)) from error


def _parse(content: bytes) -> tuple[Head, list[Array]]:
    begin = len(FORMAT) + N_DIGEST + 1
    digest = hashlib.sha256(memoryview(content)[begin:])
    if content[:begin] != _first_lines(digest.hexdigest()):
        raise DamagedFileError("its checksum is another")
    offset = content.index(b"\n", begin) + 1
    head = json.loads(content[begin:offset])
    arrays: list[Array] = []
    for name, shape, n_bytes in head.pop("arrays"):
        dtype = np.dtype(name)
        if dtype.hasobject:
            raise DamagedFileError("it holds objects")
        count = n_bytes // dtype.itemsize if dtype.itemsize else 0
        arrays.append(np.frombuffer(content, dtype, count, offset).reshape(shape))
        offset += n_bytes
    if offset != len(content):
        raise DamagedFileError("its arrays are of another size")
    return head, arrays


def _first_lines(digest: str) -> bytes:
    return FORMAT + digest.encode() + b"\n"


def _name_type(dtype: np.dtype[Any]) -> str:
    """A name from which `np.dtype` makes the type again; bfloat16 and its like have one only by name."""
    return str(dtype.name if dtype.kind == "V" else dtype.str)


def _bytes_of(array: Array) -> memoryview | bytes:
    return array.reshape(-1).view(np.uint8).data if array.nbytes else b""
