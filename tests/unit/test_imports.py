"""The house: who may import whom, read from the source; and what must never load TensorFlow."""

import ast
import functools
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from optuna.storages._rdb.models import BaseModel

import fmnist_optuna

PACKAGE = Path(fmnist_optuna.__file__).parent
# The floors from the ground up: a room imports from the floors below its own, never from its own floor or above.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("statuses",),
    ("errors", "json_value", "origins", "__init__"),
    ("log", "wording"),
    ("settings", "described_errors", "durable", "arguments"),
    ("processes",),
    ("events", "search"),
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
SERVING = "processes/serving.py"  # the server of all children heeds a variable as the first thing that it does
TRANSACTIONS = {"read", "write", "single", "begin", "connect"}  # of an open storage, or of its engine
# The storage itself, and the tables: an outage while a storage is opened is said at once, in our words.
# The last is Optuna's own storage, for which `PatientStorage` waits.
WITHOUT_WAITING = ("ledger/storage.py", "ledger/schema.py", "bridge/postgres.py")
READ = {"environ", "getenv", "cwd", "getcwd", "home", "monotonic", "perf_counter", "isatty", "stdout", "stderr", "argv"}
UNIT = Path(__file__).parent
PUBLIC = "__init__.py"  # loads the names that it offers when they are used


def modules() -> list[str]:
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@functools.cache
def tree_of(module: str) -> ast.Module:
    """The source of a module."""
    return ast.parse((PACKAGE / module).read_text())


@functools.cache
def nodes_of(module: str) -> tuple[ast.AST, ...]:
    """What the source of a module consists of."""
    return tuple(ast.walk(tree_of(module)))


def imports_of(module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of a module, those within functions too."""
    for node in nodes_of(module):
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


def reads_at_import(node: ast.AST) -> Iterator[int]:
    """Lines outside functions that reach for the environment, the current folder, a clock or a standard stream."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Attribute) and child.attr in READ:
            yield child.lineno
        is_run = isinstance(child, ast.If) and "__name__" in ast.dump(child.test)  # as a program, not imported
        if not is_run and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from reads_at_import(child)


@pytest.mark.parametrize("module", [module for module in modules() if module != SERVING])
def test_a_module_reads_nothing_when_it_is_imported(module: str) -> None:
    """Its functions do, each time: a program may set a variable or change its folder after the import."""
    assert list(reads_at_import(tree_of(module))) == []


def test_nobody_else_knows_of_waiting_for_the_database() -> None:
    """What waits is marked `retrying` where it is written; patience itself is for the ledger and Optuna's storage.

    (`training` and the study file have a patience of their own: epochs without a better result.)
    """
    found = [
        f"{module}:{node.lineno} asks for the patience"
        for module in modules()
        if room_of(module) not in ("ledger", BRIDGE, "training", "spec")
        for node in nodes_of(module)
        if isinstance(node, ast.Attribute) and node.attr == "patience"
    ]
    assert found == []


def opens_transaction(node: ast.AST) -> bool:
    """`storage.read()`, `self.storage.write()`, `engine.begin()` and the like."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TRANSACTIONS):
        return False
    owner = node.func.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name in ("storage", "engine")


@functools.cache
def called_by(function: ast.FunctionDef) -> frozenset[str]:
    """Names of the functions and methods that a function calls."""
    called = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return frozenset(
        target.attr if isinstance(target, ast.Attribute) else target.id
        for target in called
        if isinstance(target, ast.Attribute | ast.Name)
    )


def test_whoever_opens_a_transaction_waits_for_the_database() -> None:
    """Each function that does is `retrying`, or is called by such ones alone: a restart of Postgres ends no command."""
    functions = [
        (module, node) for module in modules() for node in nodes_of(module) if isinstance(node, ast.FunctionDef)
    ]

    def waits(function: ast.FunctionDef) -> bool:
        if any(isinstance(each, ast.Name) and each.id == "retrying" for each in function.decorator_list):
            return True
        callers = [each for _, each in functions if each is not function and function.name in called_by(each)]
        return bool(callers) and all(map(waits, callers))

    opening = [
        (module, function)
        for module, function in functions
        if module not in WITHOUT_WAITING and any(map(opens_transaction, ast.walk(function)))
    ]
    assert ("ledger/cells.py", "_changes") in [(module, function.name) for module, function in opening]
    assert [f"{module}: {function.name}" for module, function in opening if not waits(function)] == []


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
        for node in nodes_of(module)
        if isinstance(node, ast.Attribute) and node.attr in names
    ]
    found += [
        f"{module}:{line} imports {name}"
        for module in elsewhere
        for line, name in imports_of(module)
        if name.startswith("optuna.") and "._" in name
    ]
    assert found == []


def test_the_ledger_names_no_table_of_optuna() -> None:
    """What is read of them without Optuna is for the bridge; a migration aside, which is of the past.

    ("studies" is the folder of our storages as well.)
    """
    names = "|".join(sorted(set(BaseModel.metadata.tables) - {"studies"}))
    assert "|trial_system_attributes|" in names
    in_sql = re.compile(rf"\b(FROM|JOIN|INTO|UPDATE) ({names})\b")
    found = [
        f"{module}:{node.lineno} names a table in {node.value!r}"
        for module in modules()
        if room_of(module) == "ledger" and "/migrations/" not in module
        for node in nodes_of(module)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(names, node.value) or in_sql.search(node.value)
    ]
    assert found == []


READING = ("ledger.progress", "ledger.storage", "bridge.foreign", "study.studies")
# What is imported one after another by one interpreter; each may load less than those after it.
STATEMENTS = {
    "the package": f"import {ROOT}",
    "reading": "; ".join(f"import {ROOT}.{name}" for name in READING),
    "running": f"import {ROOT}.running.study",
}
UNIT_TESTS = {
    "the unit tests": (
        f"sys.path[:0] = [{str(UNIT)!r}, {str(UNIT.parent)!r}]\n"
        f"import {', '.join(path.stem for path in sorted(UNIT.glob('test_*.py')))}"
    )
}


def load(statements: Mapping[str, str]) -> dict[str, list[str]]:
    """What a fresh interpreter has loaded after each statement."""
    steps = "".join(f"{statement}\nloaded[{name!r}] = list(sys.modules)\n" for name, statement in statements.items())
    script = f"import json, sys\nloaded = {{}}\n{steps}print(json.dumps(loaded))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded: dict[str, list[str]] = json.loads(done.stdout)
    return loaded


def packages(loaded: Iterable[str]) -> set[str]:
    """Top-level packages."""
    return {name.split(".")[0] for name in loaded}


@pytest.fixture(scope="module")
def fresh() -> dict[str, list[str]]:
    return load(STATEMENTS)


def test_importing_the_package_loads_nothing(fresh: dict[str, list[str]]) -> None:
    """Its public names come with their first use."""
    loaded = fresh["the package"]
    assert [name for name in loaded if name.startswith(f"{ROOT}.") or name in ("pydantic", "rich")] == []


def test_reading_a_study_loads_neither_tensorflow_nor_optuna(fresh: dict[str, list[str]]) -> None:
    """`status` and `best` start at once."""
    assert not packages(fresh["reading"]) & (KERAS | {"optuna"})


def test_running_a_study_does_not_load_tensorflow_here(fresh: dict[str, list[str]]) -> None:
    """The process of `run` only supervises; its workers train."""
    assert not packages(fresh["running"]) & KERAS


@pytest.mark.more
def test_the_unit_tests_do_not_load_tensorflow() -> None:
    """The whole folder stays a matter of seconds: importing every module of it loads no Keras."""
    assert not packages(load(UNIT_TESTS)["the unit tests"]) & KERAS
