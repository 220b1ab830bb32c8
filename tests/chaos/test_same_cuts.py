"""The cells that a real study cuts are the same with any number of workers, and where workers are killed."""

import random
import time
from pathlib import Path

import pytest
from commands import Site, make_site, wait_until
from shell import Started, kill

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

STUDY = """\
name = "cuts"
[data]
source = "synthetic"
[grid]
hidden_size = [4, 16, 48]
dropout_rate = [0.2]
learning_rate = [0.02, 0.005, 0.001, 0.0002, 0.00005]
[training]
max_epochs = 16
callbacks = ["pace:make"]
[pruner]
name = "ladder"
first_rung = 1
keep = 2
"""
N_CELLS, N_KILLS = 15, 8
N_WORKERS = (1, 2, 4, 16)
RESULTS = "SELECT * FROM fmnist_cells WHERE state = 'done'"

# Of a cell, by its parameters: how it ended, after how many epochs, with which val_accuracy.
Results = dict[tuple[tuple[str, float], ...], tuple[str, int, float | None]]


def read_results(site: Site) -> Results:
    """Of every cell the one trial that counts."""
    trials = [
        trial for trial in site.shell("trials", "--json").json["trials"] if trial["state"] in ("COMPLETE", "PRUNED")
    ]
    return {
        tuple(sorted(trial["params"].items())): (trial["state"], trial["epochs"], trial["val_accuracy"])
        for trial in trials
    }


def kill_now_and_then(site: Site, run: Started) -> None:
    """Kill a worker that trains, and again, while the study goes on."""
    choices = random.Random(0)
    for _ in range(N_KILLS):
        time.sleep(choices.uniform(0.5, 2.0))
        kill(choices.choice(wait_until(site.holders, "a worker with a cell")))
        assert run.process.poll() is None, run.wait().stderr


def new_study(folder: Path) -> Site:
    """That study in a folder of its own, on SQLite."""
    site = make_site(folder, None, n_cells=N_CELLS, lease=5.0)
    site.shell.write("study.toml", STUDY)
    site.pace(0.0)
    return site


def test_real_trainings_are_cut_alike(tmp_path: Path) -> None:
    """With 1, 2, 4 and 16 workers and with eight kills: each cell ends in the same state, epoch and val_accuracy."""
    found: dict[str, Results] = {}
    for n_workers in N_WORKERS:
        site = new_study(tmp_path / f"{n_workers}")
        answer = site.shell("run", "study.toml", "--workers", str(n_workers))
        assert answer.code == 0, answer.stderr
        found[f"{n_workers} workers"] = read_results(site)
    site = new_study(tmp_path / "kills")
    site.pace(0.3)
    with site.shell.start_cold("run", "study.toml", "--workers", "4") as run:
        kill_now_and_then(site, run)
        assert len(site.rows(RESULTS)) < N_CELLS, "the kills must end before the study does"
        site.pace(0.0)
        assert run.wait(300).code == 0
    found["kills"] = read_results(site)
    assert site.shell("verify").code == 0
    expected = found.pop("1 workers")
    states = [state for state, _, _ in expected.values()]
    assert (len(states), set(states)) == (N_CELLS, {"COMPLETE", "PRUNED"})
    assert {name: results == expected for name, results in found.items()} == dict.fromkeys(found, True)
