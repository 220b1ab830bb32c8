"""Weights as files: Keras' `.weights.h5`, with a hash of their content that says whether they are the same numbers."""

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from fmnist_optuna.errors import MismatchError
from fmnist_optuna.wording import reason_of


def hash_weights(model: keras.Model) -> str:
    """SHA-256 over every weight in the model's order: shape, type and little-endian bytes.

    The bytes of an HDF5 file differ between equal weights; this hash does not.
    """
    digest = hashlib.sha256()
    for weight in model.get_weights():
        array = np.ascontiguousarray(weight)
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


class _Memory(io.BytesIO):
    """An HDF5 file in memory. Keras goes by the suffix of what it is given."""

    def __str__(self) -> str:
        return "memory.weights.h5"


def save_weights(model: keras.Model, path: Path) -> str:
    """Write the weights to `path` as .weights.h5 and return their hash; the optimizer's are left out.

    The file is made in memory: on a full disk HDF5 fails while it closes a file, keeps it open, and the next try ends
    the process with SIGSEGV (h5py 3.14, November 2026).
    """
    memory = _Memory()
    with _without_optimizer(model):
        model.save_weights(memory)
    path.write_bytes(memory.getbuffer())
    return hash_weights(model)


@contextmanager
def _without_optimizer(model: keras.Model) -> Iterator[None]:
    optimizer, model.optimizer = model.optimizer, None
    try:
        yield
    finally:
        model.optimizer = optimizer


def load_weights(model: keras.Model, path: Path, expected_sha256: str, name: str = "") -> None:
    """Load weights into a model of the same architecture and check their hash.

    Args:
        name: What errors call the file, of which `path` may be a copy; empty for `path`.

    Raises:
        MismatchError: The file is damaged, of another model, or holds other numbers.
    """
    with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as folder:
        named = Path(folder) / "any.weights.h5"  # Keras goes by the suffix; artifacts have none
        named.symlink_to(path.absolute())
        try:
            with _without_optimizer(model):
                model.load_weights(named)
        except Exception as error:  # h5py and Keras raise whatever a damaged file provokes
            raise MismatchError(
                f"The stored weights {name or path} must be readable, but {type(error).__name__}: {reason_of(error)}."
            ) from error
    found = hash_weights(model)
    if found != expected_sha256:
        raise MismatchError(
            f"The stored weights {name or path} must have SHA-256 {expected_sha256}, but have {found}; they "
            "were altered."
        )
