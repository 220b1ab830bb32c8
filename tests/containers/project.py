"""The compose file's services in containers, started by podman-compose from a copy of the files that it names."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import Engine

ROOT = Path(__file__).parents[2]
COMPOSE = Path(sys.executable).with_name("podman-compose")
PROJECT = "fmnist-optuna-test"
VERSION = "test"
DASHBOARD_PORT = "8090"  # not the default, so that it is seen to be taken from .env
POSTGRES = "localhost/fmnist-postgres:test"
OVERRIDE = f"services:\n  postgres:\n    image: {POSTGRES}\n"
FETCH = """\
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": sys.argv[2]})
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode(), sep="\\n")
"""
STUDY_SECONDS = 600.0  # for what takes a minute or two on free cores: a lease of 60 s has to end, among other things
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Project:
    """A folder with the compose file, secrets and .env, and its containers."""

    engine: Engine
    folder: Path

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What podman-compose answered."""
        files = ("--file", "docker-compose.yml", "--file", "override.yml")
        return self.engine.run_inside(COMPOSE, "--project-name", PROJECT, *files, *arguments, cwd=self.folder)

    def up(self) -> None:
        """Start all services in the order that the file's conditions give.

        podman-compose does not wait for health under podman before 4.6, and starts nothing that depends on a service
        that has completed; so the test waits, and says --no-deps.
        """
        self._start("postgres")
        (postgres,) = self.containers("postgres")
        deadline = time.monotonic() + STUDY_SECONDS
        while self.engine.run_inside("podman", "healthcheck", "run", postgres).returncode != 0:
            assert time.monotonic() < deadline, self.logs("postgres")
            time.sleep(POLL_SECONDS)
        self._start("init")
        (init,) = self.containers("init")
        assert self.engine.podman("wait", init).strip() == "0", self.logs("init")
        self._start("worker", "dashboard")

    def _start(self, *services: str) -> None:
        started = self.compose("up", "--detach", "--no-deps", *services)
        assert started.returncode == 0, started.stdout + started.stderr

    def ask(self, *command: str) -> Any:
        """The JSON answer of one of our commands, run by another container of the service `init`."""
        done = self.compose("run", "--rm", "--no-deps", "-T", "init", *command, "--json")
        assert done.stdout.lstrip().startswith("{"), f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return json.loads(done.stdout)

    def get(self, path: str, token: str = "") -> tuple[int, str]:
        """Status and body of a page at the dashboard's published port."""
        url = f"http://127.0.0.1:{DASHBOARD_PORT}{path}"
        done = self.engine.run_inside(sys.executable, "-c", FETCH, url, f"Bearer {token}")
        assert done.returncode == 0, done.stderr
        status, _, body = done.stdout.partition("\n")
        return int(status), body

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers, stopped ones too."""
        labels = (f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}")
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        return self.engine.podman("ps", "--all", "--quiet", "--no-trunc", *filters).split()

    def logs(self, service: str) -> str:
        """What a service's containers wrote."""
        done = [self.engine.run_inside("podman", "logs", container) for container in self.containers(service)]
        return "\n".join(answer.stdout + answer.stderr for answer in done)

    def query(self, statement: str) -> list[list[str]]:
        """Rows of the database, as its owner."""
        (postgres,) = self.containers("postgres")
        psql = ("exec", postgres, "psql", "--username=fmnist", "--dbname=fmnist", "--no-align", "--tuples-only")
        done = self.engine.run_inside("podman", *psql, "--command", statement)
        return [line.split("|") for line in done.stdout.splitlines()]

    def wait_for(self, statement: str, n_rows: int = 1, seconds: float = STUDY_SECONDS) -> list[list[str]]:
        """Wait until a query has so many rows; it may fail while there is no database yet."""
        deadline = time.monotonic() + seconds
        while len(rows := self.query(statement)) < n_rows:
            assert time.monotonic() < deadline, f"{statement}: {rows}\n{self.logs('init')}\n{self.logs('worker')}"
            time.sleep(POLL_SECONDS)
        return rows


@contextlib.contextmanager
def running_project(engine: Engine, folder: Path, **variables: str) -> Iterator[Project]:
    """All services within the block; nothing of them is left after it.

    Args:
        folder: An empty one.
        variables: Lines of .env.
    """
    for name in ("docker-compose.yml", "deploy/postgres", "deploy/make_secrets.py", "studies"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=lambda *_: {"artifacts", "logs"})
        else:
            shutil.copyfile(ROOT / name, target)
    subprocess.run([sys.executable, "deploy/make_secrets.py"], cwd=folder, check=True)
    (folder / "override.yml").write_text(OVERRIDE)
    lines = {"VERSION": VERSION, "DASHBOARD_PORT": DASHBOARD_PORT, **variables}
    (folder / ".env").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    open_to_others(folder)
    project = Project(engine, folder)
    try:
        project.up()
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")


def open_to_others(folder: Path) -> None:
    """Let others read pytest's folders, which are for their owner alone: containers run as another user."""
    for path in (folder, *folder.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)


def kill_from_outside(engine: Engine, container: str) -> None:
    """End a container's first process as the system does for want of memory; podman does not know who it was."""
    os.kill(int(engine.inspect(container)["State"]["Pid"]), 9)
