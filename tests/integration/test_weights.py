"""Weights as files: a hash of the numbers alone, and every alteration found."""

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from one_training import train

from fmnist_optuna.errors import MismatchError
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.weights import hash_weights, load_weights, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

HIDDEN_SIZE = 4


def make_model(seed: int = 0, hidden_size: int = HIDDEN_SIZE) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return create_model(hidden_size, 0.2, 0.01)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, str]:
    """A file of weights, under the kind of name that an artifact has, and its hash."""
    sha256 = save_weights(make_model(), tmp_path / "trial.weights.h5")
    return (tmp_path / "trial.weights.h5").rename(tmp_path / "5f0c-artifact"), sha256


def arrays(path: Path) -> dict[str, tuple[int, tuple[int, ...]]]:
    found: dict[str, h5py.Dataset] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        return {name: (item.id.get_offset(), item.shape) for name, item in found.items()}


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_hash_is_of_the_numbers_alone() -> None:
    """Equal weights have equal hashes, whatever the names of the layers and the state of optimizer and dropout."""
    first, second = make_model(0), make_model(1)
    assert hash_weights(first) != hash_weights(second)
    second.set_weights(first.get_weights())
    assert hash_weights(first) == hash_weights(second)
    assert len(hash_weights(first)) == 64


def test_hash_sees_one_bit() -> None:
    """The last bit of one weight changes the hash."""
    model = make_model()
    before = hash_weights(model)
    weights = model.get_weights()
    weights[2][0, 0] = np.nextafter(weights[2][0, 0], np.float32(1))
    model.set_weights(weights)
    assert hash_weights(model) != before


def test_hash_sees_shapes() -> None:
    """The same numbers in another shape are another model."""

    def zeros(*units: int) -> keras.Model:
        return keras.Sequential(
            [keras.Input((1,)), *[keras.layers.Dense(n, kernel_initializer="zeros") for n in units]]
        )

    narrow, wide = zeros(1, 1), zeros(2)  # four zeros each
    assert narrow.count_params() == wide.count_params() == 4
    assert hash_weights(narrow) != hash_weights(wide)


def test_saved_weights_come_back(saved: tuple[Path, str]) -> None:
    """Loading gives every weight back bit for bit, into a model of other weights."""
    path, sha256 = saved
    model = make_model(1)
    load_weights(model, path, sha256)
    for found, expected in zip(model.get_weights(), make_model(0).get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert hash_weights(model) == sha256


def test_every_stored_array_is_guarded(saved: tuple[Path, str]) -> None:
    """One altered byte in any weight of the file is found, with the file and both hashes in the text."""
    path, sha256 = saved
    original = path.read_bytes()
    offsets = {name: offset for name, (offset, shape) in arrays(path).items() if "seed_generator" not in name}
    assert len(offsets) == 4  # two kernels, two biases
    for offset in offsets.values():
        path.write_bytes(original)
        flip(path, offset)
        with pytest.raises(MismatchError, match=f"must have SHA-256 {sha256}, but have [0-9a-f]{{64}}; they were alt"):
            load_weights(make_model(1), path, sha256)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99], ids=["empty", "half", "nearly-all"])
def test_truncated_file(saved: tuple[Path, str], share: float) -> None:
    """A file that is cut off is refused by name."""
    path, sha256 = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MismatchError, match=f"The stored weights {path} must be readable, but "):
        load_weights(make_model(1), path, sha256)


def test_something_else(tmp_path: Path) -> None:
    """A file that is no HDF5 is refused by name."""
    path = tmp_path / "artifact"
    path.write_text("weights")
    with pytest.raises(MismatchError, match=f"The stored weights {path} must be readable, but OSError"):
        load_weights(make_model(), path, "0" * 64)


@pytest.mark.parametrize("hidden_size", [3, 5])
def test_weights_of_another_architecture(saved: tuple[Path, str], hidden_size: int) -> None:
    """Weights of a model of other sizes are refused."""
    path, sha256 = saved
    with pytest.raises(MismatchError, match="must be readable, but ValueError"):
        load_weights(make_model(0, hidden_size), path, sha256)


def test_weights_of_another_trial(saved: tuple[Path, str], tmp_path: Path) -> None:
    """Weights of the same architecture with other numbers are refused."""
    other = save_weights(make_model(1), tmp_path / "other.weights.h5")
    assert other != saved[1]
    with pytest.raises(MismatchError, match=f"must have SHA-256 {saved[1]}, but have {other}"):
        load_weights(make_model(), tmp_path / "other.weights.h5", saved[1])


def test_optimizer_stays_in_the_model_and_out_of_the_file(few_garments: ResidentData, tmp_path: Path) -> None:
    """A trained model is saved without its optimizer, and keeps it with its state."""
    model = make_model()
    train(model, few_garments, batch_size=32, max_epochs=1, patience=1, seed=0)
    optimizer, n_steps = model.optimizer, int(model.optimizer.iterations.numpy())
    save_weights(model, tmp_path / "trial.weights.h5")
    assert model.optimizer is optimizer
    assert int(model.optimizer.iterations.numpy()) == n_steps == 32  # ceil(1003 / 32)
    stored = arrays(tmp_path / "trial.weights.h5")
    assert not [name for name in stored if "optimizer" in name]
    shapes = sorted(shape for name, (_, shape) in stored.items() if "seed_generator" not in name)
    assert shapes == sorted(weight.shape for weight in model.get_weights())
