"""What comes from disk or from the database is read as numbers and names: never executed, never a way out of a folder.

One thing is executed on purpose: the architecture and the callbacks that a study names, which are the user's own code.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import logging
import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from small_study import ON_SQLITE, begin_trial, claim_cell, make_spec, open_session
from sqlalchemy import delete, text, update

import fmnist_optuna
from fmnist_optuna.artifacts.folder import DurableStore
from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE, remove_artifacts, store_weights, weights_path
from fmnist_optuna.data.fashion_mnist import read_arrays, verify_files
from fmnist_optuna.data.idx import IdxFile
from fmnist_optuna.errors import DataError, MismatchError, SpecError
from fmnist_optuna.ledger.tables import predictions, studies
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.training import log_folder_of
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import delete_study
from fmnist_optuna.work import local as supervisor
from fmnist_optuna.work.limits import Limits
from fmnist_optuna.work.order import WorkerOrder

if TYPE_CHECKING:
    import keras

PACKAGE = Path(fmnist_optuna.__file__).parent
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
    lambda_layer = keras.layers.Lambda(lambda x, marker=marker: x if open(marker, "w") else None)  # noqa: PTH123, SIM115
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
    assert len(str(error.value).removeprefix(f"The stored weights {path}")) < 300
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
    "one row": lambda _: pack(probabilities=PROBABILITIES[0], labels=np.zeros(10, np.uint8)),
}


@ON_SQLITE
@pytest.mark.parametrize("name", list(BLOBS))
def test_forged_recorded_predictions_are_refused_unexecuted(
    name: str, session: Session, payload: bytes, marker: Path
) -> None:
    """`MismatchError` by the hash of the weights, and no payload runs; nothing advises to unpickle it."""
    session.openings.open(1, WEIGHTS, "winner", lambda: (PROBABILITIES, LABELS))
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
    suffix: str, write: Callable[[Path, bytes], None], tmp_path: Path, payload: bytes, marker: Path
) -> None:
    """`DataError` by the file's name, packed or not, and no payload runs."""
    file = IdxFile("labels-idx1-ubyte", (3,), "0" * 64)
    path = tmp_path / f"{file.name}{suffix}"
    write(path, payload)
    if suffix:
        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=f"{path}: must begin with the magic number 2049"):
        read_arrays(tmp_path, [file])
    assert [check.ok for check in verify_files(tmp_path, files=[file])] == [False]
    assert not marker.exists()


# The source


DANGEROUS_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
DANGEROUS_CALLS = {"eval", "exec", "system", "popen", "unsafe_load", "full_load", "enable_unsafe_deserialization"}
SAFE_VALUES = {"allow_pickle": False, "shell": False, "safe_mode": True}


def find_dangers(source: str) -> Iterator[str]:
    """What in a source may execute what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in DANGEROUS_MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *[alias.name for alias in node.names]]
            yield from (name for name in names if name.split(".")[0] in DANGEROUS_MODULES | DANGEROUS_CALLS)
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in DANGEROUS_CALLS or (name == "load" and ast.unparse(node).endswith("yaml.load")):
                yield name
        elif isinstance(node, ast.keyword) and node.arg in SAFE_VALUES:
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if value is not SAFE_VALUES[node.arg]:
                yield node.arg


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "pickle"),
        ("import json, marshal as m", "marshal"),
        ("from dill import loads", "dill"),
        ("from multiprocessing.reduction import pickle", "pickle"),
        ("def f():\n    from os import system", "system"),
        ("np.load(file, allow_pickle=True)", "allow_pickle"),
        ("np.load(file, allow_pickle=is_trusted)", "allow_pickle"),
        ("keras.saving.load_model(file, safe_mode=False)", "safe_mode"),
        ("keras.config.enable_unsafe_deserialization()", "enable_unsafe_deserialization"),
        ("eval(text)", "eval"),
        ("builtins.exec(text)", "exec"),
        ("call = eval", "eval"),
        ("yaml.load(text)", "load"),
        ("subprocess.run(text, shell=True)", "shell"),
        ("os.popen(text)", "popen"),
    ],
)
def test_the_search_for_dangers_finds_each(source: str, danger: str) -> None:
    """Every kind, wherever it stands."""
    assert list(find_dangers(source)) == [danger]


def test_the_search_for_dangers_lets_the_rest_pass() -> None:
    """The safe values, and names that only sound alike."""
    harmless = "np.load(file, allow_pickle=False); json.load(file); model.evaluate(x); execute(query); run(shell=False)"
    assert list(find_dangers(harmless)) == []


@pytest.mark.parametrize("module", sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")))
def test_no_module_executes_what_it_reads(module: str) -> None:
    """No pickle, marshal or shell; no eval or exec; no switch that lets NumPy, Keras or YAML run code."""
    assert list(find_dangers((PACKAGE / module).read_text())) == []


# Artifacts


OUTSIDE = {  # ids of artifacts, where FOLDER is the one beside which the victim stands
    "one up": "../victim",
    "down and up": "sub/../../victim",
    "absolute": "FOLDER/victim",
    "a link": "link",
    "a link to a folder": "folder-link/victim",
    "the folder above": "..",
    "the folder itself": ".",
    "no name": "",
    "NUL": "a\0b",
    "a name of 5000 letters": "a" * 5000,
    "a new line": "5f0c\n",
    "a number": 7.5,
}


@pytest.fixture
def trial_with(session: Session) -> Callable[..., Any]:
    """Makes a trial whose artifacts have given ids, beside a file that is none of ours."""
    folder = session.storage.artifacts
    folder.mkdir()
    victim = folder.parent / "victim"
    victim.write_text("mine")
    (folder / "link").symlink_to(victim)
    (folder / "folder-link").symlink_to(folder.parent)
    (folder / "sub").mkdir()

    def make(*ids: Any) -> Any:
        trial_id = begin_trial(session, claim_cell(session))
        for artifact_id in ids:
            meta = {"artifact_id": artifact_id, "filename": WEIGHTS_FILE, "mimetype": "", "encoding": None}
            session.trials.set_trial_system_attr(trial_id, f"artifacts:{artifact_id!r:.50}", json.dumps(meta))
        return session.trials.get_trial(trial_id)

    return make


def hostile_id(name: str, folder: Path) -> Any:
    artifact_id = OUTSIDE[name]
    return artifact_id.replace("FOLDER", str(folder)) if isinstance(artifact_id, str) else artifact_id


@ON_SQLITE
@pytest.mark.parametrize("name", list(OUTSIDE))
def test_an_artifact_is_never_read_outside_its_folder(
    name: str, session: Session, trial_with: Callable[..., Any]
) -> None:
    """`MismatchError` that names the folder, whatever leads out of it."""
    folder = session.storage.artifacts
    trial = trial_with(hostile_id(name, folder.parent))
    with pytest.raises(MismatchError, match=f"An artifact must be a file of {folder} itself, but "):
        weights_path(folder, session.trials, trial)


@ON_SQLITE
@pytest.mark.parametrize("name", list(OUTSIDE))
def test_an_artifact_is_never_written_outside_its_folder(
    name: str, session: Session, trial_with: Callable[..., Any]
) -> None:
    """`MismatchError`, and every file is as it was."""
    folder = session.storage.artifacts
    before = snapshot(folder.parent)
    with pytest.raises(MismatchError, match="An artifact must be a file of "):
        DurableStore(folder).write(hostile_id(name, folder.parent), io.BytesIO(b"yours"))
    assert snapshot(folder.parent) == before


@ON_SQLITE
@pytest.mark.parametrize("name", list(OUTSIDE))
def test_an_artifact_is_never_removed_outside_its_folder(
    name: str, session: Session, trial_with: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says which trial; nothing but the trial's own file is removed."""
    folder = session.storage.artifacts
    trial = trial_with(hostile_id(name, folder.parent), "0a1b")
    (folder / "0a1b").touch()
    before = snapshot(folder.parent)
    with caplog.at_level(logging.WARNING, logger="fmnist_optuna"):
        remove_artifacts(folder, session.trials, trial)
    (warning,) = caplog.records
    assert warning.getMessage().startswith(f"artifact_not_removed file={WEIGHTS_FILE} error=")
    assert before - snapshot(folder.parent) == {("artifacts/0a1b", b"")}


@ON_SQLITE
def test_a_study_with_a_hostile_artifact_can_be_deleted(session: Session, trial_with: Callable[..., Any]) -> None:
    """The study is gone, the file outside is not."""
    trial_with("../victim", "link")
    delete_study(session.storage, session.record)
    assert session.trials.get_all_studies() == []
    assert (session.storage.artifacts.parent / "victim").read_text() == "mine"


def snapshot(folder: Path) -> set[tuple[str, bytes]]:
    """Every file and link below a folder with its content, the database aside."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        (str(path.relative_to(folder)), bytes(path.readlink()) if path.is_symlink() else path.read_bytes())
        for path in paths
        if not path.name.startswith("studies.db")
    }


# Names of studies


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", ".hidden", "a\\b", "a\nb", "a\0b", ""])
def test_a_study_is_never_called_by_a_path(name: str) -> None:
    """A name is letters, digits, dots, dashes and underscores, and begins with a letter or digit."""
    with pytest.raises(SpecError, match="name must be letters, digits"):
        make_spec(name=name)


@ON_SQLITE
@pytest.mark.parametrize("name", ["../../evil", "/evil"])
def test_a_path_for_a_name_makes_no_file_elsewhere(
    name: str, session: Session, storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs and weights are called by worker and by chance, whatever somebody wrote into the database."""
    with session.storage.write() as connection:
        connection.execute(update(studies).values(study_name=name))
        connection.execute(text("UPDATE studies SET study_name = :name"), {"name": name})
    evil = open_session(storage_url, "worker", name)
    trial_id = begin_trial(evil, claim_cell(evil))
    (tmp_path / WEIGHTS_FILE).write_bytes(b"weights")
    import optuna

    stored = store_weights(evil.storage, optuna.Trial(evil.study, trial_id), tmp_path / WEIGHTS_FILE)
    path = weights_path(evil.storage.artifacts, evil.trials, evil.trials.get_trial(trial_id))
    assert path == tmp_path / "artifacts" / stored

    orders: list[WorkerOrder] = []

    def take(_target: object, arguments: Sequence[WorkerOrder], name: str) -> Unstarted:
        orders.extend(arguments)
        return Unstarted()

    monkeypatch.setattr(supervisor, "start", take)
    order = WorkerOrder(evil.storage.options, evil.record.name, "", evil.record.generation, None)
    logs = log_folder_of(evil, RunOptions(evil.storage.options))
    supervisor.Supervisor(evil, order, 1, Limits(), logs)._start_worker(0)
    assert orders[0].log_file is not None
    assert orders[0].log_file.resolve().parent == tmp_path / "logs"
    assert {name for name, _ in snapshot(tmp_path)} == {WEIGHTS_FILE, f"artifacts/{stored}"}
    evil.storage.close()


class Unstarted:
    """A worker that never began."""

    pid = None
