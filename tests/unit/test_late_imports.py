"""An import within a function waits for something heavy, and a comment says for what."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmnist_optuna

PACKAGE = Path(fmnist_optuna.__file__).parent
ROOT = "fmnist_optuna"
# What takes a command longer to import than all of its own code.
HEAVY = {
    *("tensorflow", "keras", "optuna", "optuna_dashboard", "sqlalchemy", "pydantic", "numpy", "scipy", "PIL", "plotly"),
    *("jinja2", "waitress", "rich", "psutil", "prometheus_client", "urllib", "multiprocessing"),
    *("hashlib", "secrets", "hmac", "socket", "uuid", "boto3", "botocore", "ray"),
}
FREE = {"__init__.py"}  # loads the names that it offers when they are used


@functools.cache
def file_of(name: str) -> Path | None:
    """The file of one of our modules, by its dotted name; None of any other."""
    place = PACKAGE.joinpath(*name.split(".")[1:])
    return next(
        (p for p in (place.with_suffix(".py"), place / "__init__.py") if name.startswith(ROOT) and p.exists()), None
    )


def names_in(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if file_of(name) else str(node.module)


def imports_within(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when the body of a module or a function runs; not those of functions in it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_within(child)


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """The parsed source of a file."""
    return ast.parse(file.read_text())


@functools.cache
def imported_by(file: Path) -> frozenset[str]:
    """The modules that importing a file imports at once."""
    return frozenset(name for node in imports_within(tree_of(file)) for name in names_in(node))


@functools.cache
def heavy_of(name: str) -> frozenset[str]:
    """The heavy packages that importing a module loads."""
    found, seen, left = set(), set(), [name]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        file = file_of(name)
        if file is None:
            found |= {name.split(".")[0]} & HEAVY
            continue
        left += [parent for parent in (name.rpartition(".")[0],) if parent]
        left += imported_by(file)
    return frozenset(found)


@pytest.mark.parametrize(
    "file", [p for p in sorted(PACKAGE.rglob("*.py")) if p.name not in FREE], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_a_late_import_is_heavy(file: Path) -> None:
    """Whatever else is imported within a function belongs to the top of its module."""
    lines = file.read_text().splitlines()
    name = ".".join([ROOT, *file.relative_to(PACKAGE).with_suffix("").parts])
    here = heavy_of(name)
    wrong = []
    for function in ast.walk(tree_of(file)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            late = [node for statement in function.body for node in _own(statement)]
            wrong += [
                f"line {n.lineno} loads nothing heavy"
                for n in late
                if not set().union(*map(heavy_of, names_in(n))) - here
            ]
            if late and not any("#" in lines[number - 1] for number in (late[0].lineno - 1, late[0].lineno)):
                wrong.append(f"line {late[0].lineno} needs a comment that says what it loads")
    assert wrong == []


def _own(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [node]
    return [] if isinstance(node, ast.FunctionDef) else list(imports_within(node))
