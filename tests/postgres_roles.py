"""The roles of deploy/postgres/roles.sql on a real server, made by psql as an administrator makes them."""

import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from postgres_server import find_binaries
from psycopg import sql
from sqlalchemy import make_url

ROLES_SQL = Path(__file__).parents[1] / "deploy" / "postgres" / "roles.sql"
NAMES = ("owner", "worker", "reader")
PASSWORD = "it's a password"


@dataclass(frozen=True)
class Roles:
    """A database and its three roles, whose names no other test knows.

    Args:
        admin: URL of the server's administrator.
        owner, worker, reader: URL of each role.
    """

    admin: str
    owner: str
    worker: str
    reader: str

    @property
    def names(self) -> dict[str, str]:
        """The name of each role on the server."""
        return {role: str(make_url(getattr(self, role)).username) for role in NAMES}


def make_roles(admin: str, folder: Path, **names: str) -> Roles:
    """Run the script in a database, for roles of its own.

    Args:
        admin: URL of whoever runs it, in the database.
        folder: For a link to psql.
        names: Of roles that need not be new; the administrator's own keeps its password.

    Raises:
        AssertionError: psql did not end with 0, or printed anything.
    """
    suffix = uuid.uuid4().hex[:8]  # after a space, as a name must be quoted wherever it stands
    names = {role: names.get(role, f"{role} {suffix}") for role in NAMES}
    own = str(make_url(admin).username)
    passwords = {f"{role.upper()}_PASSWORD": PASSWORD for role, name in names.items() if name != own}
    made = subprocess.run(
        ["psql", "--no-psqlrc", "--file", ROLES_SQL, *[f"--set={role}={name}" for role, name in names.items()]],
        env={**environment_of(admin, folder), **passwords}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (made.returncode, made.stdout, made.stderr) == (0, "", ""), made.stdout + made.stderr
    return Roles(admin, *[admin if name == own else as_role(admin, name, PASSWORD) for name in names.values()])


def environment_of(url: str, folder: Path) -> dict[str, str]:
    """The environment in which psql connects to a database: that of the machine, or the one beside the server's."""
    parsed = make_url(url)
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    if not (tools / "psql").exists():
        (tools / "psql").symlink_to(shutil.which("psql") or find_binaries(None) / "psql")
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PGHOST": str(parsed.host),
        "PGPORT": str(parsed.port),
        "PGUSER": str(parsed.username),
        "PGPASSWORD": str(parsed.password),
        "PGDATABASE": str(parsed.database),
    }


def as_role(url: str, name: str, password: str) -> str:
    """The URL of another user of the same database."""
    return make_url(url).set(username=name, password=password).render_as_string(hide_password=False)


def connect(url: str) -> "psycopg.Connection[tuple[Any, ...]]":
    """A connection of the driver's own, in which each statement is a transaction."""
    parsed = make_url(url)
    return psycopg.connect(
        host=parsed.host, port=parsed.port, user=parsed.username, password=parsed.password, dbname=parsed.database,
        autocommit=True,
    )  # fmt: skip


def drop_roles(url: str, *names: str) -> None:
    """Drop roles with all that they own in a database, where they are there."""
    with connect(url) as connection:
        known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for name in reversed([name for name in names if name in known]):
            connection.execute(sql.SQL("DROP OWNED BY {name}; DROP ROLE {name}").format(name=sql.Identifier(name)))
