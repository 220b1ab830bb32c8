"""Data of one's own that nobody can train on: one clear line for each, and nothing is made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shell import Shell

pytestmark = pytest.mark.more

STUDY = """
data = {{source = "{source}", n_validation = 8}}
grid = {{hidden_size = [4], dropout_rate = [0.2], learning_rate = [0.01]}}
"""
MODULE = """
import keras
import numpy as np

ROWS, LABELS = np.arange(120.0).reshape(40, 3), np.arange(40) % 2

def lists():
    return {"x": ROWS.tolist(), "y": LABELS.tolist()}

def generated():
    yield ROWS

def three():
    return ROWS, LABELS, ROWS

def of_three_classes():
    return {"x": ROWS, "y": np.arange(40) % 3}

def of_two(learning_rate: float):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    return model
"""
ROWS, LABELS = np.arange(120.0).reshape(40, 3), np.arange(40) % 2
Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A source that is refused.

    Args:
        source: As the study file names it.
        words: Of the one line.
        prepare: Makes what is there, in the current folder.
        code: Exit status.
        more: Further lines of the study file.
    """

    source: str
    words: str
    prepare: Prepare = lambda folder: None
    code: int = 4
    more: str = field(default="")


def pictures(**n_of_class: int) -> Prepare:
    """A folder of grey pictures of noise."""

    def prepare(folder: Path) -> None:
        for name, n_pictures in n_of_class.items():
            (folder / "pets" / name).mkdir(parents=True)
            for number in range(n_pictures):
                pixels = np.random.default_rng([len(name), number]).integers(0, 256, (6, 6), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pets" / name / f"{number}.png")

    return prepare


def both(*steps: Prepare) -> Prepare:
    """One after the other."""
    return lambda folder: [step(folder) for step in steps]


def arrays(**changes: Any) -> Prepare:
    """A table of two classes in which something is wrong."""
    right = {"x_train": ROWS, "y_train": LABELS, "x_test": ROWS[:10] + 0.5, "y_test": LABELS[:10]}
    return lambda folder: np.savez(folder / "a.npz", **{**right, **changes})


def write_large(folder: Path) -> None:
    Image.new("L", (9, 9)).save(folder / "pets" / "dog" / "large.png")


def spoiled() -> np.ndarray:
    rows = ROWS.copy()
    rows[3, 1] = np.nan
    return rows


CASES = {
    "one class": Case("folder:pets", "must be of 2 to 65,535 classes, but are all cat", pictures(cat=9)),
    "an empty class": Case(
        "folder:pets", "must hold pictures of the class dog, but holds none", pictures(cat=9, dog=0)
    ),
    "no picture": Case(
        "folder:pets",
        "note.png cannot be read",
        both(pictures(cat=9, dog=9), lambda folder: (folder / "pets" / "dog" / "note.png").write_text("x")),
    ),
    "several sizes": Case(
        "folder:pets", "large.png of 9 x 9; give data.size", both(pictures(cat=9, dog=9), write_large)
    ),
    "no folder": Case("folder:pets", "must name files that are there, but of folder:pets there is neither"),
    "not a number": Case(
        "npz:a.npz", "x_train must hold finite numbers, as float32, but the row 3", arrays(x_train=spoiled())
    ),
    "labels from 1": Case("npz:a.npz", "must go from 0 on, but go from 1 to 2; take 1 off", arrays(y_train=LABELS + 1)),
    "a test that is trained on": Case("npz:a.npz", "10 of 10 test rows are among those", arrays(x_test=ROWS[:10])),
    "a label of the test alone": Case("npz:a.npz", "0 to 1, but 2 is not", arrays(y_test=np.arange(10) % 3)),
    "shapes that differ": Case(
        "npz:a.npz", "x_test must have the shape (n, 3) of x_train", arrays(x_test=np.ones((10, 2)))
    ),
    "lists": Case("bad_data:lists", "bad_data:lists: x must be a NumPy array, but got list"),
    "a generator": Case("bad_data:generated", "but bad_data:generated returned a generator"),
    "three values": Case("bad_data:three", "but bad_data:three returned a tuple of 3"),
    "more classes than outputs": Case(
        "bad_data:of_three_classes",
        "must take float32 images (n, 3) and give (n, 3), but bad_data:of_two gives (n, 2)",
        code=2,
        more='model = {architecture = "bad_data:of_two"}\n',
    ),
    "conv of no pictures": Case(
        "npz:a.npz",
        "the data must be pictures, but is rows of 3 numbers; take the architecture dense",
        arrays(),
        code=2,
        more='model = {architecture = "conv"}\n',
    ),
    "a shift of no pictures": Case(
        "npz:a.npz",
        "horizontal_flip, shift and erase must be for pictures, but the data is rows of 3 numbers",
        arrays(),
        code=2,
        more="augment = {shift = 1}\n",
    ),
    "a mirror of no pictures": Case(
        "npz:a.npz",
        "confirm.flip must be for pictures, but the data is rows of 3 numbers",
        arrays(),
        code=2,
        more="confirm = {flip = true}\n",
    ),
    "no data of Keras": Case("keras:cifar10", "cifar10 must be in the cache of Keras, but"),
}


@pytest.mark.parametrize("name", list(CASES))
def test_bad_data_is_one_line_and_makes_nothing(shell: Shell, name: str) -> None:
    """The command is `run`: neither a storage nor anything else appears."""
    case = CASES[name]
    shell.write("bad_data.py", MODULE)
    grid = STUDY.format(source=case.source)
    if "architecture" in case.more:
        grid = grid.replace("hidden_size = [4], dropout_rate = [0.2], ", "")
    shell.write("bad.toml", case.more + grid)
    case.prepare(shell.folder)
    before = shell.files()
    answer = shell("run", "bad.toml")
    assert (answer.code, answer.stdout, len(answer.errors)) == (case.code, "", 1), answer
    assert case.words in answer.errors[0]
    assert {path for path in shell.files() - before if not path.startswith(("home", "__pycache__"))} == set()
