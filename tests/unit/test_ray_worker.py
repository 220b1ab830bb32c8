"""A worker on a node, as its supervisor sees it: what becomes of it when its actor answers, or does not."""

import signal
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fmnist_optuna import __version__
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.statuses import Status
from fmnist_optuna.work.launchers import ray_host, ray_worker
from fmnist_optuna.work.launchers.ray_host import Glimpse, Task
from fmnist_optuna.work.launchers.ray_worker import Place, RayWorker
from fmnist_optuna.work.order import WorkerOrder


@dataclass
class Method:
    """A method of an actor, whose answers a test gives; in the words of Ray."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    answers: list["Future[Any]"] = field(default_factory=list)

    def options(self, max_task_retries: int) -> "Method":
        assert max_task_retries == 0
        return self

    def remote(self, *arguments: Any) -> "Method":
        self.calls.append(arguments)
        self.answers.append(Future())
        return self

    def future(self) -> "Future[Any]":
        return self.answers[-1]


@dataclass
class Actor:
    """What stands in for a handle of Ray."""

    begin: Method = field(default_factory=Method)
    run: Method = field(default_factory=Method)
    glimpse: Method = field(default_factory=Method)
    signal: Method = field(default_factory=Method)


class Node:
    """A place whose actor answers when the test says so, and the worker in it."""

    def __init__(self, folder: Path) -> None:
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []
        self.n_told = 0
        self.log = folder / "w.log"
        order = WorkerOrder(StorageOptions("postgresql://me:secret@db/x"), "small", "w", 0, None, log_file=self.log)
        self.place = Place(self.make, self.killed.append)
        self.worker = RayWorker(order, Task(order, "1", True), self.place, self.tell)

    def make(self) -> Actor:
        self.actors.append(Actor())
        return self.actors[-1]

    def tell(self) -> None:
        self.n_told += 1

    @property
    def actor(self) -> Actor:
        return self.actors[0]

    def begin(self) -> None:
        """The actor has its place, and is told what to do."""
        self.actor.begin.answers[0].set_result(None)
        self.worker.look()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """An actor that has no place yet."""
    return Node(tmp_path)


def test_an_order_is_given_once_there_is_a_place(node: Node) -> None:
    """Ray would lose it with a node that it does not know to be lost; its URL is not shown."""
    node.worker.look()
    assert (node.actor.run.calls, node.worker.is_alive, node.n_told) == ([], True, 0)
    node.begin()
    assert node.actor.run.calls == [(node.worker.task,)]
    assert "secret" not in repr(node.worker)
    assert node.place.is_there


def test_it_is_said_when_there_is_no_room(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is waited for all the same."""
    monkeypatch.setattr(ray_worker, "ROOM_SECONDS", -1.0)
    node.worker.look()
    assert (node.n_told, node.worker.is_alive) == (1, True)


def test_the_log_comes_over_piece_by_piece(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which it was written; the last piece comes with the end."""
    monkeypatch.setattr(ray_worker, "GLIMPSE_SECONDS", 0.0)
    node.begin()
    node.worker.look()
    node.actor.glimpse.answers[0].set_result(Glimpse(b"one\n", 100))
    node.worker.look()
    assert (node.log.read_text(), node.worker.resident_bytes()) == ("one\n", 100)
    node.actor.glimpse.answers[1].set_result(Glimpse(b"two\n", 200))
    node.actor.run.answers[0].set_result(Glimpse(b"three\n", None, 75))
    assert not node.worker.is_alive
    node.worker.reap()
    assert (node.log.read_text(), node.worker.exit_code) == ("one\ntwo\nthree\n", 75)
    assert node.worker.describe_end() == "ended with exit code 75"
    assert node.killed == []


def test_a_lost_actor_ends_its_worker(node: Node) -> None:
    """Nobody saw how; the log says what Ray says, and the next worker has the same actor, which Ray restarts."""
    node.begin()
    node.actor.run.answers[0].set_exception(RuntimeError("The actor is unavailable:\n\tSocket closed"))
    assert not node.worker.is_alive
    node.worker.reap()
    assert node.worker.exit_code is None
    assert node.worker.describe_end().startswith("is lost on its node: ")
    assert "Socket closed" in node.log.read_text()
    assert (node.killed, node.place.actor) == ([], node.actor)


def test_an_actor_that_cannot_be_made_is_made_anew(node: Node) -> None:
    """As where the package is missing on its node: the log says so."""
    node.actor.begin.answers[0].set_exception(RuntimeError("No module named 'fmnist_optuna'"))
    assert not node.worker.is_alive
    node.worker.reap()
    assert "No module named 'fmnist_optuna'" in node.log.read_text()
    assert node.killed == [node.actor]
    assert node.place.actor is node.actors[1]


def test_who_waits_for_room_leaves_at_once(node: Node) -> None:
    """Its actor ends, and nothing is told of a worker that never was."""
    node.worker.signal(signal.SIGTERM)
    assert not node.worker.is_alive
    node.worker.reap()
    assert (node.worker.exit_code, node.killed, node.actor.signal.calls) == (Status.HANDED_BACK, [node.actor], [])


def test_a_node_that_answers_no_kill_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM is waited for, SIGKILL for some seconds only."""
    node.begin()
    node.worker.signal(signal.SIGTERM)
    assert (node.worker.is_alive, node.actor.signal.calls) == (True, [("w", signal.SIGTERM)])
    monkeypatch.setattr(ray_worker, "KILL_SECONDS", 0.0)
    node.worker.signal(signal.SIGKILL)
    assert (node.worker.is_alive, node.killed) == (False, [node.actor])
    node.worker.reap()
    assert node.worker.exit_code is None


def test_a_worker_is_killed_once(node: Node) -> None:
    """Who waits for the end of workers kills them at every look: an actor that cannot answer is called no more."""
    node.begin()
    node.worker.signal(signal.SIGTERM)
    for _ in range(50):
        node.worker.signal(signal.SIGKILL)
    node.worker.signal(signal.SIGTERM)
    assert node.actor.signal.calls == [("w", signal.SIGTERM), ("w", signal.SIGKILL)]


def test_a_worker_that_was_told_to_leave_is_not_begun(node: Node) -> None:
    """Although its actor has its place only now."""
    node.worker.signal(signal.SIGTERM)
    node.begin()
    assert node.actor.run.calls == []
    assert not node.worker.is_alive
    node.worker.reap()
    assert node.worker.exit_code == Status.HANDED_BACK


def test_a_place_has_one_worker_at_a_time(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose supervisor had no answer, and so has another started, is killed first."""
    host, version = make_host(tmp_path, monkeypatch), __version__
    first, second = (replace(node.worker.order, worker_id=name, log_file=None) for name in ("first", "second"))
    host.run(Task(first, version, needs_folder=False))
    host.run(Task(second, version, needs_folder=False))
    assert Launched.signals == [("first", signal.SIGKILL)]


def test_the_end_of_a_long_log_is_brought_over(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than may travel at once: it says what broke the worker. What is left out is said, and how much."""
    host, log = make_host(tmp_path, monkeypatch), tmp_path / "first.log"
    monkeypatch.setattr(ray_host, "_log_of", lambda _worker_id: log)
    monkeypatch.setattr(ray_host, "MOST_LOG_BYTES", 10)
    order = replace(node.worker.order, worker_id="first", log_file=None)
    for content, sent in (
        (b"short", b"short"),
        (b"a long one that broke", b"\n... 11 bytes are left out ...\nthat broke"),
    ):
        log.write_bytes(content)
        host._n_sent.clear()
        assert host.run(Task(order, __version__, needs_folder=False)) == Glimpse(sent, exit_code=0)
    log.write_bytes(b"0123456789 and 11 more")
    host._n_sent.clear()
    assert host.glimpse("first").log == b"0123456789"
    assert host.run(Task(order, __version__, needs_folder=False)).log == b"\n... 2 bytes are left out ...\nnd 11 more"


def make_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ray_host.WorkerHost:
    """An actor without Ray, whose workers have ended by the first look."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(ray_host, "warm_up_early", lambda: None)
    monkeypatch.setattr(ray_host, "search_in", lambda *_folders: None)
    monkeypatch.setattr(ray_host, "launch_process", Launched)
    return ray_host.WorkerHost(str(folder))


class Launched:
    """What stands in for a process that has ended by the first look."""

    signals: ClassVar[list[tuple[str, int]]] = []
    is_alive, exit_code = False, 0

    def __init__(self, order: WorkerOrder) -> None:
        self.name = order.worker_id

    def signal(self, signum: int) -> None:
        self.signals.append((self.name, signum))

    def reap(self) -> None:
        """As of a process."""

    def resident_bytes(self) -> None:
        """Unknown."""
