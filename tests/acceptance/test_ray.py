"""`run --ray` on a real cluster of two nodes, of which one is lost: what a study, a person and a password see of it."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from awkward_password import HALVES, VARIABLE, has_password, show
from ray_cluster import VARIABLES, Cluster, running_cluster
from shell import ENDLESS, PACE, Answer, Shell, Started, is_alive
from sqlalchemy import URL

pytestmark = pytest.mark.cluster

# The module is in the folder of the study file, which is not the current one: a node has it from Ray alone.
STUDY = """\
name = "spread"
[data]
source = "synthetic"
[grid]
hidden_size = [8, 16]
dropout_rate = [0.2]
learning_rate = [0.01, 0.001]
[training]
max_epochs = 2
callbacks = ["pace:make"]
[pruner]
name = "none"
"""
HELPER = 'NAME = "pace"\n'
MODULE = PACE.replace("import keras", "import keras\nfrom told.helper import NAME").replace('"pace"', "NAME")
PACE_SECONDS = "4"  # of an epoch; two of them in each of four cells outlast what is waited for
SECONDS = 240.0  # for what takes a few, on a busy machine
API = ("/api/jobs/", "/api/v0/actors?detail=1", "/api/v0/tasks?detail=1", "/api/v0/runtime_envs?detail=1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with one CPU."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path, for Ray's sockets
    try:
        with running_cluster(folder) as running:
            running.start_head(n_cpus=1)
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Run:
    """A study that was trained on two nodes, of which one was lost.

    Args:
        shell: The folder that the nodes share.
        answer: Of `run`.
        lines: Command lines of all processes of the cluster and of the run, before the node was lost.
        api: What the dashboard has answered then.
    """

    shell: Shell
    answer: Answer
    lines: list[str] = field(default_factory=list)
    api: dict[str, str] = field(default_factory=dict)


def make_shell(folder: Path, url: URL) -> Shell:
    """A folder with a study in a folder of it, and with the pace of its epochs."""
    shell = Shell(folder, {**VARIABLES, VARIABLE: show(url)})
    (folder / "mine" / "told").mkdir(parents=True)
    shell.write("mine/study.toml", STUDY)
    shell.write("mine/pace.py", MODULE)
    shell.write("mine/told/__init__.py", "")
    shell.write("mine/told/helper.py", HELPER)
    shell.write("pace", PACE_SECONDS)
    return shell


def rows(url: URL, statement: str) -> list[Any]:
    """Of the database; none while its tables are being made."""
    with psycopg.connect(show(url)) as connection:
        try:
            return connection.execute(statement).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def wait_until(is_so: Callable[[], bool], started: Started, what: str) -> None:
    until = time.monotonic() + SECONDS
    while not is_so():
        text = "\n".join(path.read_text() for path in started._files)
        assert started.process.poll() is None, f"{what}: {text}"
        assert time.monotonic() < until, f"{what}: {text}"
        time.sleep(0.1)


def workers_at_work(url: URL) -> int:
    """How many workers hold a cell of which an epoch is stored."""
    held = rows(url, "SELECT DISTINCT c.worker FROM fmnist_cells c JOIN fmnist_epochs e USING (trial_id) "
                     "WHERE c.state = 'running'")  # fmt: skip
    return len(held)


def command_lines(cluster: Cluster, started: Started) -> list[str]:
    """Of all processes that belong to it."""
    processes = [child for node in cluster.nodes for child in (node, *node.children(recursive=True))]
    processes += [psutil.Process(started.pid), *started.descendants()]
    return [" ".join(process.cmdline()) for process in processes if is_alive(process)]


@pytest.fixture(scope="module")
def spread(cluster: Cluster, awkward_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The second node is killed when both workers have a cell; there is no room for its worker any more."""
    cluster.start_node(n_cpus=1)
    shell = make_shell(tmp_path_factory.mktemp("spread"), awkward_url)
    with shell.start("run", "mine/study.toml", "--ray", cluster.address, "--workers", "2") as started:
        wait_until(lambda: workers_at_work(awkward_url) == 2, started, "two workers at work")
        run = Run(shell, Answer(-1, "", ""), command_lines(cluster, started))
        run.api = {path: str(cluster.ask(path)) for path in API}
        cluster.kill_node(1)
        stderr = started._files[1]
        wait_until(lambda: "no_room_on_nodes" in stderr.read_text(), started, "no room is said")
        (shell.folder / "pace").unlink()
        run.answer = started.wait()
    return run


def test_a_lost_node_costs_an_attempt_and_no_result(spread: Run) -> None:
    """The others finish the study, `verify` proves it, and three lines say what became of the node."""
    assert spread.answer.code == 0, spread.answer.stderr
    verified = spread.shell("verify")
    assert verified.code == 0, verified.stderr
    assert spread.shell("status", "--json").json["cells"]["complete"] == 4
    lines = spread.answer.stderr.splitlines()
    assert len([line for line in lines if "no_room_on_nodes" in line]) == 1, lines
    assert [line for line in lines if "worker_died" in line and "is lost on its node" in line], lines
    assert spread.answer.stdout.startswith("Winner of spread")


def test_a_run_says_where_its_workers_are(spread: Run, cluster: Cluster) -> None:
    """Nodes, CPUs, workers and the address of Ray's dashboard; and each worker has a log of its own here."""
    address = f"http://127.0.0.1:{cluster.dashboard_port}"
    line = f"Ray: 2 nodes, 2 CPU; 2 workers of 1 CPU; its dashboard: {address}"
    assert line in spread.answer.stderr.splitlines(), spread.answer.stderr
    logs = {path.name: path.read_text() for path in (spread.shell.folder / "studies" / "logs").glob("*.log")}
    assert len(logs) == 3, logs  # the third waited for room
    assert sum("worker_done" in text for text in logs.values()) == 1, logs
    assert sum("is lost on its node" in text for text in logs.values()) == 1, logs


def test_no_part_of_ray_shows_the_password(spread: Run, cluster: Cluster) -> None:
    """Neither a command line, nor what the dashboard answers, nor any file of Ray's sessions; nor ours."""
    assert any("ray::" in line for line in spread.lines)
    assert "WorkerHost" in spread.api["/api/v0/actors?detail=1"]
    assert [text for text in (*spread.lines, *spread.api.values()) if has_password(text)] == []
    files = dict(cluster.texts())
    assert any("raylet" in name for name in files)
    assert [name for name, content in files.items() if any(half.encode() in content for half in HALVES)] == []
    own = [path for path in spread.shell.folder.rglob("*") if path.is_file()]
    assert [path for path in own if has_password(path.read_text(errors="replace"))] == []
    assert not has_password(spread.answer.stderr + spread.answer.stdout)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_ends_leaves_nothing_on_the_cluster(
    cluster: Cluster, empty_postgres_url: str, tmp_path: Path, spread: Run, signum: int
) -> None:
    """At SIGTERM the worker gives its cell back; when `run` is killed its actor and its worker end all the same."""
    from sqlalchemy import make_url

    url = make_url(empty_postgres_url)
    shell = make_shell(tmp_path, url)
    shell.write("pace", "1")
    with shell.start("run", "mine/study.toml", "--ray", cluster.address, "--workers", "1") as started:
        wait_until(lambda: workers_at_work(url) == 1, started, "a worker at work")
        (pid,) = [pid for (pid,) in rows(url, "SELECT pid FROM fmnist_workers")]
        worker = psutil.Process(pid)
        os.kill(started.pid, signum)
        answer = started.wait()
    assert answer.code == (128 + signum if signum == signal.SIGTERM else -signum), answer.stderr
    until = time.monotonic() + SECONDS
    while is_alive(worker) or living_actors(cluster):
        assert time.monotonic() < until
        time.sleep(0.2)
    if signum == signal.SIGTERM:
        assert rows(url, "SELECT * FROM fmnist_cells WHERE state = 'running'") == []
        assert rows(url, "SELECT * FROM fmnist_workers") == []


@pytest.mark.slow
def test_overlong_attempts_fail_as_in_a_local_run(cluster: Cluster, empty_postgres_url: str, tmp_path: Path) -> None:
    """Three times the worker on the node is killed, then the cell has failed: each attempt names the limit."""
    shell = Shell(tmp_path, {**VARIABLES, VARIABLE: empty_postgres_url})
    study = shell.write("endless.toml", ENDLESS)
    answer = shell("run", study, "--ray", cluster.address, "--workers", "1", "--trial-timeout", "3s")
    assert answer.code == 6, answer.stderr
    limit = "trial time limit of 3 s exceeded"
    assert f"failed: hidden_size 16, dropout_rate 0.2, learning_rate 0.01: {limit}" in answer.stderr
    attempts = shell("trials", "--json").json["trials"]
    assert [(attempt["state"], attempt["reason"], attempt["error"]) for attempt in attempts] == [
        ("FAIL", "limit", limit)
    ] * 3


def living_actors(cluster: Cluster) -> int:
    """Actors that Ray runs, starts or restarts."""
    actors = cluster.ask("/api/v0/actors")["data"]["result"]["result"]
    return sum(actor["state"] != "DEAD" for actor in actors)
