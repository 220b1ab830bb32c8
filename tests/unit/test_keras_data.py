"""Data in the cache of Keras: what is read, and the one line for what is wrong."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from read_data import fault, read


@pytest.fixture
def keras_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


def write_cifar(cache: Path, protocol: int = 2) -> np.ndarray:
    """Batches of ten pictures; returns those to train on."""
    folder = cache / "cifar-10-batches-py-target" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rows = np.random.default_rng(0).integers(0, 256, (60, 3072), dtype=np.uint8)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        batch = {b"batch_label": b"7", b"labels": list(range(10)), b"data": rows[10 * number : 10 * number + 10]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    return rows[:50].reshape(50, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_data_of_keras_is_read_from_its_cache(keras_cache: Path, protocol: int) -> None:
    """That of CIFAR in colour, with the names of its classes; nothing is downloaded."""
    said = fault("keras:cifar10")
    assert "cifar10 must be in the cache of Keras" in said
    assert "keras.datasets.cifar10.load_data()" in said
    images = write_cifar(keras_cache, protocol)
    dataset = read("keras:cifar10")
    np.testing.assert_array_equal(dataset.train_images, images)
    assert dataset.train_labels.tolist() == [*range(10)] * 5
    assert dataset.info.class_names[9] == "truck"


def test_a_hundred_classes_of_keras_have_their_names(keras_cache: Path) -> None:
    """From a file beside the pictures; the labels are the fine ones."""
    folder = keras_cache / "cifar-100-python-target" / "cifar-100-python"
    folder.mkdir(parents=True)
    names = [f"kind {number}" for number in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({b"coarse_label_names": [b"x"], b"fine_label_names": names}, protocol=2))
    for role, n_each in (("train", 2), ("test", 1)):
        labels = [*range(100)] * n_each
        rows = np.full((len(labels), 3072), 9, np.uint8)
        batch = {b"filenames": [b"a"], b"coarse_labels": [0] * len(labels), b"fine_labels": labels, b"data": rows}
        (folder / role).write_bytes(pickle.dumps(batch, protocol=2))
    dataset = read("keras:cifar100")
    assert dataset.info.class_names == tuple(names)
    assert dataset.test_labels.tolist() == [*range(100)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"cos\nsystem\n(S'touch called'\ntR.",
            "must hold pictures of CIFAR with as many labels, but holds 0 bytes of",
        ),
        (b"\x80\x02}q", "must be a file of CIFAR, but cannot be read"),
        (
            pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, 2),
            "6,144 bytes of pictures and 1 labels",
        ),
        (
            pickle.dumps({b"data": np.zeros((2, 3072), np.uint8).T.copy().T, b"labels": [1, 1]}, 2),
            "but holds 0 bytes of",
        ),
    ],
    ids=["code", "damaged", "too few labels", "another order"],
)
def test_another_pickle_is_refused_and_not_executed(keras_cache: Path, content: bytes, words: str) -> None:
    """What it names is not called."""
    write_cifar(keras_cache)
    (keras_cache / "cifar-10-batches-py-target" / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    assert words in fault("keras:cifar10")
    assert not Path("called").exists()


def test_data_of_keras_that_is_no_pictures_is_refused() -> None:
    """The names that would do are listed."""
    assert "must name one of mnist, fashion_mnist, cifar10, cifar100 of keras.datasets, but names imdb" in fault(
        "keras:imdb"
    )
