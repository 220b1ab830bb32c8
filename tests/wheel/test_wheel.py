"""The installed wheel, on its own: run by tests/wheel/run in a folder that has nothing of the source.

Under the name that pytest collects, but skipped in a checkout, where the package is not an installed one.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import files, version
from pathlib import Path

import pytest

PACKAGE = "fmnist_optuna"
COMMAND = Path(sys.executable).with_name("fmnist-optuna")
TIMEOUT_SECONDS = 120.0

STUDY = """\
name = "wheel"
data = {source = "synthetic"}
grid = {hidden_size = [8], dropout_rate = [0.2], learning_rate = [0.01, 0.001]}
training = {max_epochs = 1}
pruner = {name = "none"}
"""

MODEL = """\
import keras


def tiny(units: int, learning_rate: float) -> keras.Model:
    layers = [keras.Input((28, 28), dtype="uint8"), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(units), keras.layers.Dense(10, activation="softmax")])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    return model
"""

OWN_STUDY = """\
name = "own"
data = {source = "synthetic"}
model = {architecture = "own_model:tiny"}
grid = {units = [4], learning_rate = [0.01]}
"""


def is_installed() -> bool:
    """Whether the package comes from an installed wheel and not from a checkout."""
    import fmnist_optuna

    return "site-packages" in Path(fmnist_optuna.__file__).parts


pytestmark = pytest.mark.skipif(not is_installed(), reason="run by tests/wheel/run, with the wheel installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with two study files, in which a study of two cells is finished."""
    folder = tmp_path_factory.mktemp("study")
    for name, text in (("study.toml", STUDY), ("own_model.py", MODEL), ("own.toml", OWN_STUDY)):
        (folder / name).write_text(text)
    run(folder, "run", "study.toml", "--workers", "2")
    return folder


def run(folder: Path, *arguments: str) -> str:
    """What a command prints; it must end with exit status 0."""
    removed = ("FMNIST_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    done = subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_what_the_program_reads() -> None:
    """The types marker and the page's template are there, and no test, benchmark or document is."""
    names = {str(file) for file in files("fmnist-optuna") or ()}
    assert f"{PACKAGE}/py.typed" in names
    assert any(name.endswith(".html.jinja") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if top.endswith(".dist-info") or top in (PACKAGE, "..")} == tops


def test_the_version_is_that_of_the_wheel(folder: Path) -> None:
    """The command and the metadata say the same."""
    assert run(folder, "--version") == f"fmnist-optuna {version('fmnist-optuna')}\n"


def test_a_study_is_trained_and_verified(folder: Path) -> None:
    """Every cell has exactly one result."""
    answer = json.loads(run(folder, "verify", "--json"))
    assert (answer["ok"], answer["cells"], answer["results"]) == (True, 2, 2)


def test_a_winner_is_tested_and_exported(folder: Path) -> None:
    """The exported model gave the recorded answers in a process with TensorFlow alone."""
    best = json.loads(run(folder, "best", "--json"))
    exported = json.loads(run(folder, "export", "--json"))
    assert exported["trial"] == best["trial"]
    assert exported["test_accuracy"] == best["test_accuracy"]
    assert exported["parity"]["max_difference"] <= 1e-6


def test_the_report_is_written(folder: Path) -> None:
    """Its template and the figures' library are found."""
    run(folder, "report")
    assert "<html" in (folder / "wheel-report.html").read_text()


def test_a_model_of_ones_own_is_found(folder: Path) -> None:
    """A module beside the study file is imported."""
    answer = json.loads(run(folder, "spec", "check", "own.toml", "--json"))
    assert (answer["ok"], answer["cells"]) == (True, 1)


def test_postgres_driver_and_dashboard_import(folder: Path) -> None:
    """What is imported late is installed too."""
    code = "import psycopg, optuna_dashboard, waitress, fmnist_optuna.pages.dashboard"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=TIMEOUT_SECONDS)
