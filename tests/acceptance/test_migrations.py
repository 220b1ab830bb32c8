"""Storages that earlier versions made: they are opened, brought up to date and gone on with, and nothing is lost.

The files in tests/data were made by programs with schema version 1 and 2, with the answers that these gave.
"""

import json
import re
import shutil
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest
from shell import Shell
from sqlalchemy import ForeignKeyConstraint, Inspector, MetaData, create_engine, inspect, make_url, text

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.connecting import open_storage, upgrade_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.tables import SCHEMA_VERSION, metadata

DATA = Path(__file__).parents[1] / "data"
VERSIONS = ("1", "2")
OLD_TABLES = {"control", "cells", "epochs", "openings", "workers", "codes"}


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    """A folder with a storage of an earlier version, its study files and the answers of then."""
    with tarfile.open(DATA / f"storage-{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return Shell(tmp_path)


def answers_of(shell: Shell, name: str) -> Any:
    """What the program of then answered."""
    return json.loads((shell.folder / "answers" / f"{name}.json").read_text())


def url_of(shell: Shell) -> str:
    return f"sqlite:///{shell.database}"


def differences(told: Any, answer: Any, place: str = "") -> list[str]:
    """Where an answer of now differs from that of then; it may tell more."""
    if isinstance(told, dict):
        return [line for key in told for line in differences(told[key], answer[key], f"{place}.{key}")]
    if isinstance(told, list) and len(told) == len(answer):
        return [line for n, each in enumerate(told) for line in differences(each, answer[n], f"{place}[{n}]")]
    return [] if told == answer else [f"{place}: {told} then, {answer} now"]


def n_rows(shell: Shell, *tables: str) -> list[int]:
    return [shell.query(f"SELECT count(*) FROM {table}")[0][0] for table in tables]


def test_an_earlier_storage_is_read_after_its_upgrade(old: Shell) -> None:
    """Until then it is left as it is, and the answer names the command."""
    before = old.database.read_bytes()
    refused = old("status", "old")
    assert (refused.code, refused.stdout) == (5, "")
    assert refused.errors[0].endswith("upgrade it, after a backup: fmnist-optuna upgrade")
    assert old.database.read_bytes() == before
    kept = n_rows(old, "cells", "epochs", "openings", "workers")
    assert old("upgrade").code == 0
    assert n_rows(old, "fmnist_cells", "fmnist_epochs", "fmnist_openings", "fmnist_workers") == kept
    for command in ("status", "trials", "best", "verify"):
        told = answers_of(old, f"{command}-old")
        assert differences(told, old(command, "old", "--json").json) == []
    again = old("upgrade")
    assert (again.code, again.stdout) == (0, "")
    assert f"schema version {SCHEMA_VERSION}, as before" in again.stderr


@pytest.mark.parametrize("old", ["2"], indirect=True)  # that of version 1 has none
def test_a_confirmation_finds_its_study_again(old: Shell) -> None:
    """By the column that the name was before; it goes with its study."""
    assert old("upgrade").code == 0
    ((kind, parent),) = old.query(
        "SELECT s.kind, p.study_name FROM fmnist_studies s JOIN fmnist_studies p ON p.study_id = s.parent_id"
    )
    assert (kind, parent) == ("confirmation", "old")
    assert old("verify", "old/confirm", "--json").json["ok"] is True
    assert old("delete", "old", "--yes").code == 0
    assert old.query("SELECT study_name FROM fmnist_studies") == [("half",)]
    assert n_rows(old, "fmnist_openings", "fmnist_predictions") == [0, 0]


def columns_of(inspector: Inspector, table: str) -> list[str]:
    """The columns of a table; SQLite does not heed the length of a text, and cannot change it."""
    return [re.sub(r"VARCHAR\(.*?\)", "VARCHAR", str(column)) for column in inspector.get_columns(table)]


def test_upgraded_tables_are_those_of_a_new_storage(old: Shell, tmp_path: Path) -> None:
    """Columns, keys and indexes; none of the old tables stays but the number that earlier programs look for."""
    assert upgrade_storage(StorageOptions(url_of(old))) in (1, 2)
    upgraded, new = (
        open_storage(StorageOptions(url_of(old))),
        create_storage(StorageOptions(f"sqlite:///{tmp_path}/new.db")),
    )
    for table in metadata.sorted_tables:
        first, second = inspect(upgraded.engine), inspect(new.engine)
        assert columns_of(first, table.name) == columns_of(second, table.name)
        assert first.get_pk_constraint(table.name) == second.get_pk_constraint(table.name)
        assert sorted(map(str, first.get_foreign_keys(table.name))) == sorted(
            map(str, second.get_foreign_keys(table.name))
        )
        assert sorted(map(str, first.get_indexes(table.name))) == sorted(map(str, second.get_indexes(table.name)))
    names = set(inspect(upgraded.engine).get_table_names())
    assert not names & OLD_TABLES
    with upgraded.read() as connection:
        assert connection.execute(text("SELECT version FROM schema_version")).scalar_one() == SCHEMA_VERSION
    upgraded.close()
    new.close()


def test_a_storage_at_work_is_not_upgraded(old: Shell) -> None:
    """The workers of then know the old names only; nothing changes."""
    change = "UPDATE cells SET state = 'running', lease_until = 4e9 WHERE cell_id = (SELECT min(cell_id) FROM cells)"
    storage = shutil.copy(old.database, old.folder / "busy.db")
    with sqlite3.connect(storage) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(StorageError, match=r"must be at rest while its tables are upgraded, but .* hold 1 cell;"):
        upgrade_storage(StorageOptions(f"sqlite:///{storage}"))
    with sqlite3.connect(storage) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchone()[0] in (1, 2)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'fmnist%'").fetchone() == (0,)
    connection.close()


@pytest.mark.more
@pytest.mark.parametrize("old", ["2"], indirect=True)  # that of version 1 has none
def test_a_study_that_was_half_done_goes_on(old: Shell) -> None:
    """`run` upgrades by itself, heals the cell of the worker that was killed, and trains what is left.

    That cell is watched for a third of a lease first, which is short here.
    """
    impatient = old.with_variables(FMNIST_OPTUNA_LEASE_SECONDS="6")
    answer = impatient("run", "half.toml", "--workers", "1", "--json")
    assert answer.code == 0, answer.stderr
    proof = old("verify", "half", "--json").json
    assert (proof["ok"], proof["cells"], proof["results"]) == (True, 2, 2)


def test_a_postgres_storage_is_upgraded_too(old: Shell, empty_postgres_url: str) -> None:
    """The same rows in the tables of then: every one arrives, and the next opening gets a number of its own."""
    source = create_engine(url_of(old))
    target = create_engine(make_url(empty_postgres_url).set(drivername="postgresql+psycopg"))
    tables = MetaData()
    tables.reflect(source, only=lambda name, _: name in OLD_TABLES | {"schema_version", "trials"})
    for table in tables.sorted_tables:
        table.foreign_keys.clear()
        table.constraints = {each for each in table.constraints if not isinstance(each, ForeignKeyConstraint)}
        for column in table.columns:
            column.type = column.type.as_generic()
    tables.create_all(target)
    counts = {}
    with source.connect() as reader, target.begin() as writer:
        for table in tables.sorted_tables:
            rows = [dict(row) for row in reader.execute(table.select()).mappings()]
            counts[table.name] = len(rows)
            if rows:
                writer.execute(table.insert(), rows)
    assert upgrade_storage(StorageOptions(empty_postgres_url)) in (1, 2)
    with target.begin() as connection:
        for name in ("cells", "epochs", "openings", "workers"):
            assert connection.execute(text(f"SELECT count(*) FROM fmnist_{name}")).scalar_one() == counts[name]
        last = connection.execute(text("SELECT max(opening_id) FROM fmnist_openings")).scalar_one()
        sequence = "pg_get_serial_sequence('fmnist_openings', 'opening_id')"
        assert connection.execute(text(f"SELECT nextval({sequence})")).scalar_one() == last + 1
        longest = "SELECT character_maximum_length FROM information_schema.columns WHERE column_name = 'data_source'"
        assert connection.execute(text(longest)).scalar_one() == 512
    open_storage(StorageOptions(empty_postgres_url)).close()
    source.dispose()
    target.dispose()
