"""No module of the package executes what it reads."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmnist_optuna

PACKAGE = Path(fmnist_optuna.__file__).parent

DANGEROUS_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}

DANGEROUS_CALLS = {"eval", "exec", "system", "popen", "unsafe_load", "full_load", "enable_unsafe_deserialization"}

SAFE_VALUES = {"allow_pickle": False, "shell": False, "safe_mode": True}


def find_dangers(source: str) -> Iterator[str]:
    """What in a source may execute what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in DANGEROUS_MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *[alias.name for alias in node.names]]
            yield from (name for name in names if name.split(".")[0] in DANGEROUS_MODULES | DANGEROUS_CALLS)
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in DANGEROUS_CALLS or (name == "load" and ast.unparse(node).endswith("yaml.load")):
                yield name
        elif isinstance(node, ast.keyword) and node.arg in SAFE_VALUES:
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if value is not SAFE_VALUES[node.arg]:
                yield node.arg


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "pickle"),
        ("import json, marshal as m", "marshal"),
        ("from dill import loads", "dill"),
        ("from multiprocessing.reduction import pickle", "pickle"),
        ("def f():\n    from os import system", "system"),
        ("np.load(file, allow_pickle=True)", "allow_pickle"),
        ("np.load(file, allow_pickle=is_trusted)", "allow_pickle"),
        ("keras.saving.load_model(file, safe_mode=False)", "safe_mode"),
        ("keras.config.enable_unsafe_deserialization()", "enable_unsafe_deserialization"),
        ("eval(text)", "eval"),
        ("builtins.exec(text)", "exec"),
        ("call = eval", "eval"),
        ("yaml.load(text)", "load"),
        ("subprocess.run(text, shell=True)", "shell"),
        ("os.popen(text)", "popen"),
    ],
)
def test_the_search_for_dangers_finds_each(source: str, danger: str) -> None:
    """Every kind, wherever it stands."""
    assert list(find_dangers(source)) == [danger]


def test_the_search_for_dangers_lets_the_rest_pass() -> None:
    """The safe values, and names that only sound alike."""
    harmless = "np.load(file, allow_pickle=False); json.load(file); model.evaluate(x); execute(query); run(shell=False)"
    assert list(find_dangers(harmless)) == []


@pytest.mark.parametrize("module", sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")))
def test_no_module_executes_what_it_reads(module: str) -> None:
    """No pickle, marshal or shell; no eval or exec; no switch that lets NumPy, Keras or YAML run code."""
    assert list(find_dangers((PACKAGE / module).read_text())) == []
