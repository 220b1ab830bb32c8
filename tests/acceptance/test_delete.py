"""`delete`: it asks, it removes all of one study and nothing of another."""

from functools import partial

import pexpect
import pytest
from shell import COMMAND, Shell, two_at_a_time
from small_study import create_study, make_spec
from sqlalchemy import update

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.tables import studies

OTHERS = "studies/artifacts/of-another-study"


def spawn(shell: Shell, *typed: str) -> "pexpect.spawn[str]":
    """A command at a terminal."""
    return pexpect.spawn(
        str(COMMAND), list(typed), cwd=str(shell.folder), env=shell.environment, encoding="utf-8", timeout=30
    )  # fmt: skip


def artifacts(shell: Shell) -> set[str]:
    """The files with weights."""
    return {name for name in shell.files() if name.startswith("studies/artifacts/")}


def test_delete_without_a_terminal_needs_yes(smoke_copy: Shell) -> None:
    """Nobody can be asked, so nothing is removed: exit 2, and the line names --yes."""
    before = smoke_copy.files()
    answer = smoke_copy("delete", "smoke")
    assert (answer.code, answer.stdout, len(answer.errors)) == (2, "", 1)
    assert "--yes" in answer.errors[0]
    assert smoke_copy.files() | {"studies/studies.db-wal", "studies/studies.db-shm"} >= before


@pytest.mark.parametrize(("reply", "n_studies", "n_files"), [("n", 1, 4 + 2), ("y", 0, 0)])
def test_delete_asks_at_a_terminal(smoke_copy: Shell, reply: str, n_studies: int, n_files: int) -> None:
    """The question says what would go; only `y` removes it."""
    child = spawn(smoke_copy, "delete", "smoke")
    child.expect_exact("Remove study smoke with 4 of 4 cells done")
    child.expect_exact("from sqlite:///")
    child.sendline(reply)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert len(smoke_copy.query("SELECT * FROM fmnist_studies")) == n_studies
    assert len(artifacts(smoke_copy)) == n_files


def test_delete_removes_the_study_and_leaves_other_files(smoke_copy: Shell) -> None:
    """Its trials, cells, curves, openings and weights are gone; a file of another study stays."""
    smoke_copy.write(OTHERS, "weights")
    answer = smoke_copy("delete", "smoke", "--yes")
    assert (answer.code, answer.stdout) == (0, "")
    assert artifacts(smoke_copy) == {OTHERS}
    tables = (
        "studies",
        "trials",
        "fmnist_studies",
        "fmnist_cells",
        "fmnist_epochs",
        "fmnist_openings",
        "fmnist_workers",
    )
    assert {table: smoke_copy.query(f"SELECT * FROM {table}") for table in tables} == {table: [] for table in tables}
    assert smoke_copy("status", "smoke").code == 3


def test_delete_of_an_unknown_study_exits_3(smoke_copy: Shell) -> None:
    """A misspelt name removes nothing."""
    answer = smoke_copy("delete", "smoky", "--yes")
    assert (answer.code, len(answer.errors)) == (3, 1)
    assert "smoky" in answer.errors[0]
    assert len(artifacts(smoke_copy)) == 4 + 2


def test_an_unreadable_study_is_listed_named_and_removed(shell: Shell) -> None:
    """`list` has it with the reason, a command that names it ends in one line, and the other study goes on."""
    shell.database.parent.mkdir()
    storage = create_storage(StorageOptions(f"sqlite:///{shell.database}"))
    for name in ("small", "other"):
        create_study(storage, make_spec(name=name))
    with storage.write() as connection:
        connection.execute(update(studies).where(studies.c.study_name == "small").values(spec='{"searcher": 1}'))
    storage.close()
    calls = {"list": ("list",), "list --json": ("list", "--json"), "unnamed": ("status",), "named": ("trials", "small")}
    answers = two_at_a_time({name: partial(shell, *typed) for name, typed in calls.items()})
    assert [answers[name].code for name in calls] == [0, 0, 0, 4]
    assert "small cannot be read: its specification: unknown key searcher" in answers["list"].stdout
    broken, whole = answers["list --json"].json["studies"]
    assert broken.keys() == whole.keys()
    assert (broken["study"], broken["data"], broken["cells"]["total"], whole["error"]) == ("small", None, 4, None)
    assert answers["unnamed"].stdout.startswith("other ")
    assert (answers["named"].stdout, answers["named"].stderr.splitlines()) == ("", answers["named"].errors)
    assert answers["named"].errors[0].endswith("or remove it: fmnist-optuna delete small")
    assert shell("delete", "small", "--yes").code == 0
    assert [name for (name,) in shell.query("SELECT study_name FROM fmnist_studies")] == ["other"]
