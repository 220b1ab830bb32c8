"""The table of exit statuses: whole, without doubles, and used by every error."""

import ast
import re
import signal
from pathlib import Path

import pytest

import fmnist_optuna
from fmnist_optuna import errors
from fmnist_optuna.errors import FmnistOptunaError, InterruptedBySignalError
from fmnist_optuna.statuses import OF_A_SIGNAL, Status, status_of_signal

PACKAGE = Path(fmnist_optuna.__file__).parent
ENDINGS = {"exit", "_exit", "SystemExit", "Exit"}  # what ends a process: of sys, os, Python and typer
# What is promised to whoever starts workers: this does not change.
PROMISED = {
    "DONE": (0, False),
    "FAILED": (1, True),
    "USAGE": (2, False),
    "NOT_FOUND": (3, False),
    "DATA": (4, False),
    "STORAGE": (5, True),
    "MISMATCH": (6, False),
    "STOPPED": (7, False),
    "HANDED_BACK": (75, True),
    "HUNG_UP": (129, True),
    "INTERRUPTED": (130, True),
    "QUIT": (131, True),
    "KILLED": (137, True),
    "TERMINATED": (143, True),
}


def test_the_statuses_are_those_that_are_promised() -> None:
    """Number, name, and whether a start anew may heal it; no number stands twice, as that would be one member."""
    assert {name: (int(each), each.is_healed_by_restart) for name, each in Status.__members__.items()} == PROMISED


@pytest.mark.parametrize("status", Status)
def test_a_status_says_what_it_means(status: Status) -> None:
    """In half a sentence that stands in a cell of a table."""
    assert status.meaning == status.meaning.strip(" .;")
    assert "|" not in status.meaning
    assert Status(int(status)) is status


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM])
def test_a_signal_has_the_status_that_shells_give_it(signum: signal.Signals) -> None:
    """128 and its number, which is in the table; the error that tells of it has the same."""
    status = Status(status_of_signal(signum))
    assert status == OF_A_SIGNAL + signum
    assert signum.name in status.meaning
    assert InterruptedBySignalError("", signum).exit_status == status


def test_every_error_has_a_status_of_the_table() -> None:
    """None of them stands for success."""
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, FmnistOptunaError)]
    statuses = {each.__name__: each.exit_status for each in found}
    assert len(statuses) >= 12
    assert [name for name, status in statuses.items() if not isinstance(status, Status) or not status] == []


def has_number_as_status(node: ast.AST) -> bool:
    """Whether it ends a process with a number, or sets an `exit_status` to one."""
    if isinstance(node, ast.Call):
        name, given = node.func, [*node.args, *(each.value for each in node.keywords)]
        called = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
        return called in ENDINGS and any(map(is_number, given))
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and is_number(node.value):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(getattr(each, "attr", getattr(each, "id", "")) == "exit_status" for each in targets)
    return False


def is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


@pytest.mark.parametrize(
    "source",
    [
        "sys.exit(3)",
        "os._exit(status=3)",
        "raise SystemExit(3)",
        "raise typer.Exit(code=3)",
        "class E:\n exit_status: int = 3",
    ],
)
def test_a_status_of_its_own_is_found(source: str) -> None:
    """However it is written; a name of the table is none."""
    assert any(map(has_number_as_status, ast.walk(ast.parse(source))))
    named = source.replace("3", "Status.DATA")
    assert not any(map(has_number_as_status, ast.walk(ast.parse(named))))


def test_no_other_module_has_a_status_of_its_own() -> None:
    """Whatever ends a command takes its number from the table; children without a parent end for nobody."""
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    trees = {name: ast.parse(source) for name, source in sources.items() if "xit" in source}  # is in all of the names
    found = {name for name, tree in trees.items() if any(map(has_number_as_status, ast.walk(tree)))}
    assert found == {"processes/parent.py", "processes/serving.py", "pages/dashboard_process.py"}


def test_the_documents_have_every_status() -> None:
    """In one row each, with whether another start may help: made from the table."""
    page = (PACKAGE.parent / "docs" / "operating.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*\| (yes|no) \|$", page, re.MULTILINE)
    assert rows == [(str(int(each)), "yes" if each.is_healed_by_restart else "no") for each in Status]
