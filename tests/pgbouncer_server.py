"""A real pgbouncer before a Postgres, in transaction mode, in a temporary folder on a free port; ended by its pid.

Environment:
    FMNIST_TEST_PGBOUNCER: The program, if it is not on the path.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from postgres_server import SERVER_USERS, NoServerError

PROGRAM = "FMNIST_TEST_PGBOUNCER"
START_SECONDS = 10.0


@contextlib.contextmanager
def running_pgbouncer(url: str, n_connections: int) -> Iterator[str]:
    """URL of the same database through a pgbouncer that has so many connections for everybody.

    Raises:
        NoServerError: There is none, or it does not start.
    """
    from sqlalchemy import make_url

    program = os.environ.get(PROGRAM) or shutil.which("pgbouncer")
    if program is None:
        raise NoServerError("there is none; install it (apt-get install pgbouncer)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="fmnist-pgbouncer-", dir="/tmp") as name:
        settings = _write_settings(Path(name), url, port, n_connections)
        as_user = ["--user", SERVER_USERS[0]] if os.geteuid() == 0 else []  # it refuses to run as root
        with (Path(name) / "log").open("w") as log:
            process = subprocess.Popen([program, *as_user, settings], stdout=log, stderr=log)
        try:
            pooled = make_url(url).set(port=port)
            _wait_until_it_answers(pooled.set(drivername="postgresql").render_as_string(hide_password=False))
            yield pooled.render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait()


def _write_settings(folder: Path, url: str, port: int, n_connections: int) -> Path:
    from sqlalchemy import make_url

    target = make_url(url)
    folder.chmod(0o755)
    users, settings = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text(f'"{target.username}" "{_read_secret(url) or target.password}"\n')
    settings.write_text(
        f"[databases]\n{target.database} = host={target.host} port={target.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\n"
        f"default_pool_size = {n_connections}\nmax_client_conn = 1000\n"
    )
    return settings


def _read_secret(url: str) -> str | None:
    """What the server keeps of the password; with the password itself pgbouncer hashes for 8 ms at every login.

    None for a user who may not read it.
    """
    import psycopg
    from sqlalchemy import make_url

    target = make_url(url).set(drivername="postgresql")
    query = "SELECT rolpassword FROM pg_authid WHERE rolname = current_user"
    with (
        contextlib.suppress(psycopg.errors.InsufficientPrivilege),
        psycopg.connect(target.render_as_string(hide_password=False)) as connection,
    ):
        row = connection.execute(query).fetchone()
        return None if row is None else row[0]
    return None


def _wait_until_it_answers(url: str) -> None:
    import psycopg

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
            return
        time.sleep(0.05)
    raise NoServerError("it did not start")
