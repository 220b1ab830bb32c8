"""What a worker may import of the user's: nothing that a specification names can come past the list."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_study import FINGERPRINT, STUDY, make_spec

import fmnist_optuna
from fmnist_optuna.cli.options import parse_modules
from fmnist_optuna.data.built_in import BUILT_IN
from fmnist_optuna.errors import UsageError
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.allowed import check_modules
from fmnist_optuna.study.records import StudyRecord

PACKAGE = Path(fmnist_optuna.__file__).parent
TABLES: dict[str, dict[str, Any]] = {
    "model.architecture": {"model": {"architecture": "mine.nets:build"}},
    "data.source": {"data": {"source": "mine.nets:load"}},
    "training.callbacks": {"training": {"callbacks": ["mine.nets:first", "os:abort"]}},
}


def make_record(**tables: Any) -> StudyRecord:
    info = BUILT_IN["synthetic"]
    return StudyRecord(1, STUDY, make_spec(**tables), (), "synthetic", FINGERPRINT, info, 0, 0.0)


@pytest.mark.parametrize("key", TABLES)
@pytest.mark.parametrize("allowed", ["none", "min", "mine.net", "mine.nets.more", "nets"])
def test_what_is_not_named_is_refused(key: str, allowed: str) -> None:
    """By its key and its name; a part of a word is no name of a module."""
    with pytest.raises(UsageError, match=rf"^study {STUDY}: {key} must be in .*, but is mine\.nets:\w+; where you"):
        check_modules(make_record(**TABLES[key]), frozenset({allowed}))


@pytest.mark.parametrize("key", ["model.architecture", "data.source"])
@pytest.mark.parametrize("allowed", ["mine", "mine.nets"])
def test_a_module_and_what_is_in_a_package_are_allowed(key: str, allowed: str) -> None:
    """By the name of either."""
    check_modules(make_record(**TABLES[key]), frozenset({allowed, "another"}))


def test_each_function_must_be_allowed() -> None:
    """The second callback is Python's own, which needs no file of anybody's."""
    with pytest.raises(UsageError, match="but is os:abort; where you trust it, add --allow-module os"):
        check_modules(make_record(**TABLES["training.callbacks"]), frozenset({"mine"}))


@pytest.mark.parametrize("allowed", [None, frozenset({"none"})])
def test_what_is_built_in_needs_no_name(allowed: frozenset[str] | None) -> None:
    """Ours is not the user's; and without a list everything may be imported."""
    check_modules(make_record(), allowed)
    if allowed is None:
        for tables in TABLES.values():
            check_modules(make_record(**tables), allowed)


def test_every_place_that_imports_is_behind_the_list() -> None:
    """Whoever loads a function of the user's by its name gets that from a key that the list is compared with."""
    loading = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if "load_function(" in file.read_text()}
    known = {"training/architecture.py", "training/user_code.py", "work/own_data.py"}
    assert loading == known | {"user_modules/functions.py"}


def find_patterns(schema: dict[str, Any], parts: dict[str, Any], key: str = "") -> Iterator[tuple[str, str]]:
    """The keys of a JSON schema whose texts have a form, each with that."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    if "pattern" in schema:
        yield key, schema["pattern"]
    for name, each in schema.get("properties", {}).items():
        yield from find_patterns(each, parts, f"{key}.{name}".strip("."))
    within = [schema.get(name) for name in ("items", "additionalProperties")]
    for each in [*within, *schema.get("prefixItems", ()), *schema.get("anyOf", ())]:
        if isinstance(each, dict):
            yield from find_patterns(each, parts, key)


def test_every_key_that_may_name_a_function_is_behind_the_list() -> None:
    """Whatever key of a study file takes the form of one; the tests above refuse each of them."""
    schema = StudySpec.model_json_schema()
    found = dict(find_patterns(schema, schema["$defs"]))
    assert {key for key, pattern in found.items() if re.search(pattern, "mine.nets:build")} == set(TABLES)
    assert {"name", "objective.metric", "training.teacher"} <= found.keys()


def test_names_of_modules_are_read() -> None:
    """None without any."""
    assert parse_modules(None) is None
    assert parse_modules([]) is None
    assert parse_modules(["mine", "team.data"]) == frozenset({"mine", "team.data"})


@pytest.mark.parametrize("name", ["", "mine:build", "mine.", ".mine", "mine nets", "1st", "mine/nets.py"])
def test_what_is_no_module_s_name_is_refused(name: str) -> None:
    """Before anything is opened."""
    with pytest.raises(UsageError, match=r"^--allow-module must be a module such as mine or package\.module, but got "):
        parse_modules([name])
