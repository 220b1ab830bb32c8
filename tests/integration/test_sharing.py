"""Arrays that a supervisor writes and its workers map."""

from pathlib import Path

import numpy as np
import pytest
from small_study import STUDY, make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.sharing import NAMES, map_arrays, share_arrays
from fmnist_optuna.data.split import Splits
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.training.engine import ResidentData
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.worker import load_resident


def test_mapped_arrays_are_those_that_were_shared(garments: Splits, tmp_path: Path) -> None:
    """All by their names, and equal."""
    assert share_arrays(garments, tmp_path) == tmp_path
    arrays = map_arrays(tmp_path)
    assert arrays is not None
    assert list(arrays) == list(NAMES)
    assert all(np.array_equal(arrays[name], getattr(garments, name)) for name in NAMES)


def test_mapped_images_are_not_copied(garments: Splits, tmp_path: Path, one_thread: None) -> None:
    """A change of the mapped pages is seen through the tensor, and the file stays as it was."""
    share_arrays(garments, tmp_path)
    arrays = map_arrays(tmp_path)
    assert arrays is not None
    data = ResidentData.from_arrays(FASHION_MNIST, **arrays)
    before = int(data.train_images[7, 14, 14])
    arrays["train_images"][7, 14, 14] ^= 255  # copy-on-write: seen by who has the same pages, and not by the file
    assert int(data.train_images[7, 14, 14]) == before ^ 255
    again = map_arrays(tmp_path)
    assert again is not None
    assert again["train_images"][7, 14, 14] == before


def test_tensors_outlive_the_files(garments: Splits, tmp_path: Path, one_thread: None) -> None:
    """The supervisor may remove its folder while a worker still trains."""
    share_arrays(garments, tmp_path)
    arrays = map_arrays(tmp_path)
    assert arrays is not None
    data = ResidentData.from_arrays(FASHION_MNIST, **arrays)
    del arrays
    for file in tmp_path.iterdir():
        file.unlink()
    assert np.array_equal(data.train_images.numpy(), garments.train_images)


def test_no_room_is_no_error(garments: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shared then, and nothing half written is left."""

    def refuse(file: Path, _: object) -> None:
        file.write_bytes(bytes(4096))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", refuse)
    assert share_arrays(garments, tmp_path) is None
    assert list(tmp_path.iterdir()) == []  # what was begun would take the last room from others


@pytest.mark.parametrize("how", ["shared", "gone", "not shared"])
def test_data_is_the_same_however_it_comes(garments: Splits, tmp_path: Path, one_thread: None, how: str) -> None:
    """Mapped, or loaded by the worker itself because nothing is shared or the folder is gone."""
    if how == "shared":
        share_arrays(garments, tmp_path)
    order = WorkerOrder(
        storage=StorageOptions(""),
        study_name="",
        worker_id="",
        generation=0,
        data_dir=None,
        shared_data=None if how == "not shared" else tmp_path,
    )
    spec = make_spec(data={"source": "synthetic", "n_validation": 2_400})
    record = StudyRecord(1, STUDY, spec, (), garments.source, garments.fingerprint, garments.info, 0, 0.0)
    data = load_resident(order, record)
    assert all(np.array_equal(getattr(data, name).numpy(), getattr(garments, name)) for name in NAMES)
