"""Data in IDX files and in an .npz: what is read, and the one line for what is wrong."""

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idx_files import idx
from read_data import fault, read

from fmnist_optuna.data.readers.arrays import make_dataset
from fmnist_optuna.errors import DataError
from fmnist_optuna.spec.data_spec import DataSpec

N_TRAIN, N_TEST, N_CLASSES = 12, 6, 3
LABELS, TEST_LABELS = np.arange(N_TRAIN) % N_CLASSES, np.arange(N_TEST) % N_CLASSES
TIMES = np.stack([np.arange(N_TRAIN), 1.7e9 + np.arange(N_TRAIN)], axis=1)  # seconds of the day, and since 1970


def pictures(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *(shape or (6, 5))), dtype=np.uint8)


# IDX files


def write_idx(
    folder: Path, begin: str = "", test: str = "t10k", dot: str = "-", ending: str = ""
) -> dict[str, np.ndarray]:
    """Four files; returns their arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{begin}train-images{dot}idx3-ubyte": pictures(N_TRAIN),
        f"{begin}train-labels{dot}idx1-ubyte": LABELS.astype(np.uint8),
        f"{begin}{test}-images{dot}idx3-ubyte": pictures(N_TEST, seed=1),
        f"{begin}{test}-labels{dot}idx1-ubyte": TEST_LABELS.astype(np.uint8),
    }
    for name, array in arrays.items():
        content = gzip.compress(idx(array)) if ending else idx(array)
        (folder / f"{name}{ending}").write_bytes(content)
    return arrays


@pytest.mark.parametrize("names", [{}, {"ending": ".gz"}, {"dot": ".", "test": "test"}, {"begin": "kmnist-"}])
def test_idx_files_are_found_by_their_names(tmp_path: Path, names: dict[str, str]) -> None:
    """Packed or not, with a dot or a dash, with a name before."""
    images, labels, test_images, test_labels = write_idx(tmp_path / "mine", **names).values()
    dataset = read(f"idx:{tmp_path / 'mine'}")
    assert dataset.info.name == "mine"
    assert dataset.info.class_names == ("0", "1", "2")
    for array, expected in (
        (dataset.train_images, images), (dataset.train_labels, labels),
        (dataset.test_images, test_images), (dataset.test_labels, test_labels),
    ):  # fmt: skip
        np.testing.assert_array_equal(array, expected)


def test_one_of_several_sets_is_named(tmp_path: Path) -> None:
    """By the beginning of its files, behind the folder; images of EMNIST are put upright."""
    arrays = write_idx(tmp_path, "emnist-balanced-", "test")
    write_idx(tmp_path, "emnist-digits-", "test")
    said = fault(f"idx:{tmp_path}")
    assert "holds several; name one" in said
    dataset = read(f"idx:{tmp_path / 'emnist-balanced'}", class_names=["a", "b", "c"])
    np.testing.assert_array_equal(dataset.train_images, next(iter(arrays.values())).swapaxes(1, 2))
    assert dataset.info.class_names == ("a", "b", "c")
    assert "it has sets named emnist-balanced, emnist-digits" in fault(f"idx:{tmp_path / 'emnist'}")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("train-images-idx3-ubyte", lambda _: None, "must hold the images of train"),
        ("train-images-idx3-ubyte", lambda content: content[:-1], "must hold 360 bytes, as its header says, but holds"),
        ("train-images-idx3-ubyte", lambda content: content + b"x", "but holds more"),
        ("train-images-idx3-ubyte", lambda content: b"PK" + content, "must be an IDX file of images as"),
        ("train-images-idx3-ubyte", lambda content: b"", "as unsigned bytes, but begins with b''"),
        ("train-labels-idx1-ubyte", lambda content: content[:8] + b"\1" * N_TRAIN, "must go from 0 on, but go from 1"),
        ("train-labels-idx1-ubyte", lambda content: content[:8] + b"\0" * N_TRAIN, "must be of 2 to 65,535 classes"),
        ("t10k-labels-idx1-ubyte", lambda content: content[:-1] + b"\7", "of the test must be among those to train on"),
        ("t10k-labels-idx1-ubyte", lambda content: content[:8] + b"\0" * N_TEST, "of the test must have every class"),
    ],
)  # fmt: skip
def test_wrong_idx_files_are_said(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes | None], words: str
) -> None:
    """The file, what must hold and what came."""
    write_idx(tmp_path)
    content = change((tmp_path / name).read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    assert words in fault(f"idx:{tmp_path}")


def test_a_damaged_gzip_file_is_said(tmp_path: Path) -> None:
    """With what is wrong with it."""
    write_idx(tmp_path, ending=".gz")
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-12])
    assert f"{file} must be an IDX file, but cannot be read" in fault(f"idx:{tmp_path}")


def test_a_folder_without_idx_files_is_said(tmp_path: Path) -> None:
    """Empty, or not there."""
    for place in (tmp_path, tmp_path / "none" / "none"):
        assert f"must name a folder with four IDX files, but {place} is none" in fault(f"idx:{place}")


def test_labels_of_letters_begin_with_one(tmp_path: Path) -> None:
    """Those of the published files of EMNIST's letters, and of no other."""
    write_idx(tmp_path, "emnist-letters-", "test")
    for role, labels in (("train", LABELS), ("test", TEST_LABELS)):
        (tmp_path / f"emnist-letters-{role}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8) + np.uint8(1)))
    dataset = read(f"idx:{tmp_path}", class_names=["a", "b", "c"])
    assert dataset.train_labels.tolist() == LABELS.tolist()


# Arrays of NumPy


def write_npz(tmp_path: Path, **changes: np.ndarray) -> str:
    arrays: dict[str, Any] = {
        "x_train": pictures(N_TRAIN),
        "y_train": LABELS,
        "x_test": pictures(N_TEST, seed=1),
        "y_test": TEST_LABELS,
    }
    np.savez_compressed(tmp_path / "data.npz", **{**arrays, **changes})
    return f"npz:{tmp_path / 'data.npz'}"


def test_arrays_with_a_test_are_read(tmp_path: Path) -> None:
    """Bytes stay bytes; labels (n, 1) are those of their rows; names are taken from the file."""
    names = np.array(["disc", "square", "star"])
    dataset = read(write_npz(tmp_path, y_train=LABELS[:, None], class_names=names))
    np.testing.assert_array_equal(dataset.train_images, pictures(N_TRAIN))
    np.testing.assert_array_equal(dataset.train_labels, LABELS)
    np.testing.assert_array_equal(dataset.test_images, pictures(N_TEST, seed=1))
    info = dataset.info
    assert (info.name, info.dtype, info.value_range, info.class_names) == ("data", "uint8", (0, 255), tuple(names))


def test_a_share_of_each_class_is_kept_out(tmp_path: Path) -> None:
    """The same for the same seed; no example is in both roles."""
    images, labels = pictures(40), np.array(["left", "right"] * 20)
    np.savez(tmp_path / "whole.npz", x=images, y=labels)
    source = f"npz:{tmp_path / 'whole.npz'}"
    dataset, again = read(source, test_share=0.25), read(source, test_share=0.25)
    assert dataset.info.class_names == ("left", "right")
    assert np.bincount(dataset.test_labels).tolist() == [5, 5]
    assert np.bincount(dataset.train_labels).tolist() == [15, 15]
    together = {image.tobytes() for image in (*dataset.train_images, *dataset.test_images)}
    assert together == {image.tobytes() for image in images}
    np.testing.assert_array_equal(dataset.test_images, again.test_images)
    other = read(source, test_share=0.25, split_seed=1)
    assert dataset.test_images.tobytes() != other.test_images.tobytes()


@pytest.mark.parametrize(
    ("scale", "expected"), [(1.0, (0, 1)), (255.0, (0, 255)), (1000.0, (0, 1000))], ids=("unit", "bytes", "own")
)
def test_floats_have_the_range_that_holds_them(tmp_path: Path, scale: float, expected: tuple[int, int]) -> None:
    """Doubles become float32."""
    train, test = (np.linspace(0, scale, n * 30).reshape(n, 6, 5) for n in (N_TRAIN, N_TEST))
    info = read(write_npz(tmp_path, x_train=train, x_test=test)).info
    assert (info.dtype, info.value_range) == ("float32", expected)


def test_the_order_of_bytes_changes_nothing(tmp_path: Path) -> None:
    """Words that came from a machine with the other one have the white of words, too."""
    words = pictures(N_TRAIN).astype(np.uint16) * 16
    sets = [read(write_npz(tmp_path, x_train=each, x_test=each[:N_TEST])) for each in (words, words.astype(">u2"))]
    assert [dataset.info.value_range for dataset in sets] == [(0, 65_535)] * 2
    np.testing.assert_array_equal(sets[0].train_images, sets[1].train_images)


@pytest.mark.parametrize(
    "names", [[b"caf\xc3\xa9", b"tea", b"milk"], [["caf\u00e9"], ["tea"], ["milk"]]], ids=["bytes", "a column"]
)
def test_names_are_read_as_labels_are(tmp_path: Path, names: list[Any]) -> None:
    """Bytes are texts in UTF-8, and a column is its entries."""
    assert read(write_npz(tmp_path, class_names=np.array(names))).info.class_names == ("caf\u00e9", "tea", "milk")


def test_a_function_may_give_names_as_objects() -> None:
    """As pandas has texts; what is no text and no integer is refused."""
    arrays = {"x": pictures(12), "y": LABELS, "class_names": np.array(["a", "b", "c"], object)}
    data = DataSpec(source="my_data:pictures")
    assert make_dataset(arrays, data, "my_data:pictures", "pictures").info.class_names == ("a", "b", "c")
    arrays["class_names"] = np.array(["a", None, "c"], object)
    with pytest.raises(DataError, match="class_names must be integers or texts, but are object"):
        make_dataset(arrays, data, "my_data:pictures", "pictures")


@pytest.mark.parametrize("name", ["x", "y", "train_weights"])
def test_masked_numbers_are_refused(name: str) -> None:
    """What was marked as no value is none: neither in images nor in labels, nor in weights."""
    arrays = {"x": pictures(12), "y": LABELS, "train_weights": np.ones(12)}
    mask = np.zeros(arrays[name].shape, bool)
    mask[3] = True
    arrays[name] = np.ma.masked_array(arrays[name], mask)
    with pytest.raises(DataError, match=f"my_data:pictures: {name} must have a value in every place, but "):
        make_dataset(arrays, DataSpec(source="my_data:pictures"), "my_data:pictures", "pictures")


def spoiled(*shape: int) -> np.ndarray:
    """Zeros with one number that is none."""
    images = np.zeros((N_TRAIN, *shape))
    images[2].flat[3] = np.nan
    return images


@pytest.mark.parametrize(
    ("array", "shape", "dtype"),
    [
        (pictures(N_TRAIN, 7).astype(np.int64), (7,), "float32"),
        (pictures(N_TRAIN, 7, 4, 2), (7, 4, 2), "float32"),
        (pictures(N_TRAIN, 7, 4, 3).astype(np.int16), (7, 4, 3), "uint8"),
        (pictures(N_TRAIN).astype(np.uint16) * 257, (6, 5), "float32"),
        (pictures(N_TRAIN) > 99, (6, 5), "uint8"),
    ],
    ids=["features", "five axes", "colours", "words", "true and false"],
)
def test_any_rank_and_type_is_read(tmp_path: Path, array: np.ndarray, shape: tuple[int, ...], dtype: str) -> None:
    """Pictures are bytes where nothing is lost; what is no picture is float32, and its range that of its numbers."""
    dataset = read(write_npz(tmp_path, x_train=array, x_test=array[:N_TEST]))
    info = dataset.info
    assert (info.image_shape, info.dtype) == (shape, dtype)
    np.testing.assert_array_equal(dataset.train_images, array * (255 if array.dtype == bool else 1))
    if not info.is_of_pictures:
        assert info.value_range == (array.min(), array.max())


def test_many_classes_have_labels_of_two_bytes(tmp_path: Path) -> None:
    """From 257 classes on; their names are in alphabetical order where they are texts."""
    names = np.array([f"c{number:05}" for number in range(300)])
    rows, tests = np.arange(600.0).reshape(600, 1), np.arange(300.0).reshape(300, 1) + 0.5
    dataset = read(write_npz(tmp_path, x_train=rows, y_train=np.tile(names, 2), x_test=tests, y_test=names))
    assert (dataset.train_labels.dtype.name, dataset.info.class_names) == ("uint16", tuple(names))
    assert dataset.train_labels.tolist() == [*range(300)] * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": pictures(5)}, "x_train must have as many examples as there are labels, 12, but has the shape (5,"),
        ({"x_train": np.zeros(N_TRAIN)}, "x_train must be images (n, height, width), or with channels as the last"),
        ({"x_test": pictures(N_TEST, 7, 7)}, "x_test must have the shape (n, 6, 5) of x_train, but has (6, 7, 7)"),
        ({"x_test": np.zeros((N_TEST, 30))}, "x_test must have the shape (n, 6, 5) of x_train, but has (6, 30)"),
        ({"x_train": spoiled(6, 5)}, "x_train must hold finite numbers, as float32, but the image 2 holds nan"),
        ({"x_train": spoiled(7), "x_test": np.zeros((N_TEST, 7))}, "but the row 2 holds nan in its column 3"),
        ({"x_train": pictures(N_TRAIN) * 1e300}, "must hold finite numbers, as float32, but the image 0 holds inf"),
        ({"x_train": TIMES, "x_test": TIMES[:N_TEST]}, "must hold numbers that stay apart as float32, but those of its "
         "column 1, from 1700000000 to 1700000011, move by up to 11; take the smallest off each, or scale them."),
        ({"x_train": TIMES * 1e-60, "x_test": TIMES[:N_TEST]}, "stay apart as float32, but those of its column 0"),
        ({"x_train": np.full((N_TRAIN, 6, 5), "a")}, "x_train must be numbers, but are <U1"),
        ({"y_train": np.eye(3)[LABELS]}, "take numpy.argmax(labels, axis=1)"),
        ({"y_train": LABELS.astype(float)}, "integers or texts, but are float64; take labels.astype(int)"),
        ({"y_train": LABELS + 1}, "must go from 0 on, but go from 1 to 3; take 1 off each"),
        ({"y_train": LABELS - 1}, "must go from 0 on, but go from -1 to 1"),
        ({"y_train": LABELS * 65_535}, "must be of 2 to 65,535 classes, but go from 0 to 131,070"),
        ({"y_train": np.where(LABELS == 1, 3, LABELS)}, "data.npz: the labels to train on must have every class at"),
        ({"y_test": np.zeros(N_TEST, int)}, "the labels of the test must have every class at least once, but class 1 "),
        ({"class_name": np.array(list("abc"))}, "perhaps class_names and train_weights, and nothing else, but holds "
         "class_name too; leave that out"),
        ({"x": pictures(3), "y": LABELS[:3]}, "nothing else, but holds x, y too"),
        ({"y_train": np.full(N_TRAIN, "a"), "y_test": np.full(N_TEST, "a")}, "2 to 65,535 classes, but are all a"),
        ({"y_test": TEST_LABELS.astype(str)}, "must be all integers or all texts"),
        ({"y_test": np.array([])}, "y_test must be integers or texts"),
        ({"class_names": np.array(["a", "b"])}, "The names of the classes must be 3, as"),
        ({"y_train": np.array(list("abc" * 4)), "y_test": np.array(list("abcabd"))}, "but 'd' is not"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_said(tmp_path: Path, changes: Mapping[str, np.ndarray], words: str) -> None:
    """The array, what must hold and what came."""
    assert words in fault(write_npz(tmp_path, **changes))


@pytest.mark.parametrize(
    "column",
    [np.full(N_TRAIN, 0.1), np.where(LABELS == 1, 0.3, 0.1 + 0.2), TIMES[:, 1] + 86_400 * LABELS, 2**24 + 200 * LABELS],
    ids=["constant", "rounding", "days", "integers"],
)
def test_numbers_that_stay_apart_are_read(tmp_path: Path, column: np.ndarray) -> None:
    """A constant, one but for the rounding of its computation, times over days, integers at the edge of float32."""
    rows = np.stack([column, LABELS], axis=1)
    assert read(write_npz(tmp_path, x_train=rows, x_test=rows[:N_TEST])).info.image_shape == (2,)


@pytest.mark.parametrize(("n_rare", "often"), [(1, "once"), (2, "twice")])
@pytest.mark.parametrize("names", [["a", "b"], [0, 1]])
def test_a_class_must_be_there_for_every_role(tmp_path: Path, n_rare: int, often: str, names: list[object]) -> None:
    """One example to train on, one to validate on, one for the test: three at least, and three are enough."""
    place = tmp_path / "data.npz"
    labels = np.array([names[0]] * 9 + [names[1]] * n_rare)
    np.savez(place, x=np.arange(len(labels) * 2.0).reshape(-1, 2), y=labels)
    assert f"{place}: y must have every class at least three times, to train on, to validate on and to test with, " in (
        said := fault(f"npz:{place}")
    )
    assert said.endswith(f"but {names[1]} is there {often}.")
    labels = np.array([names[0]] * 9 + [names[1]] * 3)
    np.savez(place, x=np.arange(24.0).reshape(-1, 2), y=labels)
    dataset = read(f"npz:{place}", test_share=0.9)
    assert (np.bincount(dataset.train_labels).tolist(), np.bincount(dataset.test_labels).tolist()) == ([2, 2], [7, 1])


def test_a_share_goes_with_data_without_a_test(tmp_path: Path) -> None:
    """Where there is a test it would say nothing."""
    said = fault(write_npz(tmp_path), test_share=0.2)
    assert said.startswith("data.test_share must go with data without a test set, but ")
    assert said.endswith("data.npz has one; remove the key.")


def test_a_file_that_cannot_be_unpacked_is_said(tmp_path: Path) -> None:
    """For want of a password, or packed as nobody here can unpack it."""
    source = write_npz(tmp_path)
    place = Path(source.removeprefix("npz:"))
    content = place.read_bytes()
    for at, value, words in ((6, b"\1", "password"), (8, b"\x63", "compression")):
        spoiled_file = bytearray(content)
        for head, offset in ((b"PK\3\4", at), (b"PK\1\2", at + 2)):  # of each array, and in the list at the end
            begin = spoiled_file.find(head)
            while begin >= 0:
                spoiled_file[begin + offset : begin + offset + 1] = value
                begin = spoiled_file.find(head, begin + 1)
        place.write_bytes(spoiled_file)
        said = fault(source)
        assert "must be a file as numpy.savez writes it, of numbers and texts, but cannot be read: " in said
        assert words in said


def test_files_that_are_no_arrays_are_said(tmp_path: Path) -> None:
    """Missing, of text, of Python's objects, or with other names."""
    place = tmp_path / "data.npz"
    assert f"must name an .npz file, but there is no {place}" in fault(f"npz:{place}")
    place.write_text("hello")
    assert "must be a file as numpy.savez writes it" in fault(f"npz:{place}")
    np.savez(place, x=np.zeros((4, 2)), y=np.array(["a", "b", "a", "b"], dtype=object))
    assert "y must be numbers or texts, but holds Python objects, as pandas keeps texts;" in fault(f"npz:{place}")
    np.savez(place, images=pictures(2))
    assert "must hold x_train, y_train, x_test, y_test, or x and y, but holds images" in fault(f"npz:{place}")


def test_what_would_not_fit_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the arrays are read, with both sizes."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Free", (), {"available": 1000}))
    write_idx(tmp_path)
    for source in (write_npz(tmp_path), f"idx:{tmp_path}"):
        assert "must fit in the memory twice, but takes 0.0 MiB, and 0.0 MiB are free" in fault(source)
