"""Functions that make callbacks: what they are told, and where their callbacks may write."""

from pathlib import Path

import pytest
from users_modules import PLAIN, MakeModule, make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.training.callbacks import CallbackArguments, make_callbacks
from fmnist_optuna.training.user_code import UserCode

pytestmark = pytest.mark.usefixtures("one_thread", "settings_set_back")

CALLBACKS = (
    PLAIN
    + """
from keras.callbacks import BackupAndRestore, CSVLogger, ModelCheckpoint, TensorBoard

asked = []

def net():
    return compiled(head())
def log(trial, params, *, folder):
    asked.append((trial, dict(params), sorted(folder.iterdir())))
    params.clear()
    return [CSVLogger(folder / "log.csv"), BackupAndRestore(folder / "kept"), ModelCheckpoint(f"{folder}/best.keras")]
class Logger(CSVLogger):
    def __init__(self, folder, separator=";"):
        super().__init__(folder / "log.csv", separator)
def backup():
    return BackupAndRestore("backup")
def logger():
    return CSVLogger("log.csv", append=True)
class Best(ModelCheckpoint):
    def __init__(self):
        super().__init__("best-{epoch}.keras")
def numbered(trial):
    return ModelCheckpoint(f"/somewhere/{trial}.weights.h5", save_weights_only=True)
def beside(folder):
    return BackupAndRestore(folder / ".." / "backup")
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an attempt."""
    path = tmp_path / "attempt"
    path.mkdir()
    return path


def test_function_is_told_what_it_asks_for(make_module: MakeModule, folder: Path) -> None:
    """Number of the trial, parameters and an empty folder by name; a class may be named like a function."""
    code = UserCode(
        make_spec(make_module("user_callbacks", CALLBACKS), ("log", "Logger"), training_seed=[7]), FASHION_MNIST
    )
    params = {"training_seed": 7}
    made = make_callbacks(code.callbacks, CallbackArguments(3, params, folder))
    names = [type(callback).__name__ for callback in made]
    assert names == ["CSVLogger", "BackupAndRestore", "ModelCheckpoint", "Logger"]
    assert code.architecture.function.__globals__["asked"] == [(3, {"training_seed": 7}, [])]
    assert params == {"training_seed": 7}


@pytest.mark.parametrize(
    ("function", "kind", "path", "does", "name"),
    [
        ("backup", "BackupAndRestore", "backup_dir 'backup'", "go on from", "backup"),
        ("logger", "CSVLogger", "filename 'log.csv'", "write to", "log.csv"),
        ("Best", "Best", "filepath 'best-{epoch}.keras'", "write to", "best-{epoch}.keras"),
        ("numbered", "ModelCheckpoint", "filepath '/somewhere/3.weights.h5'", "write to", "3.weights.h5"),
        ("beside", "BackupAndRestore", "backup_dir '{folder}/../backup'", "go on from", "backup"),
    ],
    ids=lambda value: value if value.isalpha() else "",
)
def test_files_outside_the_attempt_are_refused(
    make_module: MakeModule, folder: Path, function: str, kind: str, path: str, does: str, name: str
) -> None:
    """What another attempt would overwrite, or go on from, is refused with the path and the remedy."""
    code = UserCode(make_spec(make_module("user_callbacks", CALLBACKS), (function,), training_seed=[7]), FASHION_MNIST)
    with pytest.raises(SpecError) as caught:
        make_callbacks(code.callbacks, CallbackArguments(3, {}, folder))
    assert str(caught.value) == (
        f"training.callbacks must write into the folder of their own attempt, but user_callbacks:{function} returned "
        f"{kind} with {path.replace('{folder}', str(folder))}, which another attempt would {does} too; let the "
        f"function take the folder, def {function}(folder), and use folder / '{name}'."
    )
