"""Arrays that a supervisor writes and its workers map."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_study import STUDY, make_spec

from fmnist_optuna.data import sharing
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.sharing import NAMES, find_shared, map_arrays, share_arrays
from fmnist_optuna.data.split import Splits
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.splits import DataPlace
from fmnist_optuna.work.worker import load_resident


@pytest.fixture(autouse=True)
def _nothing_is_shared_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has shared nothing."""
    monkeypatch.setattr(sharing, "_SHARED", {})


def share(splits: Splits, folder: Path) -> Path:
    """The folder in which the data is shared then."""
    shared = share_arrays(splits, folder)
    assert shared is not None
    return shared


def test_mapped_arrays_are_those_that_were_shared(garments: Splits, tmp_path: Path) -> None:
    """All by their names, and equal."""
    arrays = map_arrays(share(garments, tmp_path))
    assert arrays is not None
    assert list(arrays) == list(NAMES)
    assert all(np.array_equal(arrays[name], getattr(garments, name)) for name in NAMES)


def test_mapped_images_are_not_copied(garments: Splits, tmp_path: Path, one_thread: None) -> None:
    """A change of the mapped pages is seen through the tensor, and the file stays as it was."""
    folder = share(garments, tmp_path)
    arrays = map_arrays(folder)
    assert arrays is not None
    data = ResidentData.from_arrays(FASHION_MNIST, **arrays)
    before = int(data.train_images[7, 14, 14])
    arrays["train_images"][7, 14, 14] ^= 255  # copy-on-write: seen by who has the same pages, and not by the file
    assert int(data.train_images[7, 14, 14]) == before ^ 255
    again = map_arrays(folder)
    assert again is not None
    assert again["train_images"][7, 14, 14] == before


def test_tensors_outlive_the_files(garments: Splits, tmp_path: Path, one_thread: None) -> None:
    """The supervisor may remove its folder while a worker still trains."""
    folder = share(garments, tmp_path)
    arrays = map_arrays(folder)
    assert arrays is not None
    data = ResidentData.from_arrays(FASHION_MNIST, **arrays)
    del arrays
    shutil.rmtree(folder)
    assert np.array_equal(data.train_images.numpy(), garments.train_images)


def test_no_room_is_no_error(garments: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shared then, and nothing half written is left."""

    def refuse(file: Path, _: object) -> None:
        file.write_bytes(bytes(4096))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", refuse)
    assert share_arrays(garments, tmp_path) is None
    assert list(tmp_path.iterdir()) == []  # what was begun would take the last room from others


def test_data_is_shared_once(garments: Splits, tmp_path: Path) -> None:
    """A second study with the same data takes the same folder, unless that was tidied away."""
    folder = share(garments, tmp_path)
    assert share(garments, tmp_path) == folder
    shutil.rmtree(folder)
    assert share(garments, tmp_path) != folder


def test_who_scores_maps_what_is_shared(garments: Splits, tmp_path: Path) -> None:
    """The images of the test too; once the folder is gone they are loaded as before."""
    data = make_spec(data={"source": "synthetic", "n_validation": 2_400}).data
    folder = share(garments, tmp_path)
    place = DataPlace(data, None, garments.fingerprint, find_shared(garments.fingerprint))
    assert place.load().folder == folder
    shutil.rmtree(folder)
    assert find_shared(garments.fingerprint) is None
    assert np.array_equal(place.load().test_images, garments.test_images)


@pytest.mark.parametrize("how", ["shared", "gone", "not shared"])
def test_data_is_the_same_however_it_comes(garments: Splits, tmp_path: Path, one_thread: None, how: str) -> None:
    """Mapped, or loaded by the worker itself because nothing is shared or the folder is gone."""
    folder = share(garments, tmp_path) if how == "shared" else tmp_path
    order = WorkerOrder(
        storage=StorageOptions(""),
        study_name="",
        worker_id="",
        generation=0,
        data_dir=None,
        shared_data=None if how == "not shared" else folder,
    )
    spec = make_spec(data={"source": "synthetic", "n_validation": 2_400})
    record = StudyRecord(1, STUDY, spec, (), garments.source, garments.fingerprint, garments.info, 0, 0.0)
    data = load_resident(order, record)
    assert all(np.array_equal(getattr(data, name).numpy(), getattr(garments, name)) for name in NAMES)
