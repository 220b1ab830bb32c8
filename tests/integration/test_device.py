"""What a worker says that it trains on."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from fmnist_optuna.training.device import describe_device

UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"


def have_gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let TensorFlow see GPUs of these names: here there are none."""
    gpus = [SimpleNamespace(details={"device_name": name} if name else {}) for name in names]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: gpu.details)


def test_without_a_gpu_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a variable says."""
    have_gpus(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert describe_device() == "CPU"


@pytest.mark.parametrize(
    ("visible", "name", "told"),
    [
        (None, "NVIDIA A100", "GPU 0: NVIDIA A100"),
        ("3", "NVIDIA A100", "GPU 3: NVIDIA A100"),
        ("2,3", "NVIDIA A100", "GPU 2: NVIDIA A100"),
        ("1", "", "GPU 1"),
        (UUID, "NVIDIA A100-SXM4-40GB MIG 1g.5gb", f"{UUID}: NVIDIA A100-SXM4-40GB"),
    ],
)
def test_a_gpu_has_its_number_and_name(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, name: str, told: str
) -> None:
    """The number is that of the machine; what is too long for the list of workers is cut."""
    have_gpus(monkeypatch, name, "another")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert describe_device() == told
