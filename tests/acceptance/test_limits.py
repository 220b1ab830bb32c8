"""`--trial-timeout` and `--memory-limit`: an attempt that breaks a limit is to blame itself."""

import re

import pytest
from shell import ENDLESS, Shell


@pytest.mark.slow
def test_a_cell_fails_after_three_overlong_attempts(shell: Shell) -> None:
    """Two workers, so that another could take the killed one for lost: all three say the limit, and the run exits 6."""
    answer = shell("run", shell.write("endless.toml", ENDLESS), "--workers", "2", "--trial-timeout", "2s")
    assert answer.code == 6
    assert "failed: hidden_size 16, dropout_rate 0.2, learning_rate 0.01: trial time limit of 2 s exceeded" in (
        answer.stderr
    )
    attempts = shell("trials", "--json").json["trials"]
    assert [(attempt["state"], attempt["reason"], attempt["error"]) for attempt in attempts] == [
        ("FAIL", "limit", "trial time limit of 2 s exceeded")
    ] * 3


@pytest.mark.slow
def test_a_worker_beyond_the_memory_limit_is_killed(shell: Shell) -> None:
    """Below what TensorFlow needs no attempt can live: the run gives up, and every reason names the limit."""
    answer = shell("run", shell.write("endless.toml", ENDLESS), "--workers", "1", "--memory-limit", "200m")
    assert answer.code in (1, 6)  # by how far the attempts came: no worker finishes a cell, or the cell fails first
    assert "memory limit of 200 MiB exceeded with" in answer.stderr
    assert shell("status", "--json").json["cells"]["running"] == 0


KILLER = """
import os

from keras import Sequential, layers, losses


def build(hidden_size: int, learning_rate: float = 0.01):
    if hidden_size == 12:
        os.kill(os.getpid(), 9)
    model = Sequential([layers.Input((28, 28)), layers.Flatten(), layers.Dense(hidden_size), layers.Dense(10)])
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
"""
KILLING = """
name = "killing"
[data]
source = "synthetic"
n_validation = 12000
[model]
architecture = "killer:build"
[grid]
hidden_size = [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]
[training]
batch_size = 2000
max_epochs = 1
[pruner]
name = "none"
"""


@pytest.mark.more
def test_one_cell_that_kills_its_worker_fails_alone(shell: Shell) -> None:
    """The others finish first; five kills are evidence enough, and the run ends with a winner and exit status 6."""
    shell.write("killer.py", KILLER)
    answer = shell("run", shell.write("killing.toml", KILLING), "--workers", "1")
    assert answer.code == 6, answer.stderr
    cause = (
        "its worker was killed by signal 9 (SIGKILL) 5 times while other cells finished; often for want of memory, "
        "see --memory-limit"
    )
    assert f"failed: hidden_size 12: {cause}" in answer.stderr
    assert shell("status", "--json").json["cells"]["complete"] == 15
    attempts = shell("trials", "--json").json["trials"]
    killed = [attempt["trial"] for attempt in attempts if attempt["reason"] in ("killed", "blamed")]
    assert sorted(killed)[1:] == [16, 17, 18, 19]  # once at its place, then behind the others


FEW = """
name = "few"
[data]
source = "synthetic"
[model]
architecture = "killer:build"
[grid]
hidden_size = [8, 9, 10, 11, 12, 13]
[training]
batch_size = 2000
max_epochs = 4
[pruner]
name = "{pruner}"
"""


@pytest.mark.more
@pytest.mark.parametrize(
    ("pruner", "n_workers"), [("none", 1), pytest.param("ladder", 1, marks=pytest.mark.slow), ("ladder", 2)]
)
def test_a_run_gives_up_the_cell_and_not_the_study(shell: Shell, pruner: str, n_workers: int) -> None:
    """Six cells say too little to blame one: the five others end with a winner, and it still waits; exit status 6.

    With rungs a cell comes through several times, which may be enough to blame the one after all: then it failed.
    """
    shell.write("killer.py", KILLER)
    answer = shell("run", shell.write("few.toml", FEW.format(pruner=pruner)), "--workers", str(n_workers))
    assert answer.code == 6, answer.stderr
    is_blamed = pruner == "ladder" and "1 cell failed" in answer.stderr
    if is_blamed:
        assert "failed: hidden_size 12: " in answer.stderr
    else:
        line = r"given up: hidden_size 12: its worker died (\d+) times, while nothing else was finished"
        given_up = re.search(line, answer.stderr)
        assert given_up, answer.stderr
        assert int(given_up[1]) >= 6  # more where a worker that waited took it as well, before it was given up
        assert "1 cell without a result; run it again to try again." in answer.stderr
    assert "test accuracy" in answer.stdout
    cells = shell("status", "--json").json["cells"]
    assert (cells["done"], cells["waiting"], cells["parked"], cells["failed"]) == (5, 1 - is_blamed, 0, int(is_blamed))
    assert cells["complete"] >= 1
    problems = shell("verify", "--json").json["problems"]
    assert [problem for problem in problems if problem.startswith("decision")] == []
