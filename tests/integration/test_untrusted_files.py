"""What comes from disk or from the database is read as numbers and names: never executed, never a way out of a folder.

One thing is executed on purpose: the architecture and the callbacks that a study names, which are the user's own code.
"""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from small_study import ON_SQLITE
from sqlalchemy import delete, update

from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE
from fmnist_optuna.data import fashion_mnist
from fmnist_optuna.data.fashion_mnist import read_arrays, verify_files
from fmnist_optuna.data.idx import IdxFile
from fmnist_optuna.errors import DataError, MismatchError
from fmnist_optuna.ledger.openings import Scores
from fmnist_optuna.ledger.tables import predictions
from fmnist_optuna.study.session import Session

if TYPE_CHECKING:
    import keras

WEIGHTS = "a" * 64


class Payload:
    """Whoever unpickles it makes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self._marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that a payload makes when it runs."""
    return tmp_path / "payload-ran"


@pytest.fixture
def payload(marker: Path) -> bytes:
    """A pickle that makes the marker; it does so here once, or no test below would mean anything."""
    pickled = pickle.dumps(Payload(marker))
    pickle.loads(pickled)
    marker.unlink()
    return pickled


# Weights


@pytest.fixture
def make_model(one_thread: None) -> Callable[[], keras.Model]:
    """Makes the same small model again and again."""
    import keras

    from fmnist_optuna.training.dense import create_model

    def make() -> keras.Model:
        keras.utils.set_random_seed(0)
        return create_model(4, 0.2, 0.01)

    return make


@pytest.fixture
def saved(make_model: Callable[[], keras.Model], tmp_path: Path) -> tuple[Path, str]:
    """A file of weights, under the kind of name that an artifact has, and its hash."""
    from fmnist_optuna.training.weights import save_weights

    sha256 = save_weights(make_model(), tmp_path / WEIGHTS_FILE)
    return (tmp_path / WEIGHTS_FILE).rename(tmp_path / "5f0c-artifact"), sha256


def write_pickle(path: Path, payload: bytes) -> None:
    path.write_bytes(payload)


def write_object_array(path: Path, payload: bytes) -> None:
    """What `np.save` makes of Python objects: a header and a pickle."""
    np.lib.format.write_array_header_1_0(
        file := io.BytesIO(), {"shape": (1,), "fortran_order": False, "descr": np.dtype(object)}
    )
    path.write_bytes(file.getvalue() + payload)


def write_zip(path: Path, payload: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("model.weights.h5", "data.pkl"):
            archive.writestr(name, payload)


def write_keras_archive(path: Path, _payload: bytes) -> None:
    """A whole model with a function of its own, whose byte code Keras stores."""
    import keras

    marker = str(path.with_name("payload-ran"))
    lambda_layer = keras.layers.Lambda(
        lambda x, marker=marker: (open(marker, "w").close(), x)[1]  # type: ignore[func-returns-value] # noqa: PTH123
    )
    model = keras.Sequential([keras.Input((1,)), lambda_layer])
    archive = path.with_suffix(".keras")
    model.save(archive)
    path.with_name("payload-ran").unlink()  # building the model ran it
    archive.replace(path)


def kernel_of(file: h5py.File) -> str:
    """Name of the first kernel."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if getattr(item, "ndim", 0) == 2 else None)
    return names[0]


def write_strings(path: Path, payload: bytes) -> None:
    """Objects of any length in the place of numbers."""
    with h5py.File(path, "r+") as file:
        del file[name := kernel_of(file)]
        file.create_dataset(name, (784, 4), dtype=h5py.string_dtype("ascii"))[0, 0] = payload.hex()


def write_ragged(path: Path, payload: bytes) -> None:
    """Rows of bytes of any length in the place of numbers."""
    with h5py.File(path, "r+") as file:
        del file[name := kernel_of(file)]
        ragged = file.create_dataset(name, (784, 4), dtype=h5py.vlen_dtype(np.uint8))
        ragged[0, 0] = np.frombuffer(payload, np.uint8)


def write_opaque(path: Path, payload: bytes) -> None:
    """Bytes that h5py gives back as a NumPy type of their own."""
    with h5py.File(path, "r+") as file:
        del file[name := kernel_of(file)]
        opaque = np.full((784, 4), payload[:64], dtype="V64")
        file.create_dataset(name, data=opaque.astype(h5py.opaque_dtype(opaque.dtype)))


def write_external_link(path: Path, _payload: bytes) -> None:
    """The right numbers, but in another file."""
    other = path.with_name("other.h5")
    other.write_bytes(path.read_bytes())
    with h5py.File(path, "r+") as file:
        del file[name := kernel_of(file)]
        file[name] = h5py.ExternalLink(str(other), name)


def write_external_bytes(path: Path, payload: bytes) -> None:
    """The numbers are the bytes of any file of this machine."""
    other = path.with_name("other.raw")
    other.write_bytes(payload.ljust(784 * 4 * 4, b"\0"))
    with h5py.File(path, "r+") as file:
        del file[name := kernel_of(file)]
        file.create_dataset(name, (784, 4), "f4", external=[(str(other), 0, 784 * 4 * 4)])


FORGERIES = {
    "a pickle": write_pickle,
    "an array of objects": write_object_array,
    "a zip": write_zip,
    "a Keras archive with a function": write_keras_archive,
    "HDF5 with strings": write_strings,
    "HDF5 with ragged rows": write_ragged,
    "HDF5 with an opaque type": write_opaque,
    "HDF5 with a link to another file": write_external_link,
    "HDF5 over the bytes of another file": write_external_bytes,
}


@pytest.mark.parametrize("name", list(FORGERIES))
def test_weights_that_are_something_else_are_refused_unexecuted(
    name: str, saved: tuple[Path, str], make_model: Callable[[], keras.Model], payload: bytes, marker: Path
) -> None:
    """`MismatchError` by the file's name in one line of bounded length, and no payload runs."""
    from fmnist_optuna.training.weights import load_weights

    path, sha256 = saved
    load_weights(make_model(), path, sha256)
    FORGERIES[name](path, payload)
    with pytest.raises(MismatchError, match=f"The stored weights {path} must be readable, but ") as error:
        load_weights(make_model(), path, sha256)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value).removeprefix(f"The stored weights {path}")) < 360
    assert not marker.exists()


# Predictions


def pack(**arrays: Any) -> bytes:
    np.savez(buffer := io.BytesIO(), **arrays)
    return buffer.getvalue()


PROBABILITIES, LABELS = np.eye(10, dtype=np.float32)[:2], np.array([0, 1], np.uint8)
BLOBS: dict[str, Callable[[Path], bytes | None]] = {
    "a pickle": lambda marker: pickle.dumps(Payload(marker)),
    "an array of objects": lambda marker: pack(probabilities=np.array([Payload(marker)]), labels=LABELS),
    "labels that are objects": lambda marker: pack(probabilities=PROBABILITIES, labels=np.array([Payload(marker)] * 2)),
    "another member": lambda _: pack(probabilities=PROBABILITIES, answers=LABELS),
    "half an archive": lambda _: pack(probabilities=PROBABILITIES, labels=LABELS)[:200],
    "no archive": lambda _: b"predictions",
    "nothing": lambda _: None,
    "labels of other images": lambda _: pack(probabilities=PROBABILITIES, labels=LABELS[:1]),
    "other numbers": lambda _: pack(probabilities=PROBABILITIES.astype(complex), labels=LABELS),
    "other mirrored": lambda _: pack(probabilities=PROBABILITIES, labels=LABELS, mirrored=PROBABILITIES[:1]),
    "two metrics": lambda _: pack(probabilities=PROBABILITIES, labels=LABELS, flip_objective=np.zeros(2)),
    "one row": lambda _: pack(probabilities=PROBABILITIES[0], labels=np.zeros(10, np.uint8)),
}


@ON_SQLITE
@pytest.mark.parametrize("name", list(BLOBS))
def test_forged_recorded_predictions_are_refused_unexecuted(
    name: str, session: Session, payload: bytes, marker: Path
) -> None:
    """`MismatchError` by the hash of the weights, and no payload runs; nothing advises to unpickle it."""
    session.openings.open(1, WEIGHTS, "winner", lambda: Scores(PROBABILITIES, LABELS))
    with session.storage.write() as connection:
        blob = BLOBS[name](marker)
        connection.execute(delete(predictions) if blob is None else update(predictions).values(predictions=blob))
    with pytest.raises(MismatchError, match="The recorded predictions of weights aaaaaaaaaaaa must be ") as error:
        session.openings.find(WEIGHTS)
    assert "pickle" not in str(error.value)
    assert not marker.exists()


# Data


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("write", [write_pickle, write_object_array, write_zip])
def test_forged_data_files_are_refused_unexecuted(
    suffix: str,
    write: Callable[[Path, bytes], None],
    tmp_path: Path,
    payload: bytes,
    marker: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`DataError` by the file's name, packed or not, and no payload runs."""
    file = IdxFile("labels-idx1-ubyte", (3,), "0" * 64)
    path = tmp_path / f"{file.name}{suffix}"
    write(path, payload)
    if suffix:
        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=f"{path}: must begin with the magic number 2049"):
        read_arrays(tmp_path, [file])
    monkeypatch.setattr(fashion_mnist, "FASHION_MNIST_FILES", (file,))
    assert [check.ok for check in verify_files(tmp_path)] == [False]
    assert not marker.exists()
