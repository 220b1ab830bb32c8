"""Data of the user's own: a function that is called in a process of its own, and held to what it gave at first."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fmnist_optuna.errors import DataError, FmnistOptunaError, MismatchError, SpecError, UsageError
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.work.own_data import check_same, find_files, load_own, load_own_again, read_own

NOWHERE = Path()  # of data that is in no file

MakeModule = Callable[[str, str], str]

SOURCE = """
import random
import sys
from pathlib import Path

import numpy as np

from fmnist_optuna import Dataset, DatasetInfo

HAS_KERAS = f"with Keras: {'keras' in sys.modules}"
INFO = DatasetInfo("shapes", (6, 5), "float32", (0, 1), ("disc", "square"), description=HAS_KERAS)
LABELS = np.array([0, 1] * 10)

def images(n=20):
    return np.random.uniform(size=(n, 6, 5)).astype("float32")

def load():
    with Path("calls").open("a") as file:
        file.write("called\\n")
    return Dataset(INFO, images(), LABELS, images(4), LABELS[:4])

def unseeded():
    drawn = np.random.default_rng().uniform(size=(20, 6, 5)).astype("float32")
    return Dataset(INFO, drawn, LABELS, images(2), LABELS[:2])

def raising():
    raise OSError("no such share")

def leaving():
    sys.exit("no data today")

def of_another_form():
    return images(), LABELS

def of_doubles():
    return Dataset(INFO, images().astype("float64"), LABELS, images(4), LABELS[:4])

def spoiled_later():
    dataset = load()
    dataset.test_images[2] = np.nan
    return dataset

def with_arguments(path):
    return load()

def of_lists():
    return {"x": images().tolist(), "y": LABELS.tolist()}

def generated():
    yield from zip(images(), LABELS)

def three():
    return images(), LABELS, images(4)

def misnamed():
    return {"images": images(), "labels": LABELS}

def of_a_rare_class():
    labels = np.array(["no"] * 98 + ["yes"] * 2 + ["no", "yes"])
    images = np.random.uniform(size=(102, 3))
    return {"x_train": images[:100], "y_train": labels[:100], "x_test": images[100:], "y_test": labels[100:]}

def of_empty_names():
    return {"x": np.random.uniform(size=(20, 3)), "y": LABELS, "class_names": np.array(["", "b"])}

def of_arrays():
    return {"x": np.random.uniform(size=(20, 3)), "y": np.array(["no", "yes"] * 10)}
"""


def data_of(function: str, n_validation: int = 6, module: str = "user_data") -> DataSpec:
    return DataSpec(source=f"{module}:{function}", n_validation=n_validation)


@pytest.fixture(autouse=True)
def module(make_module: MakeModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The user's module, where this process and its children find it."""
    monkeypatch.chdir(tmp_path)
    return make_module("user_data", SOURCE)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (
            data_of("load", module="no_such_module"),
            SpecError,
            "data.source must name an importable module, but no_such",
        ),
        (
            data_of("missing"),
            SpecError,
            "data.source must name a function, but module user_data has no function missing",
        ),
        (data_of("raising"), DataError, "but user_data:raising raised OSError: no such share (user_data.py, line 27)."),
        (
            data_of("leaving"),
            DataError,
            "but user_data:leaving raised SystemExit: sys.exit('no data today') was called",
        ),
        (data_of("of_another_form"), DataError, "but user_data:of_another_form returned a tuple of 2."),
        (data_of("of_lists"), DataError, "user_data:of_lists: x must be a NumPy array, but got list"),
        (data_of("generated"), DataError, "but user_data:generated returned a generator."),
        (data_of("three"), DataError, "but user_data:three returned a tuple of 3."),
        (data_of("misnamed"), DataError, "or x and y, but holds images, labels."),
        (data_of("with_arguments"), DataError, "missing 1 required positional argument: 'path'"),
        (
            data_of("of_doubles"),
            DataError,
            "user_data:of_doubles gave another: Dataset.train_images must have the dtype float32 of the info, but has "
            "float64 (user_data.py, line 36).",
        ),
        (
            data_of("spoiled_later"),
            DataError,
            "Dataset.test_images must hold finite numbers, but the image 2 holds nan.",
        ),
        (
            data_of("load", 1_000),
            UsageError,
            "data.n_validation must be 2 to 18 for 20 training images of 2 classes, but",
        ),
    ],
)
def test_a_function_that_gives_no_data_is_refused(data: DataSpec, error: type[FmnistOptunaError], words: str) -> None:
    """In one line with the function's name, and the line of the user's code where there is one."""
    with pytest.raises(error) as caught:
        read_own(data, NOWHERE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_function_gave_is_mapped(tmp_path: Path) -> None:
    """From a process without Keras, whose random numbers begin anew; who has the data already does not call again."""
    again = load_own_again(data_of("load"))
    splits = load_own(data_of("load"))
    assert again.result() == splits.fingerprint
    assert (tmp_path / "calls").read_text() == "called\n" * 2
    assert splits.info.description == "with Keras: False"
    assert (len(splits.train_images), len(splits.validation_images), len(splits.test_images)) == (14, 6, 4)
    assert np.bincount(splits.validation_labels).tolist() == [3, 3]
    same = load_own(data_of("load"), splits.fingerprint)
    assert np.array_equal(same.test_images, splits.test_images)
    assert (tmp_path / "calls").read_text() == "called\n" * 2
    assert "user_data" not in sys.modules


def test_arrays_by_name_are_a_data_set() -> None:
    """Of features as of pictures, labels as texts; a share is kept out as the test."""
    splits = read_own(DataSpec(source="user_data:of_arrays", n_validation=4, test_share=0.2), NOWHERE)
    assert (splits.info.name, splits.info.class_names, splits.info.form) == (
        "of_arrays",
        ("no", "yes"),
        "float32 (n, 3)",
    )
    assert [len(splits.train_labels), len(splits.validation_labels), len(splits.test_labels)] == [12, 4, 4]


def test_a_rare_class_is_described_all_the_same() -> None:
    """Where no study file says how many validate, it is as many as it takes to have one of it."""
    splits = read_own(data_of("of_a_rare_class"), NOWHERE, is_split_given=False)
    assert np.bincount(splits.validation_labels).tolist() == [49, 1]
    with pytest.raises(UsageError, match=r"20 of 100 hold out none of the 2 of class 1 \(yes\); with 50 there is one"):
        read_own(data_of("of_a_rare_class", 20), NOWHERE)


def test_a_share_beside_a_data_set_is_refused() -> None:
    """A function that gives the test itself leaves nothing to keep out."""
    with pytest.raises(DataError, match=r"without a test set, but the Dataset of user_data:load has one; remove the"):
        read_own(DataSpec(source="user_data:load", n_validation=6, test_share=0.2), NOWHERE)


def test_what_is_said_of_classes_of_ours_names_the_source() -> None:
    """Names of classes are checked where nobody knows which file they are from."""
    with pytest.raises(DataError, match=r"^user_data:of_empty_names: DatasetInfo\.class_names must be texts"):
        read_own(data_of("of_empty_names"), NOWHERE)


def test_other_data_than_expected_is_refused(module: str) -> None:
    """Other bytes, or the same bytes with another meaning, have another fingerprint: both are in the refusal."""
    first = read_own(data_of("load", 8), NOWHERE).fingerprint
    source = Path(f"modules/{module}.py")
    source.write_text(SOURCE.replace('"disc", "square"', '"square", "disc"'))
    with pytest.raises(
        MismatchError, match=f"fingerprint {first}, but user_data:load gives other images, labels or info"
    ):
        load_own(data_of("load", 8), first)


def test_data_that_is_another_each_time_is_refused() -> None:
    """Before a study is made that nobody could go on with."""
    first, second = (read_own(data_of("unseeded"), NOWHERE).fingerprint for _ in range(2))
    with pytest.raises(DataError, match="must give the same data each time, but user_data:unseeded gave other images"):
        check_same(data_of("unseeded"), first, second)
    check_same(data_of("load"), first, first)


def test_files_are_looked_for_where_modules_are(tmp_path: Path) -> None:
    """In the current folder too; --data-dir comes first, for the whole place and for its name."""
    data, share = DataSpec(source="folder:pets"), tmp_path / "share"
    with pytest.raises(
        DataError, match=rf"of folder:pets there is neither .*{tmp_path}/pets; say in which folder it is"
    ):
        find_files(data, None)
    (share / "pets").mkdir(parents=True)
    assert find_files(data, share) == share / "pets"
    assert find_files(DataSpec(source="folder:/elsewhere/pets"), share) == share / "pets"
    (tmp_path / "pets").mkdir()
    assert find_files(data, None).samefile(tmp_path / "pets")
    assert find_files(data, share) == share / "pets"
    (share / "emnist-digits-train-images-idx3-ubyte").touch()
    assert find_files(DataSpec(source="idx:emnist-digits"), share) == share / "emnist-digits"
    assert find_files(DataSpec(source="keras:mnist"), share) == Path("mnist")
    with pytest.raises(DataError, match=r"--data-dir, or FMNIST_OPTUNA_DATA, must name a folder, but .*/none is none;"):
        find_files(data, tmp_path / "none")


def test_the_home_of_nobody_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a folder of that name, as a shell has it; one's own is found."""
    with pytest.raises(DataError, match=r"of npz:~nobody-at-all/a\.npz there is neither .*/~nobody-at-all/a\.npz;"):
        find_files(DataSpec(source="npz:~nobody-at-all/a.npz"), None)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.npz").touch()
    assert find_files(DataSpec(source="npz:~/a.npz"), None) == tmp_path / "a.npz"
