"""`--gpu-memory` and the choice of a GPU, as far as a machine without one can tell; the rest was not measured."""

import os
from typing import Any

import pytest
import tensorflow as tf

from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.training.gpu_memory import limit_gpu_memory
from fmnist_optuna.work.loop import LeaveRequest
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.worker import run_worker


def test_a_limit_without_a_gpu_is_refused() -> None:
    """The text says what it is about and what to look at; the device is none of the study's own."""
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match=r"--gpu-memory must have a GPU .* sees none here.*CUDA_VISIBLE_DEVICES"):
        limit_gpu_memory(2**30)


def test_the_first_gpu_gets_one_device_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """In mebibytes, as TensorFlow counts; on the only one that a pinned process sees."""
    devices = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    set_to: list[tuple[Any, float]] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices if kind == "GPU" else [])
    monkeypatch.setattr(
        tf.config,
        "set_logical_device_configuration",
        lambda device, parts: set_to.extend((device, part.memory_limit) for part in parts),
    )
    limit_gpu_memory(4 * 2**30 + 1)
    assert set_to == [(devices[0], 4096)]


def test_a_limit_of_less_than_tensorflow_counts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 MiB would mean no limit."""
    device = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [device])
    with pytest.raises(UsageError, match="must be at least 1m, but got 1023 bytes"):
        limit_gpu_memory(1023)


@pytest.mark.parametrize(("slot", "taken"), [(0, "3"), (1, "5")])
def test_a_worker_shows_tensorflow_the_gpu_of_its_slot(monkeypatch: pytest.MonkeyPatch, slot: int, taken: str) -> None:
    """Of those that it is shown; before anything else, so that there need not be a study."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    order = WorkerOrder(StorageOptions("sqlite:///nowhere.db"), "small", "worker", 0, None, slot=slot)
    with pytest.raises(NotFoundError, match="There is no storage file"):
        run_worker(order, LeaveRequest())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken
