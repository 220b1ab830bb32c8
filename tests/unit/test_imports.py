"""The house: who may import whom, read from the source; and what must never load TensorFlow."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import fmnist_optuna

PACKAGE = Path(fmnist_optuna.__file__).parent
# The floors from the ground up: a room imports from the floors below its own, never from its own floor or above.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "json_value", "origins", "__init__"),
    ("log",),
    ("settings", "wording", "durable"),
    ("processes",),
    ("search",),
    ("spec",),
    ("data", "artifacts"),
    ("ledger",),
    ("bridge", "user_modules"),
    ("study", "training"),
    ("work",),
    ("results",),
    ("export",),
    ("pages",),
    ("running",),
    ("confirming",),
    ("api",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
KERAS = {"tensorflow", "keras"}
KERAS_ROOMS = (
    *("training/", "user_modules/", "export/"),
    *("work/objective.py", "results/scoring.py", "results/reproduction.py"),
)
# What a room must not know, within functions neither.
UNKNOWN = {
    "search": KERAS | {"optuna", "sqlalchemy"},
    "spec": KERAS | {"optuna", "sqlalchemy"},
    "processes": KERAS | {"optuna", "sqlalchemy"},
    "data": KERAS | {"optuna", "sqlalchemy"},
    "user_modules": {"optuna", "sqlalchemy"},
    "training": {"optuna", "sqlalchemy"},
    "ledger": KERAS | {"optuna"},
    "bridge": KERAS,
    "study": KERAS,
    "pages": KERAS,
    "cli": KERAS | {"optuna", "sqlalchemy"},
}
ROOT = "fmnist_optuna"
BRIDGE = "bridge"  # the room that may reach into Optuna's private parts
PUBLIC = "__init__.py"  # loads the names that it offers when they are used


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


@pytest.mark.parametrize("module", [module for module in modules() if module != PUBLIC])
def test_imports_go_downward_only(module: str) -> None:
    """From the command line down to the errors, as `FLOORS` has it."""
    room = room_of(module)
    upward = [
        f"{module}:{line} imports {name}"
        for line, name in imports_of(module)
        if name.split(".")[0] == ROOT
        and (target := name.split(".")[1]) not in (room, "__version__")
        and FLOOR_OF[target] >= FLOOR_OF[room]
    ]
    assert upward == []


def test_importing_the_package_loads_nothing() -> None:
    """Its public names come with their first use, and each of them is there."""
    code = (
        "import sys, fmnist_optuna as package; "
        "print([name for name in sys.modules if name.startswith('fmnist_optuna.') or name in ('pydantic', 'rich')]); "
        "print([name for name in package.__all__ if getattr(package, name).__name__ != name])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n[]\n"


def test_every_room_has_a_floor() -> None:
    """A new room is put into its place, and one that went leaves the table."""
    assert {room_of(module) for module in modules()} == set(FLOOR_OF)


@pytest.mark.parametrize("module", modules())
def test_keras_is_imported_only_where_models_are(module: str) -> None:
    """Where they are made, trained, scored and exported."""
    found = [f"{module}:{line} imports {name}" for line, name in imports_of(module) if name.split(".")[0] in KERAS]
    assert not found or module.startswith(KERAS_ROOMS), found


@pytest.mark.parametrize("room", UNKNOWN)
def test_a_room_knows_its_trade_only(room: str) -> None:
    """Training knows no Optuna and no database, the ledger neither Keras nor Optuna, data no Keras."""
    found = [
        f"{module}:{line} imports {name}"
        for module in modules()
        if room_of(module) == room
        for line, name in imports_of(module)
        if name.split(".")[0] in UNKNOWN[room]
    ]
    assert found == []


def test_nobody_else_knows_of_waiting_for_the_database() -> None:
    """What waits is marked `retrying` where it is written; patience itself is for the ledger and Optuna's storage.

    (`training` and the study file have a patience of their own: epochs without a better result.)
    """
    found = [
        f"{module}:{node.lineno} asks for the patience"
        for module in modules()
        if room_of(module) not in ("ledger", BRIDGE, "training", "spec")
        for node in ast.walk(ast.parse((PACKAGE / module).read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "patience"
    ]
    assert found == []


def private_names(files: Iterable[Path]) -> set[str]:
    """Names with one underscore that the classes of some modules define, as methods or fields."""
    text = "\n".join(file.read_text() for file in files)
    return set(re.findall(r"(?:\bself\.|^ +def |^    (?=_\w+\s*[:=]))(_[a-z]\w*)", text, re.MULTILINE))


def test_private_parts_of_optuna_are_for_the_bridge() -> None:
    """Elsewhere nobody reads a private attribute of its trials, studies and storages, or imports a private module."""
    spec = importlib.util.find_spec("optuna")
    assert spec is not None
    assert spec.origin is not None
    elsewhere = [module for module in modules() if room_of(module) != BRIDGE]
    own = private_names(PACKAGE / module for module in elsewhere)
    names = private_names(Path(spec.origin).parent.rglob("*.py")) - own
    assert {"_trial_id", "_study_id", "_storage", "_backend", "_get_trials"} <= names
    found = [
        f"{module}:{node.lineno} reaches for {node.attr}"
        for module in elsewhere
        for node in ast.walk(ast.parse((PACKAGE / module).read_text()))
        if isinstance(node, ast.Attribute) and node.attr in names
    ]
    found += [
        f"{module}:{line} imports {name}"
        for module in elsewhere
        for line, name in imports_of(module)
        if name.startswith("optuna.") and "._" in name
    ]
    assert found == []


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after a statement."""
    script = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_reading_a_study_loads_neither_tensorflow_nor_optuna() -> None:
    """`status` and `best` start at once."""
    names = ("ledger.progress", "ledger.storage", "study.studies")
    loaded = loaded_by("; ".join(f"import fmnist_optuna.{name}" for name in names))
    assert not loaded & (KERAS | {"optuna"})


def test_running_a_study_does_not_load_tensorflow_here() -> None:
    """The process of `run` only supervises; its workers train."""
    assert not loaded_by("import fmnist_optuna.running.study") & KERAS


def test_the_unit_tests_do_not_load_tensorflow() -> None:
    """The whole folder stays a matter of seconds: importing every module of it loads no Keras."""
    folder = Path(__file__).parent
    names = ", ".join(path.stem for path in sorted(folder.glob("test_*.py")))
    assert not loaded_by(f"sys.path[:0] = [{str(folder)!r}, {str(folder.parent)!r}]\nimport {names}") & KERAS
