"""Kills, freezes and crashes of the real commands with real trials: every result is there once, nothing is left behind,
and whoever was not to blame lost no attempt."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest
from commands import (  # fmt: skip
    HOLD_SECONDS,
    N_EPOCHS,
    NAME,
    WITH_RUNGS,
    Site,
    assert_ended,
    assert_gone,
    forkserver_of,
    load_all_weights,
    members,
    prove,
    wait_until,
)
from shell import Answer, Started, is_alive, kill, wait_until_gone

pytestmark = pytest.mark.chaos

Tally = Callable[..., None]
Sites = Callable[..., Site]
BOTH = pytest.mark.parametrize("database", ["sqlite", "postgres"])
SQLITE_FIRST = pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
DECK = ("worker", "worker", "worker", "forkserver", "supervisor", "tree")
N_DECKS_SLOW = 10
CELLS_PER_KILL = 2  # more than are finished between two kills
FINISH_SECONDS = 300.0  # for all cells of the longest study


class Storm:
    """A `run` that is typed again whenever it was killed, and what is done to its processes.

    Args:
        site: Where.
        seed: Makes the choice of victims and moments.
    """

    def __init__(self, site: Site, seed: str) -> None:
        self._site = site
        self._choices = random.Random(seed)
        self._stack = ExitStack()
        self.runs: list[Started] = []
        self.n_kills = 0

    def __enter__(self) -> "Storm":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for run in self.runs:  # orphans of a killed run
            for process in members(run):
                kill(process)

    def blow(self, n_decks: int) -> None:
        """Kill every kind of process in random order, so many times."""
        for _ in range(n_decks):
            for kind in self._choices.sample(DECK, len(DECK)):
                self._wait_for_workers()
                time.sleep(self._choices.uniform(0.1, 1.0))
                self._kill(kind, self.runs[-1], self._wait_for_workers())

    def calm(self) -> Answer:
        """Let the study finish."""
        self._wait_for_workers()
        assert self._site.rows("SELECT * FROM fmnist_cells WHERE state <> 'done'"), (
            "the storm must end before the study does"
        )
        self._site.pace(0.0)
        return self.runs[-1].wait(FINISH_SECONDS)

    def _wait_for_workers(self) -> list[psutil.Process]:
        """The workers of the run that hold a cell, one at least."""
        if not self.runs or self.runs[-1].process.poll() == -signal.SIGKILL:
            self.runs.append(self._stack.enter_context(self._site.run()))
        return wait_until(lambda: self._workers(self.runs[-1]), "a worker with a cell")

    def _workers(self, run: Started) -> list[psutil.Process]:
        assert run.process.poll() is None, run.wait().stderr
        own = {process.pid for process in members(run)}
        return [process for process in self._site.holders() if process.pid in own]

    def _kill(self, kind: str, run: Started, workers: list[psutil.Process]) -> None:
        """The forkserver that is to be killed may be dead since another kill; then a worker is."""
        supervisor = psutil.Process(run.pid)
        victims = members(run) if kind == "tree" else [supervisor] if kind == "supervisor" else []
        if kind == "forkserver" and (forkserver := forkserver_of(run)) is not None:
            victims = [forkserver]
        elif not victims:
            victims = [self._choices.choice(workers)]
        for victim in victims:
            kill(victim)
        self.n_kills += 1
        if supervisor in victims:
            run.process.wait()


def survive_storm(site: Site, tally: Tally, n_decks: int) -> None:
    """Every cell has one result, the weights of all of them load, no process and no other file is left."""
    site.pace(0.4)
    with Storm(site, seed=site.database) as storm:
        storm.blow(n_decks)
        assert_ended(storm.calm(), *storm.runs)
    prove(site, tally, kills=storm.n_kills)
    assert load_all_weights(site) == {"loaded": site.n_cells, "stray": []}


@BOTH
def test_a_run_survives_kills_of_any_process(database: str, new_site: Sites, tally: Tally) -> None:
    """Workers, the forkserver, the supervisor, all at once, in random order; a killed `run` is typed again."""
    survive_storm(new_site(database, n_cells=CELLS_PER_KILL * len(DECK), pruner=WITH_RUNGS), tally, 1)


@pytest.mark.slow
@BOTH
def test_a_run_survives_sixty_kills_of_any_process(database: str, new_site: Sites, tally: Tally) -> None:
    """The same ten times over in one study."""
    survive_storm(
        new_site(database, n_cells=CELLS_PER_KILL * len(DECK) * N_DECKS_SLOW, pruner=WITH_RUNGS), tally, N_DECKS_SLOW
    )


def freeze(site: Site, process: psutil.Process) -> None:
    """Stop a process, but not while it holds SQLite's only write lock: everybody would wait for it."""
    process.suspend()
    while site.database == "sqlite" and site.is_locked():
        process.resume()
        time.sleep(0.05)
        process.suspend()


@SQLITE_FIRST
def test_a_frozen_worker_is_replaced_by_another(database: str, new_site: Sites, tally: Tally) -> None:
    """Without a supervisor: after its lease another worker has its cell; it wakes, drops its result, leaves with 0."""
    site = new_site(database, n_cells=3, lease=4)
    site.create()
    with site.shell.start_cold("worker", NAME) as first, site.shell.start_cold("worker", NAME) as second:
        site.wait_for(N_EPOCHS, 2)
        zombie = psutil.Process(first.pid)
        freeze(site, zombie)
        site.pace(0.0)
        awake = second.wait()
        assert (awake.code, awake.stderr.count("cell_taken_over")) == (0, 1), awake.stderr
        zombie.resume()
        fenced = first.wait()
    assert (fenced.code, fenced.stderr.count("trial_dropped"), "ERROR" in fenced.stderr) == (0, 1, False), fenced.stderr
    assert site.claims() == [1, 1, 2]
    prove(site, tally, stalls=1)


@SQLITE_FIRST
def test_a_worker_outlives_the_forkserver_unless_frozen(database: str, new_site: Sites, tally: Tally) -> None:
    """Without the forkserver they look dead to multiprocessing, yet lose no attempt; a new one starts the next worker.

    A worker that is frozen for longer than its lease is that next worker's reason: it is killed and replaced.
    """
    site = new_site(database, n_cells=5, lease=4)
    with site.run() as run:
        site.wait_for(N_EPOCHS, 2)
        workers, forkserver = site.holders(), forkserver_of(run)
        assert forkserver is not None
        kill(forkserver)
        time.sleep(1.5)  # three looks of the supervisor
        assert ([is_alive(worker) for worker in workers], site.claims()) == ([True, True], [0, 0, 0, 1, 1])
        site.pace(0.2)
        site.wait_for("SELECT * FROM fmnist_cells WHERE state = 'done'", 2)
        site.pace(HOLD_SECONDS)  # or the other ends the study before the third has started
        zombie, other = wait_until(lambda: held if len(held := site.holders()) == 2 else [], "two holders")
        freeze(site, zombie)
        assert wait_until_gone([zombie], 30.0) == []
        (third,) = wait_until(lambda: [p for p in site.holders() if p not in (zombie, other)], "a third worker")
        assert (third.parent(), forkserver_of(run) != forkserver) == (forkserver_of(run), True)
        site.pace(0.0)
        assert_ended(run.wait(), run)
    assert site.claims() == [1, 1, 1, 1, 2]
    prove(site, tally, kills=1, stalls=1)


# Breaks a training, but not the one by which the study is tried out before it is stored.
CRASH = """\
import os
import signal
from pathlib import Path

import keras


class Crash(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if Path("studies").exists():
            os.kill(os.getpid(), signal.SIGSEGV)


def make():
    return Crash()
"""
# Breaks the import, but not before the file `broken` is there.
BROKEN = """\
import os
import signal
from pathlib import Path

from fmnist_optuna.training.dense import create_model

if Path("broken").exists():
    os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.slow
def test_a_cell_that_crashes_its_worker_fails_after_three(new_site: Sites) -> None:
    """The run ends with exit 6 and says the signal; nothing runs, and no process is left."""
    site = new_site("sqlite", n_cells=1, callbacks=["crash:make"])
    site.shell.write("crash.py", CRASH)
    with site.run() as run:
        answer = run.wait()
        assert (answer.code, len(answer.errors)) == (6, 1), answer.stderr
        assert "learning_rate 0.001: the process crashed with SIGSEGV" in answer.stderr
        assert_gone(run)
    assert site.rows("SELECT state, claims, failures FROM fmnist_cells") == [("failed", 3, 3)]


@pytest.mark.slow
def test_a_run_gives_up_when_no_worker_comes_as_far_as_a_cell(new_site: Sites) -> None:
    """Seven deaths in a row, after ever longer pauses: exit 1 with the line in which the last one crashed."""
    site = new_site("sqlite", n_cells=1)
    site.shell.write("broken.py", BROKEN)
    study = site.shell.folder / "study.toml"
    study.write_text(study.read_text() + '[model]\narchitecture = "broken:create_model"\n')
    with site.run("--workers", "1") as run:
        site.wait_for(N_EPOCHS, 1)
        site.shell.write("broken", "")
        kill(*site.holders())
        answer = run.wait()
        assert (answer.code, len(answer.errors)) == (1, 1), answer.stderr
        assert "Segmentation fault (broken.py, line " in answer.errors[0]
        assert_gone(run)
