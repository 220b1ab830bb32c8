"""Children that die: how they ended, what they wrote before, and nothing of our own names."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
from small_study import make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import FmnistOptunaError, SpecError, UsageError, WorkerFailedError
from fmnist_optuna.processes import children as processes
from fmnist_optuna.processes.children import Call, call_each, start, warm_up
from fmnist_optuna.running.preparation import prepare_in_child

MODULES = {
    "parses": "from argparse import ArgumentParser\np = ArgumentParser()\np.add_argument('x')\np.parse_args([])\n",
    "exits": "import sys\n\ndef build(learning_rate=0.1):\n    sys.exit('no luck')\n",
    "interrupts": "raise KeyboardInterrupt\n",
    "leaves": "import os\nprint('cannot find my data', flush=True)\nos._exit(3)\n",
    "crashes": "import ctypes\n\ndef build(learning_rate=0.1):\n    ctypes.string_at(0)\n",
    "killed": "import os\nos.kill(os.getpid(), 9)\n",
    "broken": "import os\n\ndef build(learning_rate=0.1)\n    return None\n",
}
REFUSED = {  # those that the child could answer for
    "parses": ("SystemExit: sys.exit(2) was called (parses.py, line 4) when it is imported", "__main__"),
    "exits": ("exits:build(learning_rate=0.5) raised SystemExit: sys.exit('no luck') was called (exits.py, line 4)",),
    "interrupts": ("interrupts: KeyboardInterrupt (interrupts.py, line 1).",),
    "broken": ("SyntaxError: expected ':' (broken.py, line 3)",),
}
DEAD = {
    "leaves": ("ended with exit code 3", "cannot find my data"),
    "crashes": ("signal 11 (SIGSEGV)", "Segmentation fault (crashes.py, line 4)"),
    "killed": ("signal 9 (SIGKILL), often for want of memory.",),
}


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's modules, where children look for them."""
    folder = tmp_path_factory.mktemp("modules")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def check(name: str) -> FmnistOptunaError:
    """What comes of the check of a study whose architecture is a function of this module."""
    spec = make_spec({"learning_rate": [0.5]}, model={"architecture": f"{name}:build"})
    with pytest.raises(FmnistOptunaError) as info:
        prepare_in_child(spec, FASHION_MNIST).result()
    assert "_prepare" not in str(info.value)
    assert "\n" not in str(info.value)
    return info.value


def test_a_server_that_cannot_start_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file that it broke on, not "unexpected EOF"; the next test needs another server."""
    (tmp_path / "preloaded_wrongly.py").write_text("raise RuntimeError('the libraries do not fit')")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        patch.setattr(processes, "PRELOADED", ["fmnist_optuna.processes.serving", "preloaded_wrongly"])
        _end_server()
        with pytest.raises(WorkerFailedError, match=r"must run, but .*RuntimeError: the libraries do not fit\.$"):
            start(time.sleep, (0,), "sleeper")
        _end_server()  # the last one may still be writing its last words


def _end_server() -> None:
    pid: int | None = vars(forkserver._forkserver)["_forkserver_pid"]
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_all_children_hash_strings_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that they are forked from starts with a fixed seed, which this process does not keep."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    command, environment = [sys.executable, "-c", "print(hash('a'), hash('b'))"], processes._training_environment()
    answers = [subprocess.run(command, capture_output=True, check=True, env=environment).stdout for _ in range(2)]
    assert answers[0] == answers[1] != b""
    assert "PYTHONHASHSEED" not in os.environ


@pytest.mark.parametrize("name", REFUSED)
def test_an_exit_of_the_users_code_is_an_error_of_the_file(name: str) -> None:
    """Whatever the module or function raises, KeyboardInterrupt and SystemExit included, in words and with its line."""
    error = check(name)
    assert isinstance(error, SpecError)
    assert [words for words in REFUSED[name] if words not in str(error)] == []


@pytest.mark.parametrize("name", DEAD)
def test_the_end_of_a_child_is_told_with_its_last_words(name: str) -> None:
    """How it ended, and what it wrote before."""
    error = check(name)
    assert isinstance(error, WorkerFailedError)
    assert str(error).startswith("Checking the study file must end with an answer, but its process ")
    assert [words for words in DEAD[name] if words not in str(error)] == []


def raise_unusual() -> None:
    raise GeneratorExit("of my own")


def test_any_exception_of_a_child_is_an_answer() -> None:
    """With the place where it was raised."""
    with pytest.raises(WorkerFailedError, match=r"^Trying out must not fail, but GeneratorExit: of my own \(test_pro"):
        Call(raise_unusual, doing="trying out").result()


def nap(seconds: float) -> tuple[float, float]:
    """When it began and ended; refuses to sleep a negative time."""
    if seconds < 0:
        raise UsageError("no such time")
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


def test_several_calls_answer_in_their_order_some_at_once() -> None:
    """Two run side by side; a third begins when the first is over, though the second was over before."""
    first, second, third = call_each(nap, [(1.0,), (0.1,), (0.0,)], doing="napping", at_once=2)
    assert second[0] < first[1] <= third[0]
    alone = list(call_each(nap, [(0.1,), (0.0,)], doing="napping", at_once=1))
    assert alone[0][1] <= alone[1][0]


def test_a_call_that_fails_ends_those_beside_it() -> None:
    """The error is there at once, and nothing goes on behind it."""
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"^no such time$"):
        list(call_each(nap, [(-1.0,), (600.0,)], doing="napping beside", at_once=2))
    assert time.monotonic() - began < 60
    left = [child for child in multiprocessing.active_children() if child.name.startswith("napping beside")]
    for child in left:
        child.join(10)
    assert [child.exitcode for child in left] in ([], [-signal.SIGKILL])


def test_another_backend_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras would fail in every process."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UsageError, match=r"KERAS_BACKEND must be tensorflow, .* but is 'jax'"):
        warm_up()


def what_a_program_has() -> tuple[dict[str, str], list[object], list[int]]:
    """The environment, what `__main__` says of itself, and the files behind stdout and stderr."""
    main = vars(sys.modules["__main__"])
    return dict(os.environ), [main.get("__file__"), main["__spec__"]], [os.fstat(number).st_ino for number in (1, 2)]


def test_threads_that_start_the_server_leave_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for the other: each would put back what it found, which was the other's."""
    both, met = threading.Barrier(2), []

    def ensure_running() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # seconds
            met.append(threading.current_thread().name)

    monkeypatch.setattr(forkserver, "ensure_running", ensure_running)
    monkeypatch.setattr(processes, "_is_server_running", lambda: False)
    before = what_a_program_has()
    threads = [threading.Thread(target=warm_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == []
    assert what_a_program_has() == before


def test_variables_of_other_threads_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program sets while the server starts is not taken back with what the server alone is to find."""
    monkeypatch.setenv("SET_BEFORE", "old")
    monkeypatch.setattr(processes, "_is_server_running", lambda: False)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: os.environ.update(SET_BEFORE="new"))
    warm_up()
    assert os.environ["SET_BEFORE"] == "new"


def test_the_server_starts_without_standard_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a daemon; and what others print meanwhile goes where it went, for the server redirects itself."""
    seen: list[list[int]] = []
    monkeypatch.setattr(processes, "_is_server_running", lambda: False)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: seen.append(what_a_program_has()[2]))
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    warm_up()
    assert seen == [what_a_program_has()[2]]


def test_a_server_that_runs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its start changes the environment, not that of each child."""
    Call(os.getpid, doing="looking").result()
    monkeypatch.setattr(forkserver, "ensure_running", lambda: pytest.fail("The server must not be started twice."))
    warm_up()
