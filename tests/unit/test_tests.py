"""The tests themselves: each has a name that fits a line of a report, and a sentence that says what it promises."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = sorted(str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py"))
LONGEST_NAME = 59  # characters


@pytest.mark.parametrize("module", MODULES)
def test_every_test_has_a_short_name_and_a_docstring(module: str) -> None:
    """Under 60 characters, and the docstring carries what the name cannot."""
    tree = ast.parse((TESTS / module).read_text())
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    assert [test.name for test in tests if len(test.name) > LONGEST_NAME] == []
    assert [test.name for test in tests if not ast.get_docstring(test)] == []
