"""The processes that commands of the tests start warm from: begun once a test run, and asked for one command each."""

import fcntl
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
from warm_children import fork_forkserver

from fmnist_optuna.settings import HASH_SEED, SAFE_PATH, SET_BY_US, prepare_training_environment, set_hash_seed

WARM = Path(__file__).with_name("warm.py")
WARM_CHILDREN = Path(__file__).with_name("warm_children.py")
LOADS_TENSORFLOW = {"export", "predict"}
STARTS_CHILDREN = {"run", "worker", "confirm", "export", "reproduce", "predict", "spec"}
READY_SECONDS = 180.0  # for imports, on a busy machine
POLL_SECONDS = 0.05
NOBODY_LISTENS = "http://127.0.0.1:9"  # the discard port: as a proxy it makes every download fail at once
SET_BY_TENSORFLOW = ("TF2_", "KMP_", "TPU_ML_", "HDF5_")  # when a test of this process imports it
READ_FIRST = ("PYTHON", "KERAS", "TF_", *SET_BY_TENSORFLOW)
REMOVED = ("FMNIST_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "XDG_", "CI", *READ_FIRST)


def clean_environment(folder: Path) -> dict[str, str]:
    """That of the tests without anything that changes an answer; home and caches are empty folders in this one."""
    home = folder / "home"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(REMOVED) and not k.lower().endswith("_proxy")}
    return {
        **clean,
        HASH_SEED: "0",  # else `worker` would begin anew with it, cold
        "COLUMNS": "80",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "KERAS_HOME": str(home / "keras"),
        "http_proxy": NOBODY_LISTENS,
        "https_proxy": NOBODY_LISTENS,
    }


def environment_of_warm() -> dict[str, str]:
    """That of the tests; but commands keep what they compile of the project, and hash strings as a fresh one would."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONHASHSEED": "0"}


def environment_of_children() -> dict[str, str]:
    """What every command sets for its children before they import TensorFlow."""
    environment = {SAFE_PATH: SET_BY_US}
    prepare_training_environment(environment)
    set_hash_seed(environment)
    return environment


class WarmStarter:
    """Starts commands from a process that has imported what most of them import; see `warm`.

    All processes of a test run share it: who first needs it starts it, and it ends soon after the run.
    """

    def __init__(self) -> None:
        is_one_of_several = "PYTEST_XDIST_WORKER" in os.environ
        self._run = os.getppid() if is_one_of_several else os.getpid()  # pid of the test run
        name = f"warm-{self._run}-{psutil.Process(self._run).create_time():.0f}"  # a later run may have the same pid
        self._folder = Path(tempfile.gettempdir()) / name  # short: a socket's name has 100 characters
        self._folder.mkdir(exist_ok=True)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        arguments: Sequence[str | Path],
        folder: Path,
        environment: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any],
    ) -> "WarmProcess":
        """A command that runs in a process group of its own.

        Args:
            arguments: The console script, the command and what follows it.
            folder: The current folder of the command.
        """
        order = {
            "arguments": list(map(str, arguments)),
            "folder": str(folder),
            "environment": environment,
            "children": str(self.children()) if str(arguments[1]) in STARTS_CHILDREN else None,
        }
        with open(os.devnull, "rb") as stdin:  # noqa: PTH123
            streams = [stdin.fileno(), stdout.fileno(), stderr.fileno()]
            if str(arguments[1]) in LOADS_TENSORFLOW:
                client = self._connect(self.children())
                request = {"order": order, "environment": {**environment_of_children(), **environment}}
                socket.send_fds(client, [json.dumps(request).encode()], streams)
                process = WarmProcess(client)
                if process.pid:
                    return process
            client = self._connect(self._start(WARM, environment_of_warm()))
            socket.send_fds(client, [json.dumps(order).encode()], streams)
        return WarmProcess(client)

    def fork_children_here(self) -> None:
        """Let children that the tests start in their own process be forked too, from the first one on.

        Of what Python and TensorFlow read when they start, only what a test sets is heeded: they start cold then.
        """
        before = dict(os.environ)

        def find() -> tuple[str, dict[str, str]]:
            environment = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(READ_FIRST)
                or (before.get(name) != value and not name.startswith(SET_BY_TENSORFLOW))
            }
            own = {"KERAS_HOME": str(self._folder / "home" / "keras"), **environment_of_children()}
            return str(self.children()), {**own, **environment}

        fork_forkserver(find)

    def children(self) -> Path:
        """Address of the process that servers of children are forked from."""
        return self._start(WARM_CHILDREN, clean_environment(self._folder) | environment_of_children())

    def _start(self, script: Path, environment: Mapping[str, str]) -> Path:
        """Address of the process that runs a script, which is started unless somebody has done so."""
        address = self._folder / script.stem
        with (self._folder / f"{script.stem}.lock").open("w") as lock, (self._folder / "log").open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            started = self._folder / f"{script.stem}.started"
            if not started.exists():
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, script, address, str(self._run)],
                        env=dict(environment),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        process_group=0,  # a Ctrl-C is for the test run, whose end it notices
                    )
                )
                started.touch()
        return address

    def _connect(self, address: Path) -> socket.socket:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(READY_SECONDS)
            try:
                client.connect(str(address))
            except (FileNotFoundError, ConnectionRefusedError):  # it still imports
                client.close()
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(POLL_SECONDS)
            else:
                return client


class WarmProcess:
    """A command that was started warm; what a Popen of it would offer.

    Args:
        client: A connection that answers with the pid, then with the exit status; with "cold" if it starts nothing.

    The pid is 0 if nothing was started.
    """

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._replies = client.makefile()
        self.pid = int(self._replies.readline().replace("cold", "0"))
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit status; None while the command runs."""
        return self._code if self._code is not None or not select.select([self._client], [], [], 0)[0] else self.wait(1)

    def wait(self, seconds: float | None = None) -> int:
        """The exit status, once the command has ended; TimeoutError if it does not."""
        if self._code is None:
            self._client.settimeout(seconds)
            self._code = int(self._replies.readline())
            self._replies.close()
            self._client.close()
        return self._code

    def send_signal(self, signum: int) -> None:
        """As `kill` does."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """At once."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def warm_starter() -> WarmStarter:
    """One for this process."""
    return WarmStarter()
