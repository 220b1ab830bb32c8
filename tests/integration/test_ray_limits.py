"""`--trial-timeout` and `--memory-limit` of `run --ray`: a worker on a node is killed, and its attempt counts as here.

The actor is our own in this process, with calls that travel by pickle; supervisor, worker process and SIGKILL are real.
"""

import pickle
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from small_study import FAST, ON_SQLITE, begin_trial, make_spec, read_cell

from fmnist_optuna.ledger.holders import Process
from fmnist_optuna.ledger.records import Attempt, Claim
from fmnist_optuna.ledger.states import State
from fmnist_optuna.processes.children import start
from fmnist_optuna.study.attempts import list_attempts
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.launched import Launch
from fmnist_optuna.work.launchers import ray_host
from fmnist_optuna.work.launchers.local import WorkerProcess
from fmnist_optuna.work.launchers.ray import RayCluster
from fmnist_optuna.work.launchers.ray_options import RayOptions
from fmnist_optuna.work.launchers.ray_worker import Place
from fmnist_optuna.work.limits import Limits, WorkerLimits
from fmnist_optuna.work.loop import open_session
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.supervisor import TICK_SECONDS, Supervisor

pytestmark = [pytest.mark.more, ON_SQLITE]
SPEC = make_spec({"hidden_size": [8]})
PATIENCE_SECONDS = 120.0  # for what takes two, on a busy machine
TIMING = replace(FAST, lease_seconds=2 * PATIENCE_SECONDS)  # which nobody renews


def begin_and_hang(order: WorkerOrder) -> None:
    """Body of a worker process: it writes its limits into its log, begins the only cell, and never ends."""
    assert order.log_file is not None
    order.log_file.parent.mkdir(parents=True, exist_ok=True)
    order.log_file.write_text(f"{order.limits}\n")
    session = open_session(order)
    claim: Claim | None = session.ledger.claim(order.worker_id, order.generation)
    assert claim is not None
    begin_trial(session, claim)
    time.sleep(PATIENCE_SECONDS)


@dataclass
class Launches:
    """Starts workers, here or through an actor.

    Args:
        launch: As a supervisor calls it.
        processes: All that were started.
    """

    launch: Launch
    processes: list[WorkerProcess]


@dataclass
class Method:
    """A method of an actor that a thread runs, as Ray offers it."""

    pool: ThreadPoolExecutor
    method: Callable[..., object]

    def options(self, **_: object) -> "Method":
        return self

    def remote(self, *arguments: object) -> "Method":
        self._answer = self.pool.submit(self.method, *pickle.loads(pickle.dumps(arguments)))
        return self

    def future(self) -> "Future[Any]":
        return self._answer


class Node:
    """An actor in this process."""

    def __init__(self, folder: Path) -> None:
        host, pool = ray_host.WorkerHost(str(folder)), ThreadPoolExecutor()
        self.begin, self.run, self.glimpse, self.signal = (
            Method(pool, method) for method in (host.begin, host.run, host.glimpse, host.signal)
        )


@pytest.fixture(params=["here", "on a node"])
def launches(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Workers as processes of the supervisor, or of an actor."""
    processes: list[WorkerProcess] = []

    def launch_hanging(order: WorkerOrder) -> WorkerProcess:
        """As `launch_process`, but for what the process does."""
        process = start(begin_and_hang, (order,), name=order.worker_id)
        processes.append(WorkerProcess(order, process, None if process.pid is None else Process.of(process.pid)))
        return processes[-1]

    if request.param == "here":
        return Launches(launch_hanging, processes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_host, "search_in", lambda *_: None)
    monkeypatch.setattr(ray_host, "launch_process", launch_hanging)
    cluster = RayCluster(RayOptions("local"), SPEC, 1)
    cluster._places = [Place(lambda: Node(tmp_path), lambda _: None)]
    return Launches(cluster.launch, processes)


def break_limit(session: Session, limits: Limits, launches: Launches, folder: Path) -> tuple[Attempt, str]:
    """A supervisor with one worker, until an attempt has failed; returns that attempt, and the log of its worker.

    The limits hold once the attempt has begun, so that there is one.
    """
    worker_limits = WorkerLimits(limits.memory_bytes)  # as `run` gives them
    name, generation = session.record.name, session.record.generation
    order = WorkerOrder(session.storage.options, name, "", generation, None, limits=worker_limits)
    supervisor = Supervisor(session, order, 1, Limits(), folder, launches.launch)
    until = time.monotonic() + PATIENCE_SECONDS
    try:
        while not (failed := find_attempts(session, State.FAILED)):
            assert time.monotonic() < until
            if find_attempts(session, State.RUNNING):
                supervisor.limits = limits
            supervisor.tick()
            time.sleep(TICK_SECONDS)
        assert not launches.processes[0].is_alive
    finally:
        supervisor.stop(at_once=True)
        supervisor.wait()
    (log,) = folder.glob("*-1.log")  # of the first worker; another one may have begun
    return failed[0], log.read_text()


def find_attempts(session: Session, state: State) -> list[Attempt]:
    return [attempt for attempt in list_attempts(session) if attempt.state is state]


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (Limits(trial_seconds=0.5), "trial time limit of 0.5 s exceeded"),
        (Limits(memory_bytes=2**20), "memory limit of 1.0 MiB exceeded with "),
    ],
)
def test_a_worker_on_a_node_is_held_to_its_limits(
    new_session: Callable[..., Session], launches: Launches, limits: Limits, error: str, tmp_path: Path
) -> None:
    """It is killed, the limit is to blame and no loss, and the worker itself has been told what memory it has."""
    session = new_session("supervisor", spec=SPEC, timing=TIMING)
    attempt, log = break_limit(session, limits, launches, tmp_path / "logs")
    assert attempt.attributes.reason == "limit"
    assert str(attempt.attributes.error).startswith(error)
    cell = read_cell(session.storage, attempt.cell_id)
    assert (cell.failures, cell.lost) == (1, 0)
    assert log == f"{WorkerLimits(limits.memory_bytes)}\n"
