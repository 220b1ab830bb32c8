"""Studies with real trials, each in a folder and a database of its own, and the processes of the commands at work.

A trial takes as long as a file says, which may change meanwhile, so that nothing here depends on the speed of training.
"""

import json
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from shell import POLL_SECONDS, TIMEOUT_SECONDS, Answer, Shell, Started, is_alive, processes_of_group, wait_until_gone

NAME = "bad-day"
STUDY = """\
name = "{name}"
[data]
source = "synthetic"
[grid]
hidden_size = [8]
dropout_rate = [0.2]
learning_rate = {rates}
[training]
max_epochs = 2
callbacks = {callbacks}
[pruner]
{pruner}
"""
WITHOUT_RUNGS = 'name = "none"'
WITH_RUNGS = 'name = "ladder"\nfirst_rung = 1\nkeep = 100'  # all are parked once, and none is cut

# An epoch lasts the seconds that the file `pace` holds, as it now stands.
PACE = """\
import time
from pathlib import Path

import keras


class Pace(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        began = time.monotonic()
        is_rehearsal = self.params["steps"] < 20  # before a run: a few steps
        while not is_rehearsal and time.monotonic() - began < float(Path("pace").read_text()):
            time.sleep(0.02)


def make():
    return Pace()
"""
GONE_SECONDS = 15.0  # for processes that notice the end of their parent and finish their epoch
HOLD_SECONDS = 600.0  # a pace: until it is changed
N_EPOCHS = "SELECT trial_id FROM fmnist_epochs"
HOLDERS = """
SELECT DISTINCT w.pid FROM fmnist_workers w JOIN fmnist_cells c ON c.worker = w.worker_id WHERE c.state = 'running'
"""

T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """A folder with a study file, and the database of its study.

    Args:
        shell: The folder, where commands are typed.
        url: The storage.
        n_cells: Of the study.
    """

    shell: Shell
    url: str
    n_cells: int

    @property
    def database(self) -> str:
        """Which kind it is: sqlite or postgres."""
        return "sqlite" if self.url.startswith("sqlite") else "postgres"

    @property
    def artifacts(self) -> Path:
        """The folder of the weights."""
        return self.shell.folder / "studies" / "artifacts"

    def pace(self, seconds: float) -> None:
        """Let every epoch, those that run included, last so long."""
        self.shell.write("next-pace", str(seconds)).replace(self.shell.folder / "pace")

    def rows(self, statement: str) -> list[Any]:
        """Rows of the database; none while it is away or has no tables."""
        if self.database == "sqlite":
            return self.shell.query(statement)
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                return connection.execute(statement).fetchall()
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return []

    def wait_for(self, statement: str, n_rows: int) -> list[Any]:
        """Wait until a query has so many rows."""
        return wait_until(lambda: rows if len(rows := self.rows(statement)) >= n_rows else [], statement)

    def holders(self) -> list[psutil.Process]:
        """The live workers that hold a cell."""
        pids = {pid for (pid,) in self.rows(HOLDERS)}
        return sorted((p for p in psutil.process_iter() if p.pid in pids and is_alive(p)), key=lambda p: p.pid)

    def claims(self) -> list[int]:
        """How often each cell was claimed, the fewest first."""
        return sorted(claims for (claims,) in self.rows("SELECT claims FROM fmnist_cells"))

    def create(self) -> None:
        """What `init` does, without a process that imports TensorFlow."""
        from fmnist_optuna.bridge.storage import create_storage
        from fmnist_optuna.data.source import load_splits
        from fmnist_optuna.ledger.options import StorageOptions
        from fmnist_optuna.spec.reading import read_spec
        from fmnist_optuna.study.joining import create_or_join

        spec = read_spec(self.shell.folder / "study.toml")
        splits = load_splits("synthetic", spec.data.n_validation, spec.data.split_seed, None)
        storage = create_storage(StorageOptions(self.url))
        create_or_join(storage, spec, splits.fingerprint)
        storage.close()

    def run(self, *options: str) -> Started:
        """Type `run` with two workers, or as many as the options say."""
        return self.shell.start_cold("run", "study.toml", "--workers", "2", *options)

    def logs(self) -> dict[str, str]:
        """The log of each supervised worker, by its name."""
        return {path.stem: path.read_text() for path in (self.shell.folder / "studies" / "logs").glob("*.log")}

    def is_locked(self) -> bool:
        """Whether somebody holds SQLite's write lock for longer than a transaction takes."""
        connection = sqlite3.connect(self.shell.database, timeout=1.0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        finally:
            connection.close()
        return False


def make_site(
    folder: Path,
    server_url: str | None,
    n_cells: int,
    lease: float,
    variables: Mapping[str, str] | None = None,
    callbacks: Sequence[str] = (),
    pruner: str = WITHOUT_RUNGS,
) -> Site:
    """A folder with a study of so many cells, and a database for it.

    Args:
        server_url: Of the Postgres server to make a database on; None for SQLite.
        lease: In seconds.
        variables: Further environment of the commands.
        callbacks: Beyond the pace's.
        pruner: The lines of its table.
    """
    folder.mkdir()
    url = f"sqlite:///{folder / 'studies' / 'studies.db'}" if server_url is None else create_database(server_url)
    shell = Shell(
        folder, {"FMNIST_OPTUNA_STORAGE": url, "FMNIST_OPTUNA_LEASE_SECONDS": str(lease), **(variables or {})}
    )
    shell.write("pace.py", PACE)
    rates = [round(0.001 * number, 3) for number in range(1, n_cells + 1)]
    named = json.dumps(["pace:make", *callbacks])
    shell.write("study.toml", STUDY.format(name=NAME, rates=rates, callbacks=named, pruner=pruner))
    site = Site(shell, url, n_cells)
    site.pace(HOLD_SECONDS)
    return site


def create_database(server_url: str) -> str:
    """A new database on a server, which is thrown away as a whole; returns its URL."""
    import psycopg
    from sqlalchemy import make_url

    name = f"commands_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def wait_until(condition: Callable[[], T], what: str, seconds: float = TIMEOUT_SECONDS) -> T:
    """Wait until something is there; returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} must come within {seconds:g} s"
        time.sleep(POLL_SECONDS)
    return found


def members(run: Started) -> list[psutil.Process]:
    """Every live process of a command, orphans included: it began a process group of its own, in which they stay."""
    return [process for process in processes_of_group(run.pid) if is_alive(process)]


def forkserver_of(run: Started) -> psutil.Process | None:
    """The process that the workers of a `run` are forked from; its command line names it."""
    for process in members(run):
        try:
            if process.ppid() == run.pid and "multiprocessing.forkserver" in " ".join(process.cmdline()):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def load_all_weights(site: Site) -> dict[str, Any]:
    """Load the weights of every COMPLETE trial into a model, in a child, as TensorFlow has no business here.

    Returns:
        How many are `loaded`, and the files of the artifact folder that are `stray`: neither weights of a trial nor
        pictures of the study.
    """
    script = f"import commands; commands._load_all_weights({site.url!r})"
    environment = {**site.shell.environment, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=site.shell.folder, env=environment,
        stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_SECONDS, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _load_all_weights(url: str) -> None:
    from optuna.artifacts import get_all_artifact_meta
    from proof import completed
    from small_study import open_session
    from stored_files import weights_path

    from fmnist_optuna.training.architecture import build_model, load_architecture
    from fmnist_optuna.training.weights import load_weights

    session = open_session(url, "prover", NAME)
    spec, folder = session.record.spec, session.storage.artifacts
    architecture = load_architecture(spec.model.architecture)
    paths: list[Path] = []
    for trial in completed(session):
        paths.append(weights_path(session, trial))
        model = build_model(architecture, spec, trial.params, session.record.info)
        load_weights(model, paths[-1], trial.user_attrs["weights_sha256"])
    pictures = {meta.artifact_id for meta in get_all_artifact_meta(session.optuna_study)}
    stray = [path.name for path in folder.iterdir() if path not in paths and path.name not in pictures]
    print(json.dumps({"loaded": len(paths), "stray": stray}))


def prove(site: Site, tally: Callable[..., None], **done: int) -> None:
    """Assert that the study is finished and sound, and note what was done to it."""
    answer = site.shell("verify", "--json")
    found = answer.json
    tally(
        cells=found["cells"], **done, lost=found["missing"], doubled=found["duplicates"],
        stuck=found["running"] + found["surplus_trials"],
    )  # fmt: skip
    assert (answer.code, found["ok"], found["cells"], found["results"]) == (0, True, site.n_cells, site.n_cells)
    assert (found["duplicates"], found["surplus_trials"], found["running"], found["failed"]) == (0, 0, 0, 0)


def assert_ended(answer: Answer, *runs: Started) -> None:
    """The command did its work, and no process of it is left."""
    assert answer.code == 0, answer.stderr
    assert_gone(*runs)


def assert_gone(*runs: Started) -> None:
    """No process of these commands is left."""
    for run in runs:
        assert wait_until_gone(members(run), GONE_SECONDS) == []
