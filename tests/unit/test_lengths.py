"""Functions of one screen, modules that are read in one sitting."""

import ast
from collections.abc import Iterator
from pathlib import Path

import fmnist_optuna

PACKAGE = Path(fmnist_optuna.__file__).parent
LONGEST_FUNCTION = 40  # lines
LONGEST_MODULE = 300  # lines
# What a program may ask for has its description in one place, and this call takes much.
LONG_FUNCTIONS = {"api/training.py: run_study"}


def find_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of every function of a module, those within others too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1


def test_every_function_fits_a_screen() -> None:
    """At most 40 lines, with signature and docstring."""
    found = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name, n_lines in find_functions(path)
        if n_lines > LONGEST_FUNCTION
    }
    assert found == LONG_FUNCTIONS


def test_every_module_is_read_in_one_sitting() -> None:
    """At most 300 lines."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text().splitlines()) > LONGEST_MODULE
    }
    assert found == set()
