"""Two public data sets of other shapes, to the end: trained, exported, and served where nothing of the project is.

The other environment has TensorFlow, NumPy and what these need, by links to what is installed here, and no other
package. It reads the same files by itself, and gives what `predict` gives here.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import Shell
from sklearn.datasets import load_breast_cancer, load_sample_images

pytestmark = pytest.mark.slow

SIDE = 32  # pixels of a tile
TOLERANCE = 1e-5  # of a probability
ABSENT = ("fmnist_optuna", "optuna", "sqlalchemy", "PIL", "sklearn")

# Asked for pictures it decodes them, asked for a table it reads it: as somebody would who has the folder alone.
SERVE = """
import importlib.util, json, sys
import numpy as np
import tensorflow as tf

absent = json.loads(sys.argv[1])
assert [name for name in absent if importlib.util.find_spec(name)] == []
serve = tf.saved_model.load(sys.argv[2]).signatures["serving_default"]


def read(file):
    if file.endswith(".npy"):
        return np.load(file)
    if file.endswith(".csv"):
        return np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.float32, ndmin=2)
    return tf.io.decode_png(tf.io.read_file(file))[None]


answers = []
for file in json.load(sys.stdin):
    answer = serve(image=tf.constant(read(file)))
    labels = [label.decode() for label in answer["label"].numpy()]
    answers += zip(labels, answer["probabilities"].numpy().tolist())
print(json.dumps(answers))
"""

TILES = """\
name = "tiles"
data = {source = "folder:tiles", n_validation = 80}
model = {architecture = "conv", width_1 = 8, width_2 = 16, width_3 = 16}
grid = {dropout_rate = [0.0, 0.3], learning_rate = [0.01, 0.003]}
training = {max_epochs = 8}
"""
TUMOURS = """\
name = "tumours"
data = {source = "npz:tumours.npz", n_validation = 90}
grid = {hidden_size = [16], dropout_rate = [0.2], learning_rate = [0.01, 0.001]}
training = {max_epochs = 30}
"""


@dataclass(frozen=True)
class Case:
    """A data set: its study, what is asked in the end, and which answers are right.

    Args:
        study: The study file.
        files: What is predicted; of all test images in their order, unless a file holds several.
        labels: The right answers, one a row or picture.
    """

    study: str
    files: list[str]
    labels: list[str]


def write_tiles(folder: Path) -> Case:
    """Colour tiles of 32 x 32 pixels of scikit-learn's two photographs; every fourth is for the test."""
    files, labels = [], []
    for name, photograph in zip(("china", "flower"), load_sample_images().images, strict=True):
        n_rows, n_columns = (n // SIDE for n in photograph.shape[:2])
        for row, column in np.ndindex(n_rows, n_columns):
            role = "train" if (row + column) % 4 else "test"
            file = folder / "tiles" / role / name / f"{row:02}-{column:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            top, left = row * SIDE, column * SIDE
            Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]).save(file)
            if role == "test":
                files.append(str(file.relative_to(folder)))
                labels.append(name)
    return Case(TILES, files, labels)


def write_tumours(folder: Path) -> Case:
    """569 rows of 30 features; the last 113 are for the test, once as .csv with names above them, once as .npy."""
    found = load_breast_cancer()
    rows, labels = found.data.astype(np.float32), found.target_names[found.target]
    known, asked = slice(None, -113), slice(-113, None)
    arrays = {"x_train": rows[known], "y_train": labels[known], "x_test": rows[asked], "y_test": labels[asked]}
    np.savez(folder / "tumours.npz", **arrays)
    np.save(folder / "rows.npy", rows[asked])
    np.savetxt(folder / "rows.csv", rows[asked], "%.9g", ",", header=",".join(found.feature_names), comments="")
    return Case(TUMOURS, ["rows.csv", "rows.npy"], labels[asked].tolist() * 2)


def requirements(name: str, seen: set[str]) -> Iterator[str]:
    """A distribution that is installed and all that it needs, extras left out."""
    try:
        found = distribution(name)
    except PackageNotFoundError:  # for other systems
        return
    if found.name in seen:
        return
    seen.add(found.name)
    yield found.name
    for line in found.requires or ():
        if "extra ==" not in line:
            yield from requirements(re.split(r"[^\w.-]", line, maxsplit=1)[0], seen)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with TensorFlow and NumPy alone."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in requirements("tensorflow", set()):
        found = distribution(name)
        for part in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (packages / part).exists():  # a namespace that several share
                (packages / part).symlink_to(str(found.locate_file(part)))
    return folder / "bin" / "python"


@pytest.mark.parametrize("write", [write_tiles, write_tumours], ids=["colour pictures", "features"])
def test_it_is_served_where_the_project_is_not(shell: Shell, bare_python: Path, write: Callable[[Path], Case]) -> None:
    """Labels are those of `predict`, probabilities within 1e-5, and as many are right as the study says."""
    case = write(shell.folder)
    shell.write("study.toml", case.study)
    ran = shell("run", "study.toml", "--workers", "2", "--json")
    assert ran.code == 0, ran.stderr
    exported = shell("export", "--json").json
    here = shell("predict", exported["folder"], *case.files, "--json").json
    command = [bare_python, "-c", SERVE, json.dumps(ABSENT), exported["folder"]]
    done = subprocess.run(
        command, cwd=shell.folder, env=shell.environment, input=json.dumps(case.files),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    there = json.loads(done.stdout)
    assert (len(here["images"]), here["errors"]) == (len(case.labels), [])
    for answer, (label, probabilities) in zip(here["images"], there, strict=True):
        assert answer["label"] == label
        expected = dict(zip(exported["labels"], probabilities, strict=True))
        assert {each["label"]: each["probability"] for each in answer["top"]} == pytest.approx(expected, abs=TOLERANCE)
    right = [label == true for (label, _), true in zip(there, case.labels, strict=True)]
    assert np.mean(right) == pytest.approx(ran.json["test_accuracy"], abs=1e-9)
