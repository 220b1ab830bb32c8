"""What each role of deploy/postgres/roles.sql may do and may not, on a real Postgres."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_roles import Roles, as_role, connect, drop_roles, make_roles
from psycopg import sql
from shell import SMALL, Shell, ask, wait_for_address
from small_study import create_study, open_session, open_small, stub_objective
from sqlalchemy import make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger import schema
from fmnist_optuna.ledger.connecting import upgrade_storage
from fmnist_optuna.ledger.migrations import MIGRATIONS
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import is_outage, is_refusal
from fmnist_optuna.ledger.tables import SCHEMA_VERSION
from fmnist_optuna.settings import STORAGE
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work

DENIED = psycopg.errors.InsufficientPrivilege
ELSEWHERE = "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.payroll (salary int)"
CHANGES_OF_TABLES = (
    "DROP TABLE fmnist_cells",
    "ALTER TABLE fmnist_cells ADD COLUMN mine int",
    "ALTER TABLE trials RENAME TO attempts",
    "TRUNCATE fmnist_predictions",
    "CREATE INDEX mine ON fmnist_cells (state)",
    "CREATE TRIGGER mine BEFORE UPDATE ON fmnist_cells EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TABLE mine (n int)",
    "CREATE TABLE public.mine (n int)",
    "CREATE TEMPORARY TABLE mine (n int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
    "CREATE SCHEMA mine",
    "CREATE TABLE elsewhere.mine (n int)",
    "DROP SCHEMA public CASCADE",
)
READS_ELSEWHERE = ("SELECT * FROM elsewhere.payroll", "SELECT * FROM pg_authid", "COPY fmnist_cells TO '/tmp/cells'")
CHANGES_OF_ROWS = (
    "UPDATE fmnist_cells SET state = 'done'",
    "DELETE FROM trials",
    "INSERT INTO fmnist_schema_version VALUES (1)",
    "SELECT nextval('studies_study_id_seq')",
    "SELECT * FROM fmnist_cells FOR UPDATE",
)


@pytest.fixture(scope="module")
def roles(databases: Any, alembic_read_once: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roles]:
    """A database whose tables the owner has made, with a schema of somebody else's beside them."""
    admin = databases.create()
    made = make_roles(admin, tmp_path_factory.mktemp("roles"))
    create_storage(StorageOptions(made.owner)).close()
    with connect(admin) as connection:
        connection.execute(ELSEWHERE)
    yield made
    drop_roles(admin, *made.names.values())
    databases.drop(admin)


@pytest.mark.parametrize("statement", [*CHANGES_OF_TABLES, *READS_ELSEWHERE])
@pytest.mark.parametrize("role", ["worker", "reader"])
def test_only_the_owner_changes_tables(roles: Roles, role: str, statement: str) -> None:
    """Neither the worker nor the reader drops, alters or makes anything, or reads beyond the studies."""
    with connect(getattr(roles, role)) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(DENIED):
            connection.execute(statement.encode())


@pytest.mark.parametrize("statement", CHANGES_OF_ROWS)
def test_the_reader_writes_no_row(roles: Roles, statement: str) -> None:
    """Told so by its setting, and refused by its rights even when it says that it wants to write."""
    with connect(roles.reader) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction if "UPDATE" in statement else psycopg.Error):
            connection.execute(statement.encode())
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(DENIED):
            connection.execute(statement.encode())


@pytest.mark.parametrize("setting", ["on", "off"])
def test_a_refusal_is_no_outage(roles: Roles, setting: str) -> None:
    """What a role may not do is not waited for, whether its setting or its rights refuse it."""
    storage = open_small(roles.reader)
    delete = f"SET transaction_read_only = {setting}; DELETE FROM fmnist_cells"
    with pytest.raises(DBAPIError) as caught, storage.write() as connection:
        connection.exec_driver_sql(delete)
    storage.close()
    assert (is_refusal(caught.value), is_outage(caught.value)) == (True, False)


@pytest.mark.parametrize("role", ["owner", "worker", "reader"])
def test_no_role_becomes_another(roles: Roles, role: str) -> None:
    """None is a superuser, makes roles or databases, or is a member of another one."""
    query = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s"
    with connect(getattr(roles, role)) as connection:
        assert connection.execute(query, [roles.names[role]]).fetchall() == [(False,) * 5]
        for other in {*roles.names.values(), str(make_url(roles.admin).username)} - {roles.names[role]}:
            with pytest.raises(DENIED):
                connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(other)))


def test_a_worker_does_a_whole_study(roles: Roles) -> None:
    """With its role alone a study is made, and its cells are claimed, trained and settled; the reader proves it."""
    opened = open_session_of_new_study(roles.worker)
    assert work(opened, stub_objective, LeaveRequest(), opened.record.generation) is WorkerEnd.DONE
    opened.storage.close()
    reader = open_session(roles.reader, "reader")
    proof = verify(reader.storage, reader.optuna_storage, reader.record.study_id)
    reader.storage.close()
    assert (proof.ok, proof.n_results) == (True, 4)


def open_session_of_new_study(url: str) -> Any:
    """A worker at the small study, which it makes."""
    storage = create_storage(StorageOptions(url))
    create_study(storage)
    storage.close()
    return open_session(url, "worker")


def test_tables_of_an_upgrade_have_their_rights(roles: Roles) -> None:
    """What the owner adds later is the worker's to write and the reader's to read; no step by hand."""
    with connect(roles.owner) as connection:
        connection.execute("CREATE TABLE fmnist_later (n serial, text text)")
    with connect(roles.worker) as connection:
        connection.execute("INSERT INTO fmnist_later (text) VALUES ('a')")
    with connect(roles.reader) as connection:
        assert connection.execute("SELECT * FROM fmnist_later").fetchall() == [(1, "a")]


def test_the_owner_alone_upgrades(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a version that is still to come: the worker is refused with the reason, the owner brings the tables there."""
    later = SCHEMA_VERSION + 1
    monkeypatch.setattr(schema, "SCHEMA_VERSION", later)
    monkeypatch.setitem(MIGRATIONS, later, add_a_column)
    with pytest.raises(StorageError, match="must be owner of table fmnist_cells"):
        upgrade_storage(StorageOptions(roles.worker))
    assert upgrade_storage(StorageOptions(roles.owner)) == SCHEMA_VERSION
    with connect(roles.owner) as connection:
        assert connection.execute("UPDATE fmnist_schema_version SET version = version - 1").rowcount == 1


def add_a_column(connection: Connection) -> None:
    """What the next version changes."""
    connection.execute(text("ALTER TABLE fmnist_cells ADD COLUMN later INTEGER"))


def test_the_script_may_come_later_and_again(postgres_url: str, tmp_path: Path) -> None:
    """Tables that are there are opened to the two others, where their owner is named; a second run changes nothing."""
    made = make_roles(postgres_url, tmp_path, owner=str(make_url(postgres_url).username))
    try:
        assert make_roles(postgres_url, tmp_path, **made.names) == made
        with connect(made.worker) as worker, connect(made.reader) as reader:
            assert worker.execute("UPDATE fmnist_cells SET claims = 0").rowcount == 0
            assert reader.execute("SELECT count(*) FROM trials").fetchone() == (0,)
    finally:
        drop_roles(postgres_url, made.names["worker"], made.names["reader"])


def test_an_administrator_need_not_be_a_superuser(databases: Any, tmp_path: Path) -> None:
    """One that may make roles and owns the database is enough, as on a rented server."""
    superuser = databases.create()
    name = f"admin_{make_url(superuser).database}"
    with connect(superuser) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'admin'".encode())
        connection.execute(f"ALTER DATABASE {make_url(superuser).database} OWNER TO {name}".encode())
    made = make_roles(as_role(superuser, name, "admin"), tmp_path)
    try:
        create_storage(StorageOptions(made.owner)).close()
        opened = open_session_of_new_study(made.worker)
        opened.storage.close()
    finally:
        databases.drop(superuser)
        drop_roles(databases.url, *made.names.values(), name)


@pytest.fixture(scope="module")
def trained(databases: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, Roles]]:
    """A study that the owner has made and the worker's role has trained, in a folder; the shell has no storage yet."""
    admin, folder = databases.create(), tmp_path_factory.mktemp("trained")
    made = make_roles(admin, folder)
    shell = Shell(folder)
    study = shell.write("small.toml", SMALL)
    for url, *command in ((made.owner, "init", study), (made.worker, "worker", "small")):
        answer = shell.with_variables(**{STORAGE: url})(*command)
        assert answer.code == 0, answer.stderr
    yield shell, made
    drop_roles(admin, *made.names.values())
    databases.drop(admin)


@pytest.mark.cluster
def test_the_worker_tests_the_winner_and_confirms_it(trained: tuple[Shell, Roles]) -> None:
    """`run` and `confirm` with the worker's role, on tables that the owner has made; what it cannot do is said."""
    shell, roles = trained
    worker = shell.with_variables(**{STORAGE: roles.worker})
    ran = worker("run", "small.toml", "--workers", "1", "--json")
    assert (ran.code, ran.json["test_accuracy"] is not None) == (0, True), ran.stderr
    confirmed = worker("confirm", "--top", "1", "--seeds", "2", "--workers", "1", "--json")
    assert confirmed.code == 0, confirmed.stderr
    assert worker("verify", "small", "--json").json["ok"] is True


@pytest.mark.cluster
def test_the_reader_looks_at_everything(trained: tuple[Shell, Roles]) -> None:
    """What reads answers with the reader's role; what would write ends with one line that names the reason."""
    shell, roles = trained
    reader = shell.with_variables(**{STORAGE: roles.reader})
    for command in ("status", "trials", "best", "verify", "show"):
        answer = reader(command, *(["0"] if command == "show" else []), "small", "--json")
        assert answer.code == 0, answer.stderr
    assert reader("list", "--json").json["studies"]
    assert reader("report", "small", "--out", "page.html").code == 0
    assert "small" in (shell.folder / "page.html").read_text()
    for command in ("stop", "retry", "worker"):
        refused = reader(command, "small")
        assert (refused.code, len(refused.errors), "Traceback" in refused.stderr) == (5, 1, False), refused
        assert "must let its role do this, but cannot execute" in refused.errors[0]
    with reader.start("dashboard", "--port", "0") as dashboard:
        page = wait_for_address(dashboard, next(iter(sorted(shell.folder.glob("*.stdout")))))
        status, body = ask(page.removesuffix("dashboard") + "api/studies")
    assert (status, b"small" in body) == (200, True)
