"""`worker`: with which status it ends, and that it builds what the workers of `run` build."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from shell import COMMAND, SMALL, TIMEOUT_SECONDS, Shell, make_paced

OWN = SMALL.replace("dropout_rate = [0.2]\n", "").replace("[grid]", '[model]\narchitecture = "mine:build"\n[grid]')
MODEL = """
from pathlib import Path

import keras

def build(hidden_size: int, learning_rate: float) -> keras.Model:
    if learning_rate == 0.01 and Path("broken").exists():
        raise RuntimeError("the weather is bad")
    kinds = {"relu", "elu", "gelu", "selu", "silu", "tanh", "sigmoid", "softplus"}
    layers = [keras.layers.Dense(hidden_size, kind) for kind in kinds]
    model = keras.Sequential([
        keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255),
        *layers, keras.layers.Dense(10, "softmax"),
    ])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    return model
"""
# The first epoch takes a while, so that it has a checkpoint; the second ends in a call of C that never returns.
STUCK = """
import ctypes
import time
from pathlib import Path

import keras


class Stuck(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if not Path("stuck").exists() or self.params["steps"] <= 20:  # the rehearsal before a study has a few
            return
        if epoch == 0:
            time.sleep(4.0)
        if epoch == 1:
            mutex = ctypes.create_string_buffer(64)
            ctypes.CDLL(None).pthread_mutex_lock(mutex)
            ctypes.CDLL(None).pthread_mutex_lock(mutex)


def make():
    return Stuck()
"""
TALK = """
import sys

import keras


class Talk(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print("loss \u2713" * 1000, flush=True)
        print("the callback spoke", file=sys.stderr)


def make():
    return Talk()
"""
RESTARTED = "--restarted-on-failure"


def make_own(shell: Shell) -> None:
    """A study of two cells whose model is built in the order of a set; with the file `broken` one of them fails."""
    shell.write("mine.py", MODEL)
    made = shell("init", shell.write("small.toml", OWN))
    assert made.code == 0, made.stderr


@pytest.mark.more
def test_failed_cells_are_no_reason_to_start_again(shell: Shell) -> None:
    """A worker ends with 6 where a cell has failed; one that would be started again says so and ends with 0."""
    make_own(shell)
    shell.write("broken", "")
    first, again = shell("worker"), shell("worker", RESTARTED)
    assert [first.code, again.code] == [6, 0], first.stderr + again.stderr
    assert "1 of 2 cells done, 1 failed" in again.stderr
    assert shell("status", "--json").json["cells"]["failed"] == 1


@pytest.mark.more
def test_a_stopped_worker_is_not_started_again(tmp_path: Path) -> None:
    """Of two workers that `stop` ends, the one that would be started again ends with 0, the other with 7."""
    shell = make_paced(tmp_path / "stopped", 4.0)  # one ends no cell before the other begins
    made = shell("init", "study.toml")
    assert made.code == 0, made.stderr
    with shell.start("worker", RESTARTED) as restarted, shell.start("worker") as other:
        shell.wait_for("SELECT * FROM fmnist_cells WHERE state = 'running'", 2)
        assert shell("stop").code == 0
        answers = [restarted.wait(20), other.wait(20)]
    assert [answer.code for answer in answers] == [0, 7], answers
    assert ["This worker was told to leave before all cells were done" in answer.stderr for answer in answers] == [
        True,
        True,
    ]
    assert [len(answer.errors) for answer in answers] == [0, 1]


@pytest.mark.more
def test_a_worker_past_its_memory_is_started_again(shell: Shell) -> None:
    """It leaves after a cell, and the rest of the study needs another; so it is after --max-trials."""
    assert shell("init", shell.write("small.toml", SMALL)).code == 0
    answer = shell("worker", RESTARTED, "--memory-limit", "1m")
    assert (answer.code, answer.errors) == (75, []), answer.stderr
    assert "Left after --memory-limit. study small: 1 of 2 cells done." in answer.stderr
    assert shell("worker", "--max-trials", "1").code == 0, "every cell has its result"


@pytest.mark.more
def test_a_worker_leaves_a_call_that_does_not_return(shell: Shell) -> None:
    """SIGTERM within an epoch of minutes: 75 in ten seconds, and the next attempt goes on behind the last epoch."""
    shell.write("stuck.py", STUCK)
    shell.write("study.toml", SMALL.replace("max_epochs = 2", 'max_epochs = 4\ncallbacks = ["stuck:make"]'))
    assert shell("init", "study.toml").code == 0
    shell.write("stuck", "")
    with shell.start("worker") as worker:
        shell.wait_for("SELECT * FROM fmnist_epochs WHERE epoch = 1")
        began = time.monotonic()
        worker.signal_group(signal.SIGTERM)  # as a container's init sends it, and its shell passes it on
        worker.process.send_signal(signal.SIGTERM)
        answer = worker.wait(20)
        seconds = time.monotonic() - began
    assert (answer.code, answer.errors, seconds < 12.0) == (75, [], True), answer
    assert shell.query("SELECT state, count(*) FROM fmnist_cells GROUP BY state") == [("waiting", 2)]
    assert shell.query("SELECT * FROM fmnist_workers") == []
    (shell.folder / "stuck").unlink()
    again = shell("worker")
    assert again.code == 0, again.stderr
    stopped, *_ = sorted(shell("trials", "--json").json["trials"], key=lambda trial: trial["trial"])
    assert (stopped["state"], stopped["reason"]) == ("FAIL", "stopped")
    kept = [shell("show", str(number), "--json").json["kept_epochs"] for number in (1, 2)]
    assert sorted(kept, key=str) == [1, None], "of the first epoch, which took long, there was a checkpoint"


@pytest.mark.more
@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGXCPU])
def test_a_worker_that_waits_leaves_at_once(tmp_path: Path, signum: signal.Signals) -> None:
    """Two others have the cells; it says what it is on the list, and nothing is left of it."""
    shell = make_paced(tmp_path / "waiting", 60.0)
    assert shell("init", "study.toml").code == 0
    with shell.start("worker") as first, shell.start("worker") as second:
        shell.wait_for("SELECT * FROM fmnist_cells WHERE state = 'running'", 2)
        with shell.start("worker") as third:
            shell.wait_for("SELECT * FROM fmnist_workers", 3)
            told = shell("status", "--json").json["workers"]
            third.process.send_signal(signum)
            answer = third.wait(10)
        assert {worker["device"] for worker in told} == {"CPU"}
        assert f"Left after {signum.name}." in answer.stderr
        assert (answer.code, len(shell.query("SELECT * FROM fmnist_workers"))) == (75, 2)
        assert [first.process.poll(), second.process.poll()] == [None, None]


@pytest.mark.more
def test_a_locked_database_keeps_no_worker(tmp_path: Path) -> None:
    """SIGTERM while nobody gets through to the database: 75 in ten seconds; afterwards all is as a kill leaves it."""
    shell = make_paced(tmp_path / "locked", 1.0)
    assert shell("init", "study.toml").code == 0
    with shell.start("worker") as worker:
        shell.wait_for("SELECT * FROM fmnist_epochs")
        other = sqlite3.connect(shell.database, isolation_level=None, timeout=20)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(2.0)
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        answer = worker.wait(20)
        seconds = time.monotonic() - began
        other.execute("ROLLBACK")
        other.close()
    assert (answer.code, answer.errors, seconds < 12.0) == (75, [], True), answer
    (shell.folder / "pace").unlink()
    assert shell("worker").code == 0
    assert shell("verify").code == 0


@pytest.mark.more
def test_a_worker_that_still_loads_leaves_at_once(tmp_path: Path) -> None:
    """SIGTERM while TensorFlow is imported: 75 at once, and nothing of it is in the storage."""
    shell = make_paced(tmp_path / "loading", 1.0)
    assert shell("init", "study.toml").code == 0
    with shell.start_cold("worker") as worker:
        deadline = time.monotonic() + 60
        while not any("tensorflow" in each.path for each in psutil.Process(worker.pid).memory_maps()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        answer = worker.wait(20)
        seconds = time.monotonic() - began
    assert (answer.code, seconds < 8.0) == (75, True), answer
    assert shell.query("SELECT * FROM fmnist_workers") == []


@pytest.mark.more
def test_a_worker_imports_only_what_is_allowed(shell: Shell) -> None:
    """Another module is refused before it is imported, by the option and by the variable; a named one is imported.

    Who follows the events is told once what broke the worker.
    """
    shell.write("mine.py", MODEL)
    assert shell("init", shell.write("small.toml", OWN)).code == 0
    shell.write("mine.py", "raise RuntimeError('it must not be imported')")
    restricted = shell.with_variables(FMNIST_OPTUNA_ALLOW_MODULE="ours.models other")
    by_option = shell("worker", "--allow-module", "mines", "--events", "e.ndjson")
    for refused in (by_option, restricted("worker")):
        assert (refused.code, len(refused.errors)) == (2, 1), refused.stderr
        assert "model.architecture must be in a module that this worker may import" in refused.errors[0]
        assert refused.errors[0].endswith("but is mine:build; where you trust it, add --allow-module mine.")
    (told,) = map(json.loads, (shell.folder / "e.ndjson").read_text().splitlines())
    assert (told["event"], told["study"], f"Error: {told['error']}") == ("worker_failed", "small", by_option.errors[0])
    assert told["worker"]
    shell.write("mine.py", MODEL)
    answer = shell("worker", "--allow-module", "other", "--allow-module", "mine")
    assert answer.code == 0, answer.stderr


@pytest.mark.more
@pytest.mark.parametrize("way", ["full", "broken"])
def test_prints_that_nobody_takes_fail_no_cell(shell: Shell, way: str) -> None:
    """The user's callback writes to a full disk, or into a pipe that nobody reads: every cell has its result."""
    shell.write("talk.py", TALK)
    study = SMALL.replace("max_epochs = 2", 'max_epochs = 2\ncallbacks = ["talk:make"]')
    assert shell("init", shell.write("small.toml", study)).code == 0
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full:  # noqa: PTH123 - for its descriptor
        done = subprocess.run(
            [COMMAND, "worker"], cwd=shell.folder, env={**shell.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL, stdout=full if way == "full" else writer, stderr=subprocess.PIPE, text=True,
            timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the callback spoke") >= 4
    assert [state for (state,) in shell.query("SELECT state FROM fmnist_cells")] == ["done", "done"]
    assert shell.query("SELECT failures FROM fmnist_cells WHERE failures > 0") == []


@pytest.mark.more
def test_a_worker_builds_what_init_has_built(shell: Shell) -> None:
    """The order of a set of strings is the same in both, though no variable says so; the study has it recorded."""
    shell = shell.with_variables(PYTHONHASHSEED="")
    make_own(shell)
    answer = shell("worker")
    assert answer.code == 0, answer.stderr
    ((environment,),) = shell.query("SELECT environment FROM fmnist_codes")
    assert json.loads(environment)["PYTHONHASHSEED"] == "0"
