"""Ctrl-C, SIGTERM and SIGKILL during `run`: cells are given back, a second run goes on, no process stays behind."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from shell import Answer, Shell, kill, make_paced, two_at_a_time, wait_until_gone
from warm_starter import WARM_CHILDREN

pytestmark = pytest.mark.more

GONE_SECONDS = 10.0  # for children that notice the end of their parent
RUN = ("run", "study.toml", "--workers", "1")


@dataclass(frozen=True)
class Interrupted:
    """What an interrupted run left.

    Args:
        shell: The folder.
        answer: Of the run.
        seconds: From the last signal to the end.
        left: Its processes that still lived long after its end.
    """

    shell: Shell
    answer: Answer
    seconds: float
    left: Sequence[psutil.Process]

    @property
    def n_running(self) -> int:
        """Cells that somebody seems to train."""
        return len(self.shell.query("SELECT * FROM fmnist_cells WHERE state = 'running'"))


def interrupt(
    folder: Path, pace_seconds: float, wait_for: str, *signals: int, to_group: bool = True, is_cold: bool = False
) -> Interrupted:
    """Start a run, wait for a row in the database, send signals a second apart, wait for the end."""
    shell = make_paced(folder, pace_seconds)
    with (shell.start_cold if is_cold else shell.start)(*RUN) as run:
        shell.wait_for(wait_for)
        processes = run.descendants()
        for number, signum in enumerate(signals):
            time.sleep(1.0 if number else 0.0)
            began = time.monotonic()
            assert run.process.poll() is None, "an epoch of a minute must be waited for at the first signal"
            run.signal_group(signum) if to_group else run.process.send_signal(signum)
        answer = run.wait(20)
        seconds = time.monotonic() - began
        return Interrupted(shell, answer, seconds, wait_until_gone(processes, GONE_SECONDS))


@dataclass(frozen=True)
class Replaced:
    """What a run left whose worker was killed in its first trial, and the command line of that worker."""

    shell: Shell
    answer: Answer
    killed: str


def kill_worker(folder: Path) -> Replaced:
    """Kill the worker in its first trial, then let the run end at full pace."""
    shell = make_paced(folder, 60.0)
    with shell.start(*RUN) as run:
        shell.wait_for("SELECT * FROM fmnist_epochs")
        (worker,) = shell("status", "--json").json["workers"]
        (process,) = [process for process in run.descendants() if process.pid == worker["pid"]]
        killed = " ".join(process.cmdline())
        kill(process)
        (shell.folder / "pace").unlink()
        return Replaced(shell, run.wait(), killed)


def go_on(shell: Shell) -> Answer:
    """A second run at full pace."""
    (shell.folder / "pace").unlink()
    return shell(*RUN)


def attempts(shell: Shell) -> list[tuple[str, str | None, int]]:
    """State, reason and attempt of every trial, by its number."""
    trials = sorted(shell("trials", "--json").json["trials"], key=lambda trial: trial["trial"])
    return [(trial["state"], trial["reason"], trial["attempt"]) for trial in trials]


EPOCH, STORAGE = "SELECT * FROM fmnist_epochs", "SELECT 1"


@dataclass(frozen=True)
class Scenarios:
    """Runs that met a signal, two at a time."""

    ctrl_c: Interrupted
    twice: Interrupted
    early: Interrupted
    killed_worker: Replaced


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Scenarios:
    """Each in a folder of its own."""
    folder = tmp_path_factory.mktemp("signals")
    return Scenarios(
        **two_at_a_time(
            {
                "ctrl_c": lambda: interrupt(folder / "ctrl_c", 0.5, EPOCH, signal.SIGINT),
                "twice": lambda: interrupt(folder / "twice", 60.0, EPOCH, signal.SIGINT, signal.SIGINT),
                "killed_worker": lambda: kill_worker(folder / "killed_worker"),
                "early": lambda: interrupt(folder / "early", 0.5, STORAGE, signal.SIGINT, is_cold=True),
            }
        )
    )


def test_ctrl_c_exits_130_and_gives_the_cell_back(scenarios: Scenarios) -> None:
    """SIGINT to the whole group, as a terminal sends it: one line, no cell runs, no process is left."""
    met = scenarios.ctrl_c
    assert (met.answer.code, met.answer.stdout, len(met.answer.errors)) == (130, "", 1)
    assert "SIGINT" in met.answer.errors[0]
    assert "Traceback" not in met.answer.stderr
    assert (met.left, met.n_running) == ([], 0)


def test_after_ctrl_c_a_second_run_goes_on(scenarios: Scenarios) -> None:
    """The stopped attempt is FAIL because it was stopped; every cell has its one result in the end."""
    shell = scenarios.ctrl_c.shell
    assert ("FAIL", "stopped", 1) in attempts(shell)
    answer = go_on(shell)
    assert answer.code == 0, answer.stderr
    proof = shell("verify", "--json").json
    assert (proof["ok"], proof["results"], proof["surplus_trials"]) == (True, 2, 0)


def test_a_second_ctrl_c_ends_at_once(scenarios: Scenarios) -> None:
    """An epoch of a minute is waited for at the first Ctrl-C and cut at the second, in no minute."""
    met = scenarios.twice
    assert (met.answer.code, met.seconds < 4.0) == (130, True), met
    assert "once more ends them at once" in met.answer.stderr
    assert (met.left, met.n_running) == ([], 0)


def test_ctrl_c_before_the_first_worker_ends_the_run(scenarios: Scenarios) -> None:
    """While TensorFlow is being imported there is nothing to give back: exit 130 within seconds."""
    met = scenarios.early
    assert (met.answer.code, met.seconds < 6.0) == (130, True), met
    assert "Traceback" not in met.answer.stderr
    assert met.left == []


def test_a_killed_worker_is_replaced_and_the_study_ends(scenarios: Scenarios) -> None:
    """SIGKILL in the middle of a trial costs that attempt: the cell's second attempt has the result."""
    shell, answer = scenarios.killed_worker.shell, scenarios.killed_worker.answer
    assert answer.code == 0, answer.stderr
    told = attempts(shell)
    assert sorted(attempt[0] for attempt in told) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert ("FAIL", "killed", 1) in told
    assert ("COMPLETE", None, 2) in told
    assert shell("verify").code == 0


def test_a_worker_of_the_tests_is_forked_warm(scenarios: Scenarios) -> None:
    """A cold server would give the same answers, seconds later: every command that trains would import TensorFlow."""
    assert WARM_CHILDREN.name in scenarios.killed_worker.killed


def test_a_worker_that_ends_at_once_leaves_no_temporary_file(tmp_path: Path) -> None:
    """A worker of its own, at its second SIGINT: exit 130, and nothing is left of what TensorFlow wrote."""
    shell = make_paced(tmp_path / "worker", 60.0)
    assert shell("init", "study.toml").code == 0
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with Shell(shell.folder, {"TMPDIR": str(temporary)}).start("worker") as worker:
        shell.wait_for(EPOCH)
        assert list(temporary.iterdir()), "its files are expected in this folder"
        worker.process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        worker.process.send_signal(signal.SIGINT)
        assert worker.wait(20).code == 130
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_sigterm_exits_143_and_gives_the_cell_back(tmp_path: Path) -> None:
    """SIGTERM to the command alone, as a service manager sends it: no cell runs, no process is left."""
    met = interrupt(tmp_path / "term", 0.5, EPOCH, signal.SIGTERM, to_group=False, is_cold=True)
    assert (met.answer.code, met.answer.stdout, len(met.answer.errors)) == (143, "", 1)
    assert (met.left, met.n_running) == ([], 0)


@pytest.mark.slow
def test_workers_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    """SIGKILL of the command leaves no process; the next run takes the cell over and finishes."""
    met = interrupt(tmp_path / "kill", 0.5, EPOCH, signal.SIGKILL, to_group=False, is_cold=True)
    assert (met.answer.code, met.left) == (-signal.SIGKILL, [])
    answer = go_on(met.shell)
    assert answer.code == 0, answer.stderr
    proof = met.shell("verify", "--json").json
    assert (proof["ok"], proof["results"]) == (True, 2)
