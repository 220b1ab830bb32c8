"""A folder in which commands are typed: the console script, a clean environment, no network, no terminal."""

import functools
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
from warm_starter import WarmProcess, clean_environment, warm_starter

from fmnist_optuna.log import read_message

COMMAND = Path(sys.executable).with_name("fmnist-optuna")
TIMEOUT_SECONDS = 180.0  # no command here takes more than a tenth of it, on two busy cores
POLL_SECONDS = 0.05
ADDRESS = r"http://127\.0\.0\.1:\d+/\S*"
KERAS_SETTINGS = {"home", "home/keras", "home/keras/keras.json"}  # written whenever Keras is imported

SMOKE = """\
name = "smoke"
[data]
source = "synthetic"
[grid]
hidden_size = [16, 32]
dropout_rate = [0.2]
learning_rate = [0.01, 0.001]
[training]
max_epochs = 3
[pruner]
name = "none"
"""

SMALL = """\
name = "small"
[data]
source = "synthetic"
[grid]
hidden_size = [16]
dropout_rate = [0.2]
learning_rate = [0.01, 0.001]
[training]
max_epochs = 2
[pruner]
name = "none"
"""

# Of two points, behind [data]: the rest of a study in which each of them has several cells.
TWO_POINTS = """\
[grid]
hidden_size = [4, 16]
learning_rate = [0.001]
dropout_rate = [0.25]
[training]
batch_size = 500
max_epochs = 2
"""

# An attempt at its only cell never ends by itself.
ENDLESS = """\
name = "endless"
[data]
source = "synthetic"
[grid]
hidden_size = [16]
dropout_rate = [0.2]
learning_rate = [0.01]
[training]
max_epochs = 30000
patience = 30000
"""

# Every epoch takes the seconds that the file `pace` holds; without the file it takes what it takes.
PACED = SMALL.replace("max_epochs = 2", 'max_epochs = 2\ncallbacks = ["pace:make"]')
PACE = """\
import time
from pathlib import Path

import keras


class Pace(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if Path("pace").exists() and self.params["steps"] > 20:  # the rehearsal before a run has a few
            time.sleep(float(Path("pace").read_text()))


def make():
    return Pace()
"""


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.stdout)

    @property
    def errors(self) -> list[str]:
        """The lines of standard error that say what is wrong; of JSON lines their messages."""
        return [line for line in map(read_message, self.stderr.splitlines()) if line.startswith("Error: ")]


@dataclass(frozen=True)
class Shell:
    """A folder in which commands are typed.

    Args:
        folder: The current folder of every command.
        variables: Environment variables beyond the clean ones.
    """

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """That of the tests without anything that changes an answer; home and caches are empty folders."""
        return {**clean_environment(self.folder), **self.variables}

    def __call__(self, *arguments: str | Path) -> Answer:
        """Type a command and wait for its end; it starts warm where nothing in its environment is read at the start."""
        if any(name.startswith(("PYTHON", "LANG", "LC_")) for name in self.variables):
            return self.cold(*arguments)
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            process = _start_warm(self, arguments, stdout, stderr)
            try:
                code = process.wait(TIMEOUT_SECONDS)
            except TimeoutError:
                process.kill()
                raise
            return Answer(code, *(_read_all(stream) for stream in (stdout, stderr)))

    def cold(self, *arguments: str | Path) -> Answer:
        """Type a command and wait for its end; a new interpreter runs the console script."""
        done = subprocess.run(
            [COMMAND, *arguments], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str | Path) -> "Started":
        """Type a command and let it run, in a process group that holds all that it starts; it starts warm."""
        return Started(self.folder, functools.partial(_start_warm, self, arguments))

    def start_cold(self, *arguments: str | Path) -> "Started":
        """The same; a new interpreter runs the console script, with the signals that this process ignores."""
        return Started(self.folder, functools.partial(_start_cold, self, arguments))

    def with_variables(self, **variables: str) -> "Shell":
        """The same folder with further variables."""
        return Shell(self.folder, {**self.variables, **variables})

    def write(self, name: str, text: str) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_text(text)
        return path

    @property
    def database(self) -> Path:
        """The default storage."""
        return self.folder / "studies" / "studies.db"

    def query(self, statement: str) -> list[Any]:
        """Rows of the database, read without a writer's lock; none while it does not exist."""
        if not self.database.exists():
            return []
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError:
            if connection.execute("SELECT * FROM sqlite_master WHERE name = 'fmnist_schema_version'").fetchall():
                raise  # the statement is wrong
            return []  # its tables are being made
        finally:
            connection.close()

    def wait_for(self, statement: str, n_rows: int = 1, seconds: float = TIMEOUT_SECONDS) -> list[Any]:
        """Wait until a query has so many rows."""
        deadline = time.monotonic() + seconds
        while len(rows := self.query(statement)) < n_rows:
            assert time.monotonic() < deadline, f"{statement!r} must give {n_rows} rows, but gave {rows}"
            time.sleep(POLL_SECONDS)
        return rows

    def files(self) -> set[str]:
        """Everything in the folder, by its path from there; Keras' own settings in the home folder aside."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")} - KERAS_SETTINGS


def _read_all(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode().replace("\r\n", "\n")


def _start_warm(shell: Shell, arguments: Sequence[str | Path], stdout: IO[Any], stderr: IO[Any]) -> WarmProcess:
    return warm_starter().start([COMMAND, *arguments], shell.folder, shell.environment, stdout, stderr)


def _start_cold(
    shell: Shell, arguments: Sequence[str | Path], stdout: IO[str], stderr: IO[str]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [COMMAND, *arguments], cwd=shell.folder, env=shell.environment, stdin=subprocess.DEVNULL,
        stdout=stdout, stderr=stderr, process_group=0,
    )  # fmt: skip


class Started:
    """A command that runs; at the end of its `with` block nothing of it is left."""

    def __init__(
        self, folder: Path, start: Callable[[IO[str], IO[str]], "subprocess.Popen[bytes] | WarmProcess"]
    ) -> None:
        serial = len(list(folder.glob("*.stdout")))
        self._files = [folder / f"{serial}.{stream}" for stream in ("stdout", "stderr")]
        with self._files[0].open("w") as stdout, self._files[1].open("w") as stderr:
            self.process = start(stdout, stderr)
        self.pid = self.process.pid

    def wait(self, seconds: float = TIMEOUT_SECONDS) -> Answer:
        """The answer, once the command has ended."""
        code = self.process.wait(seconds)
        return Answer(code, *(path.read_text() for path in self._files))

    def signal_group(self, signum: int) -> None:
        """What a terminal does at Ctrl-C: a signal to the command and to all that it started."""
        os.killpg(self.pid, signum)

    def descendants(self) -> list[psutil.Process]:
        """The processes that it started, and theirs: all others of its group, whoever's children they are."""
        return [process for process in processes_of_group(self.pid) if process.pid != self.pid]

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            left = self.descendants()
            self.process.kill()
            self.process.wait()
            for process in left:
                kill(process)


@dataclass(frozen=True)
class FinishedStudy:
    """The smoke study after its first run: four cells, three epochs each."""

    shell: Shell
    run: Answer


def processes_of_group(group: int) -> list[psutil.Process]:
    """The processes of a process group, whoever's children they are."""

    def is_in(process: psutil.Process) -> bool:
        try:
            return os.getpgid(process.pid) == group
        except ProcessLookupError:
            return False

    return [process for process in psutil.process_iter() if is_in(process)]


def make_paced(folder: Path, pace_seconds: float) -> Shell:
    """A new folder with a study of two cells whose epochs take so long, until the file `pace` is removed."""
    folder.mkdir()
    shell = Shell(folder)
    shell.write("pace.py", PACE)
    shell.write("study.toml", PACED)
    shell.write("pace", str(pace_seconds))
    return shell


def wait_for_address(started: Started, file: Path, pattern: str = ADDRESS) -> str:
    """The address that a command which serves has written into the file of a stream once it listens."""
    deadline = time.monotonic() + 60
    while not (found := re.findall(pattern, file.read_text())):
        assert started.process.poll() is None, file.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return str(found[0])


def ask(url: str, method: str = "GET", token: str | None = None) -> tuple[int, bytes]:
    """Status and body."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with opener.open(urllib.request.Request(url, method=method, headers=headers), timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def kill(process: psutil.Process) -> None:
    """Kill a process that may have ended; psutil knows it by pid and start time."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def wait_until_gone(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """The processes that still live after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := [p for p in processes if is_alive(p)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def values_by_size(trials: Sequence[Any], number: str) -> dict[int, dict[int, float]]:
    """Of each point of TWO_POINTS, by its hidden_size, the values of its cells, by the parameter that numbers them."""
    values: dict[int, dict[int, float]] = {}
    for trial in trials:
        values.setdefault(trial["params"]["hidden_size"], {})[trial["params"][number]] = trial["val_accuracy"]
    return values


def two_at_a_time(calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The results of independent calls, by name."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        futures = {name: pool.submit(call) for name, call in calls.items()}
        return {name: future.result() for name, future in futures.items()}
