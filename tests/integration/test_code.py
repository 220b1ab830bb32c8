"""The user's code behind a study: which modules are read, what is a difference, and what a study does with it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_study import FINGERPRINT, ON_SQLITE, make_spec
from sqlalchemy import text

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.errors import JoinRefusedError, StorageError
from fmnist_optuna.ledger.codes import OfferedCode, join_as_worker, list_codes
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import SCHEMA_VERSION
from fmnist_optuna.spec.code import MAX_LINES, CodeRecord, code_differences
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.user_modules.sources import read_sources

NET = "def build(units):\n    return units * 2\n"
CODE = CodeRecord({"nets": NET}, {"floatx": "float32"}, {"units": 4}, '{\n "units": 4\n}', "3.15.1")
ENVIRONMENT = {"tensorflow": "2.21.0", "floatx": "float32"}

MakeModule = Callable[[str, str], str]


def with_source(source: str) -> CodeRecord:
    return replace(CODE, sources={"nets": source})


@pytest.mark.parametrize(
    "source",
    [
        "# what it is\ndef build(units):\n\n    return units*2  # twice\n",
        '"""A module."""\ndef build(units):\n    """A function."""\n    return (units * 2)\n',
    ],
)
def test_a_comment_is_no_difference(source: str) -> None:
    """Nor are docstrings and layout: they cannot change a number."""
    assert code_differences(CODE, with_source(source)) == []


def test_a_changed_number_is_shown_as_a_diff() -> None:
    """The module, the old line and the new one."""
    lines = code_differences(CODE, with_source(NET.replace("2", "3")))
    assert "--- module nets, the study's" in lines
    assert "-    return units * 2" in lines
    assert "+    return units * 3" in lines


def test_a_long_diff_is_cut() -> None:
    """A refusal stays readable."""
    lines = code_differences(CODE, with_source("".join(f"x{n} = {n}\n" for n in range(100))))
    assert len(lines) == MAX_LINES + 1
    assert lines[-1].startswith("... and ")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sources": {"nets": NET, "layers": ""}}, "module layers: the study has none, here it is used"),
        ({"sources": {}}, "module nets: the study has it, here it is not used"),
        ({"settings": {"floatx": "float64"}}, "Keras' floatx: the study has float32, here it is float64"),
        ({"model": '{\n "units": 5\n}'}, '+ "units": 5'),
    ],
)
def test_every_part_of_a_code_is_compared(change: dict[str, Any], line: str) -> None:
    """Modules, Keras' settings, and the model that the same code makes."""
    assert line in code_differences(CODE, replace(CODE, **change))


@pytest.mark.parametrize("change", [{"keras": "3.16.0"}, {"cell": {"units": 2}}])
def test_models_are_compared_like_with_like(change: dict[str, Any]) -> None:
    """Another Keras writes the same model in other words, and another cell has another model."""
    assert code_differences(CODE, replace(CODE, model="{}", **change)) == []


def test_imports_are_followed_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In functions, relative, of namespace packages, by importlib, from a zip; libraries are left out, nothing runs."""
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        archive.writestr("in_zip.py", "ZIPPED = 1\n")
    files = {
        "top.py": "import importlib\nimport numpy, json\nfrom pack import inner\n"
        "found = importlib.import_module('dynamic')\ndef f():\n    import late\n",
        "dynamic.py": "D = 1\n",
        "late.py": "import in_zip\nraise RuntimeError('not to be run')\n",
        "unused.py": "U = 1\n",
        "pack/__init__.py": "",
        "pack/inner.py": "from . import sibling\nfrom .deep.leaf import x\nimport space.thing\n",
        "pack/sibling.py": "S = 1\n",
        "pack/deep/__init__.py": "",
        "pack/deep/leaf.py": "x = 1\n",
        "space/thing.py": "T = 1\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    script = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(tmp_path / 'zipped.zip')!r}]\nimport top\n"
        "from fmnist_optuna.user_modules.sources import read_sources\nprint(*sorted(read_sources(['top'])))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    expected = "dynamic in_zip late pack pack.deep pack.deep.leaf pack.inner pack.sibling space.thing top"
    assert done.stdout.split() == expected.split()


def test_a_module_without_source_is_hashed(make_module: MakeModule, tmp_path: Path) -> None:
    """Compiled only: other bytes are another module."""
    import importlib
    import py_compile

    make_module("compiled", "C = 1\n")
    path = tmp_path / "modules" / "compiled.py"
    texts = []
    for content in ("C = 1\n", "C = 1\n", "C = 2\n"):
        path.write_text(content)
        py_compile.compile(str(path), str(path.with_suffix(".pyc")), dfile="compiled.py")
        path.unlink()
        importlib.invalidate_caches()
        texts.append(read_sources(["compiled"])["compiled"])
    assert texts[0].startswith("sha256 ")
    assert texts[0] == texts[1] != texts[2]


def test_installed_and_standard_modules_are_not_the_users() -> None:
    """Their versions stand with each trial; one that the study file names is, with its package."""
    assert read_sources(["keras.callbacks"]) == {}
    assert set(read_sources(["pluggy"])) > {"pluggy", "pluggy._hooks"}


@pytest.fixture
def study(storage: Storage) -> Session:
    """A small study that was made with `CODE`."""
    record, _ = create_or_join(storage, make_spec(), FINGERPRINT, code=OfferedCode(CODE, ENVIRONMENT))
    return Session(storage, record, "worker")


OTHER = with_source(NET.replace("2", "3"))


def test_a_join_with_other_code_is_refused_as_a_whole(study: Session) -> None:
    """The diff and the ways out; no cell of the larger grid is inserted."""
    larger = make_spec({"hidden_size": [64, 128, 256], "dropout_rate": [0.0, 0.5]})
    with pytest.raises(JoinRefusedError) as error:
        create_or_join(study.storage, larger, FINGERPRINT, code=OfferedCode(OTHER, ENVIRONMENT))
    assert "+    return units * 3" in str(error.value)
    assert "--accept-code" in str(error.value)
    assert study.history.counts().total == 4
    assert [code.fingerprint for code in list_codes(study.storage, study.record.study_id)] == [CODE.fingerprint]


def test_an_accepted_code_is_what_later_joins_must_have(study: Session) -> None:
    """The earlier one is kept, is refused from then on, and may be accepted again."""
    storage, key = study.storage, (study.record.study_id, study.record.name)
    for code, others in ((OTHER, CODE), (CODE, OTHER)):
        join_as_worker(storage, *key, OfferedCode(code, ENVIRONMENT, is_wanted=True))
        assert join_as_worker(storage, *key, OfferedCode(code, ENVIRONMENT)).fingerprint == code.fingerprint
        with pytest.raises(JoinRefusedError):
            join_as_worker(storage, *key, OfferedCode(others, ENVIRONMENT))
    kept = list_codes(storage, study.record.study_id)
    assert [entry.code for entry in kept] == [OTHER, CODE]
    assert kept[1].environment == ENVIRONMENT


def test_a_worker_with_an_edited_comment_names_the_studys_code(study: Session) -> None:
    """One fingerprint for all trials that the same program made."""
    commented = OfferedCode(with_source(NET + "# done\n"), ENVIRONMENT)
    joined = join_as_worker(study.storage, study.record.study_id, study.record.name, commented)
    assert joined.fingerprint == CODE.fingerprint


@ON_SQLITE
def test_a_newer_schema_is_refused(storage: Storage) -> None:
    """What a later version made, an earlier one does not touch."""
    with storage.write() as connection:
        connection.execute(text(f"UPDATE fmnist_schema_version SET version = {SCHEMA_VERSION + 1}"))
    with pytest.raises(StorageError, match=f"but has {SCHEMA_VERSION + 1}; use the version"):
        create_storage(StorageOptions(storage.url.render_as_string(hide_password=False)))
