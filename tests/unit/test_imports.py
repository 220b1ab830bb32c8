"""The house: who may import whom, read from the source; and what must never load TensorFlow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmnist_optuna

PACKAGE = Path(fmnist_optuna.__file__).parent
COMMON = {"grid", "settings", "errors", "log", "wording"}
SPEC = {"spec", "code"} | COMMON
RESULTS = {"work", "learning", "study"} | SPEC
ALLOWED: dict[str, set[str]] = {  # room -> rooms that it may import, itself aside
    "errors": set(),
    "origins": set(),
    "wording": {"origins"},
    "log": set(),
    "cores": set(),
    "settings": {"errors"},
    "grid": COMMON - {"grid"},
    "code": {"grid", "errors"},
    "spec": COMMON,
    "learning": SPEC | {"origins"},
    "study": SPEC,
    "work": RESULTS - {"work"},
    "results": RESULTS,
    "run": RESULTS | {"results"},
    "confirm": RESULTS | {"results", "run"},
    "cli": RESULTS | {"results", "run", "confirm", "cores"},
    "__init__": set(),
    "__main__": {"cli"},
}
KERAS = {"tensorflow", "keras"}
KERAS_ROOMS = ("learning/", "results/", "work/trial.py")
ROOT = "fmnist_optuna"


def modules() -> list[str]:
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def imports_of(module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of a module, those within functions too."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} must import by its full name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("module", modules())
def test_imports_go_downward_only(module: str) -> None:
    """cli -> confirm -> run -> results -> work -> learning | study -> spec, grid -> settings, errors, log."""
    room = room_of(module)
    upward = [
        f"{module}:{line} imports {name}"
        for line, name in imports_of(module)
        if name.split(".")[0] == ROOT
        and (target := name.split(".")[1]) not in (room, "__version__")
        and target not in ALLOWED[room]
    ]
    assert upward == []


@pytest.mark.parametrize("module", modules())
def test_keras_is_imported_only_where_models_are_made(module: str) -> None:
    """learning/, results/ and work/trial.py."""
    found = [f"{module}:{line} imports {name}" for line, name in imports_of(module) if name.split(".")[0] in KERAS]
    assert not found or module.startswith(KERAS_ROOMS), found


@pytest.mark.parametrize("module", [module for module in modules() if module.startswith("learning/")])
def test_learning_knows_no_optuna_and_no_database(module: str) -> None:
    """The Keras side could be used without a study."""
    assert not {name.split(".")[0] for _, name in imports_of(module)} & {"optuna", "sqlalchemy"}


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after a statement."""
    script = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_reading_a_study_loads_neither_tensorflow_nor_optuna() -> None:
    """`status` and `best` start at once."""
    names = ("history", "storage", "studies")
    loaded = loaded_by("; ".join(f"import fmnist_optuna.study.{name}" for name in names))
    assert not loaded & (KERAS | {"optuna"})


def test_running_a_study_does_not_load_tensorflow_here() -> None:
    """The process of `run` only supervises; its workers train."""
    assert not loaded_by("import fmnist_optuna.run") & KERAS


def test_the_unit_tests_do_not_load_tensorflow() -> None:
    """The whole folder stays a matter of seconds: importing every module of it loads no Keras."""
    folder = Path(__file__).parent
    names = ", ".join(path.stem for path in sorted(folder.glob("test_*.py")))
    assert not loaded_by(f"sys.path[:0] = [{str(folder)!r}, {str(folder.parent)!r}]\nimport {names}") & KERAS
