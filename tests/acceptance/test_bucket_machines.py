"""Artifacts in a bucket, as people type it: machines with nothing in common but a database and a bucket of S3."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, KEYS, Relay, S3Server, running_s3
from shell import SMALL, Answer, Shell, make_paced

pytestmark = pytest.mark.cluster

GARMENTS = """\
name = "garments"
[data]
source = "synthetic"
[grid]
hidden_size = [8, 16]
dropout_rate = [0.2]
learning_rate = [0.01, 0.001]
[training]
max_epochs = 4
callbacks = ["together:make"]
[pruner]
name = "ladder"
first_rung = 1
"""


# No epoch ends before both machines train, so that neither does it all.
TOGETHER = """\
import time
from pathlib import Path

import keras


class Together(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        while Path("alone").exists() and self.params["steps"] > 20:  # the rehearsal before a study has a few
            time.sleep(0.05)


def make():
    return Together()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


@dataclass(frozen=True)
class Machines:
    """A study that two machines have trained.

    Args:
        first: Made it.
        second: Learnt from the database where its artifacts are.
        workers: The answers of their workers.
        n_epochs: That each of them has trained.
        run: Of the second, which tests the winner.
    """

    first: Shell
    second: Shell
    workers: tuple[Answer, Answer]
    n_epochs: tuple[int, ...]
    run: Answer


def count_events(machine: Shell, name: str) -> int:
    """Of the worker of a machine."""
    file = machine.folder / "events"
    return file.read_text().count(f'"event":"{name}"') if file.exists() else 0


@pytest.fixture(scope="module")
def machines(server: S3Server, tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[Machines]:
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bucket_machines TEMPLATE template0")
    url = postgres_server.rsplit("/", 1)[0] + "/bucket_machines"
    variables = {**server.variables, "FMNIST_OPTUNA_STORAGE": url}
    first, second = (Shell(tmp_path_factory.mktemp(name), variables) for name in ("first", "second"))
    for machine in (first, second):
        machine.write("together.py", TOGETHER)
    made = first("init", first.write("garments.toml", GARMENTS), "--artifacts", server.url)
    assert made.code == 0, made.stderr
    alone = [machine.write("alone", "") for machine in (first, second)]
    with first.start("worker", "--events", "events") as one, second.start("worker", "--events", "events") as other:
        wait_until(lambda: count_events(first, "trial_began") > 0 and count_events(second, "trial_began") > 0)
        for file in alone:
            file.unlink()
        workers = one.wait(), other.wait()
    n_epochs = tuple(count_events(machine, "epoch_ended") for machine in (first, second))
    yield Machines(first, second, workers, n_epochs, second("run", second.write("garments.toml", GARMENTS)))
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP DATABASE bucket_machines WITH (FORCE)")


def test_two_machines_share_a_study(machines: Machines, server: S3Server) -> None:
    """Both workers train until it is done; `run` elsewhere tests the winner; all agree, and no weights lie here."""
    assert [answer.code for answer in (*machines.workers, machines.run)] == [0, 0, 0], machines
    assert min(machines.n_epochs) > 0, machines
    assert machines.first("verify").code == 0
    status = machines.first("status", "--json").json
    assert (status["cells"]["done"], status["artifacts"], status["checkpoint_bytes"]) == (4, "s3://studies/garments", 0)
    assert "artifacts in s3://studies/garments" in machines.second("status").stdout
    kept = [key for key in server.list_keys() if key.startswith("garments/")]
    assert len(kept) == status["cells"]["complete"] + 2  # the winner's pictures
    for shell in (machines.first, machines.second):
        assert not [name for name in shell.files() if name.startswith("studies/artifacts")]


def test_what_comes_after_needs_no_folder(machines: Machines, server: S3Server) -> None:
    """Reproduced, confirmed, exported, reported and shown by the machine that did not make it."""
    second = machines.second
    winner = second("best", "--json").json["trial"]
    for arguments in (
        ("reproduce", str(winner)),
        ("confirm", "--top", "1", "--seeds", "2"),
        ("export", "garments"),
        ("report", "garments"),
        ("show", str(winner), "garments"),
    ):
        answer = second(*arguments)
        assert answer.code == 0, (arguments, answer.stderr)
    gone = machines.first("delete", "garments", "--yes")
    assert gone.code == 0, gone.stderr
    assert [key for key in server.list_keys() if key.startswith("garments/")] == []


def read_logs(shell: Shell) -> str:
    """What the workers have said."""
    return "".join(path.read_text() for path in (shell.folder / "studies" / "logs").glob("*"))


def wait_until(is_so: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def credentials_in(answer: Answer) -> list[str]:
    return [name for name, value in KEYS.items() if value in answer.stdout + answer.stderr]


@pytest.mark.parametrize("command", ["run", "init"])
def test_a_bucket_that_cannot_be_used_is_said_first(shell: Shell, server: S3Server, command: str) -> None:
    """One line, status 5 (2 for another form), and nothing is made."""
    shell = shell.with_variables(**server.variables, FMNIST_OPTUNA_ARTIFACTS=server.url.replace("studies", "nobody"))
    study = shell.write("small.toml", SMALL)
    before = shell.files()
    answer = shell(command, study, "--debug")
    assert (answer.code, len(answer.errors), credentials_in(answer)) == (5, 1, []), answer.stderr
    assert "s3://nobody/garments at http://127.0.0.1:" in answer.errors[0]
    assert answer.errors[0].endswith("but it answers NoSuchBucket (404); make the bucket, or name another.")
    wrong = shell(command, study, "--artifacts", f"s3://{KEYS['AWS_SECRET_ACCESS_KEY']}@studies/x")
    assert (wrong.code, len(wrong.errors), credentials_in(wrong)) == (2, 1, []), wrong.stderr
    assert shell.files() == before


def test_a_worker_checks_the_bucket_first(shell: Shell, server: S3Server) -> None:
    """Where it cannot write it ends with 5, unknown to the study; a run that names another place with 2."""
    shell = shell.with_variables(**server.variables)
    made = shell("init", shell.write("small.toml", SMALL), "--artifacts", server.url)
    assert made.code == 0, made.stderr
    relay = Relay(server)
    relay.refuse()
    wrong = shell.with_variables(FMNIST_OPTUNA_S3_ENDPOINT=f"http://127.0.0.1:{relay.port}")("worker", "--debug")
    assert (wrong.code, len(wrong.errors), credentials_in(wrong)) == (5, 1, []), wrong.stderr
    assert f"at http://127.0.0.1:{relay.port} must let this machine list it, but no connection" in wrong.errors[0]
    assert shell.query("SELECT * FROM fmnist_workers") == []
    other = shell("run", "small.toml", "--artifacts", server.url.replace("garments", "shirts"))
    assert (other.code, len(other.errors)) == (2, 1), other.stderr
    assert "study small: keeps its artifacts in s3://studies/garments at" in other.errors[0]
    assert shell("delete", "small", "--yes").code == 0


def test_a_run_outlives_an_outage_and_a_kill(tmp_path: Path, server: S3Server) -> None:
    """The bucket refuses connections while weights are to be stored, and a worker is killed: one result a cell."""
    relay = Relay(server)
    shell = make_paced(tmp_path / "paced", 1.0).with_variables(**server.variables)
    with shell.start("run", "study.toml", "--workers", "2", "--artifacts", relay.url) as run:
        shell.wait_for("SELECT * FROM fmnist_epochs", 2)
        relay.refuse()
        (shell.folder / "pace").unlink()
        wait_until(lambda: "storage_outage" in read_logs(shell))  # somebody has weights to store
        victims: list[Any] = shell.query("SELECT pid FROM fmnist_workers")
        os.kill(int(victims[0][0]), signal.SIGKILL)
        relay.accept()
        answer = run.wait()
    assert answer.code == 0, answer.stderr
    assert shell("verify").code == 0
    status = shell("status", "--json").json
    assert status["cells"]["complete"] == 2
    kept = [key for key in server.list_keys() if key.startswith("garments/")]
    assert len(kept) == 2 + 2  # and the winner's pictures
    assert shell("delete", "small", "--yes").code == 0
    relay.refuse()


def test_a_bucket_that_is_gone_counts_against_no_cell(tmp_path: Path, server: S3Server) -> None:
    """A run and a worker that cannot store weights end with 5; both cells wait at once, and a later run has them."""
    shell = make_paced(tmp_path / "refused", 1.0).with_variables(**server.variables)
    server.empty()
    for command in ("run", "study.toml", "--workers", "2", "--artifacts", server.url), ("worker", "small"):
        shell.write("pace", "1.0")
        with shell.start(*command) as started:
            shell.wait_for("SELECT * FROM fmnist_epochs JOIN fmnist_cells USING (trial_id) WHERE state = 'running'", 1)
            server.empty()
            server.client.delete_bucket(Bucket=BUCKET)
            (shell.folder / "pace").unlink()
            answer = started.wait()
        server.client.create_bucket(Bucket=BUCKET)
        assert answer.code == 5, answer.stderr
        assert "NoSuchBucket (404); make the bucket, or name another" in answer.errors[0]
        assert shell.query("SELECT state, lost, failures FROM fmnist_cells") == [("waiting", 0, 0)] * 2
    assert {trial["reason"] for trial in shell("trials", "small", "--json").json["trials"]} == {"stopped"}
    assert shell("run", "study.toml").code == 0
    assert shell("delete", "small", "--yes").code == 0
