"""The tables of a storage: made once by whoever comes, upgraded at rest, refused where they are of other versions."""

from itertools import chain

import optuna
import pytest
from small_study import claim_cell, create_study, expire, in_processes, open_small, read_cell
from sqlalchemy import text

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.connecting import open_storage, upgrade_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.tables import SCHEMA_VERSION
from fmnist_optuna.study.session import Session


def test_a_schema_of_another_version_is_refused(storage_url: str) -> None:
    """The version that made it must read it."""
    opened = open_small(storage_url)
    with opened.write() as connection:
        connection.execute(text("UPDATE fmnist_schema_version SET version = 99"))
    opened.close()
    with pytest.raises(StorageError, match="but has 99; use the version"):
        open_storage(StorageOptions(storage_url))


# What each version added to the one before, as it is taken away again.
ADDED = {
    4: ("ALTER TABLE fmnist_studies DROP COLUMN data_info",),
    5: (
        "DROP TABLE fmnist_decisions",
        "ALTER TABLE fmnist_cells DROP COLUMN first_claimed_at",
        "ALTER TABLE fmnist_cells DROP COLUMN rung",
        "ALTER TABLE fmnist_cells DROP COLUMN cut_at",
        "ALTER TABLE fmnist_cells DROP COLUMN decision_id",
    ),
    6: ("ALTER TABLE fmnist_decisions DROP COLUMN absent",),
    7: ("ALTER TABLE fmnist_studies DROP COLUMN teacher",),
    8: (
        "ALTER TABLE fmnist_cells DROP COLUMN val_accuracy",
        "ALTER TABLE fmnist_epochs DROP COLUMN objective",
        "ALTER TABLE fmnist_openings DROP COLUMN objective",
    ),
    9: ("ALTER TABLE fmnist_cells DROP COLUMN number", "ALTER TABLE fmnist_cells DROP COLUMN known"),
    10: ("ALTER TABLE fmnist_workers DROP COLUMN device",),
    11: ("ALTER TABLE fmnist_studies DROP COLUMN artifacts",),
    12: ("DROP INDEX ix_fmnist_trials_study",),
}


@pytest.mark.parametrize("version", [3, 4, 5])
def test_no_upgrade_takes_tables_from_a_worker(empty_storage_url: str, version: int) -> None:
    """Of whatever version it is: while a lease holds nothing changes, and afterwards all cells are there."""
    storage = create_storage(StorageOptions(empty_storage_url))
    session = Session(storage, create_study(storage), "worker")
    claim = claim_cell(session)
    with storage.write() as connection:
        for statement in chain.from_iterable(ADDED[number] for number in range(SCHEMA_VERSION, version, -1)):
            connection.execute(text(statement))
        connection.execute(text(f"UPDATE fmnist_schema_version SET version = {version}"))
    for upgrade in (upgrade_storage, create_storage):
        with pytest.raises(StorageError, match=r"must be at rest while its tables are upgraded, .* hold 1 cell;"):
            upgrade(StorageOptions(empty_storage_url))
    expire(storage, claim.cell_id)
    assert upgrade_storage(StorageOptions(empty_storage_url)) == version
    cell = read_cell(storage, claim.cell_id)
    assert cell.token == claim.token
    assert cell.first_claimed_at == pytest.approx(cell.claimed_at, abs=1e-3)  # Postgres counts in microseconds
    storage.close()


def test_tables_of_another_optuna_are_refused(empty_storage_url: str) -> None:
    """In our words, with exit status 5, not with Optuna's traceback."""
    url = empty_storage_url.replace("postgresql:", "postgresql+psycopg:")
    made = optuna.storages.RDBStorage(url)
    with made.engine.begin() as connection:
        connection.execute(text("UPDATE version_info SET schema_version = 1"))
        connection.execute(text("UPDATE alembic_version SET version_num = 'v0.9.0.a'"))
    made.engine.dispose()
    with pytest.raises(StorageError, match="must fit this Optuna"):
        create_storage(StorageOptions(empty_storage_url))


def open_new(_number: int, url: str) -> int:
    """Body of a process that makes the schema and asks for its version."""
    opened = create_storage(StorageOptions(url))
    with opened.read() as connection:
        return int(connection.execute(text("SELECT version FROM fmnist_schema_version")).scalar_one())


def test_four_processes_create_one_schema(empty_storage_url: str) -> None:
    """At the same instant on an empty database, where stock Optuna fails three of four times."""
    assert in_processes(4, open_new, empty_storage_url) == [SCHEMA_VERSION] * 4
