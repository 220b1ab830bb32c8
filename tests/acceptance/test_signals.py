"""Ctrl-C, SIGTERM and SIGKILL during `run`: cells are given back, a second run goes on, no process stays behind."""

import signal
import time
from collections.abc import Callable

import psutil
import pytest
from shell import Answer, Shell, Started, kill, wait_until_gone

GONE_SECONDS = 10.0  # for children that notice the end of their parent
FINISHED_EPOCH = "SELECT * FROM epochs"


def start_paced(
    paced: Shell, start: Callable[..., Started], pace_seconds: float
) -> tuple[Started, list[psutil.Process]]:
    """A run with one worker that is in the middle of its first trial, and every process of it."""
    paced.write("pace", str(pace_seconds))
    run = start("run", "study.toml", "--workers", "1")
    paced.wait_for(FINISHED_EPOCH)
    return run, run.descendants()


def attempts(shell: Shell) -> list[tuple[str, str | None, int]]:
    """State, reason and attempt of every trial, by its number."""
    trials = sorted(shell("trials", "--json").json["trials"], key=lambda trial: trial["trial"])
    return [(trial["state"], trial["reason"], trial["attempt"]) for trial in trials]


def go_on(shell: Shell) -> Answer:
    """A second run at full pace, which must end with a proven study."""
    (shell.folder / "pace").unlink()
    answer = shell("run", "study.toml", "--workers", "1")
    assert answer.code == 0, answer.stderr
    proof = shell("verify", "--json")
    assert (proof.code, proof.json["results"]) == (0, 2), proof
    return answer


def test_ctrl_c_gives_the_cell_back_and_a_second_run_goes_on(paced: Shell, start: Callable[..., Started]) -> None:
    """SIGINT to the whole group, as a terminal sends it: exit 130, the attempt is FAIL because stopped, nothing lost."""
    run, processes = start_paced(paced, start, 0.5)
    run.signal_group(signal.SIGINT)
    ended = run.wait(20)
    assert (ended.code, ended.stdout, len(ended.errors)) == (130, "", 1)
    assert "SIGINT" in ended.errors[0]
    assert "Traceback" not in ended.stderr
    assert wait_until_gone(processes, GONE_SECONDS) == []
    assert paced.query("SELECT * FROM cells WHERE state = 'running'") == []
    assert ("FAIL", "stopped", 1) in attempts(paced)
    go_on(paced)


def test_sigterm_gives_the_cell_back(paced: Shell, start: Callable[..., Started]) -> None:
    """SIGTERM to the command alone, as a service manager sends it: exit 143 and no cell that runs."""
    run, processes = start_paced(paced, start, 0.5)
    run.process.send_signal(signal.SIGTERM)
    ended = run.wait(20)
    assert (ended.code, ended.stdout, len(ended.errors)) == (143, "", 1)
    assert wait_until_gone(processes, GONE_SECONDS) == []
    assert paced.query("SELECT * FROM cells WHERE state = 'running'") == []


def test_a_second_ctrl_c_ends_at_once(paced: Shell, start: Callable[..., Started]) -> None:
    """An epoch of a minute is waited for at the first Ctrl-C and cut at the second, within two seconds."""
    run, processes = start_paced(paced, start, 60)
    run.signal_group(signal.SIGINT)
    with pytest.raises(TimeoutError):
        _wait_at_most(run, 1.0)
    began = time.monotonic()
    run.signal_group(signal.SIGINT)
    ended = run.wait(10)
    assert (ended.code, time.monotonic() - began < 2.0) == (130, True)
    assert "once more ends them at once" in ended.stderr
    assert wait_until_gone(processes, GONE_SECONDS) == []
    assert paced.query("SELECT * FROM cells WHERE state = 'running'") == []


def _wait_at_most(run: Started, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while run.process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def test_ctrl_c_before_the_first_worker_ends_the_run(paced: Shell, start: Callable[..., Started]) -> None:
    """While TensorFlow is being imported there is nothing to give back: exit 130 within three seconds."""
    run = start("run", "study.toml", "--workers", "1")
    paced.wait_for("SELECT 1", 1)  # the database is there; the architecture is not checked yet
    processes = run.descendants()
    began = time.monotonic()
    run.signal_group(signal.SIGINT)
    ended = run.wait(20)
    assert (ended.code, time.monotonic() - began < 3.0) == (130, True), ended
    assert "Traceback" not in ended.stderr
    assert wait_until_gone(processes, GONE_SECONDS) == []


def test_a_killed_worker_is_replaced_and_the_study_ends(paced: Shell, start: Callable[..., Started]) -> None:
    """SIGKILL in the middle of a trial costs that attempt: the cell's second attempt has the result."""
    run, _ = start_paced(paced, start, 0.5)
    (worker,) = paced("status", "--json").json["workers"]
    assert worker["pid"] in [process.pid for process in run.descendants()]
    kill(psutil.Process(worker["pid"]))
    (paced.folder / "pace").unlink()
    ended = run.wait()
    assert ended.code == 0, ended.stderr
    told = attempts(paced)
    assert len(told) == 3
    assert [attempt for attempt in told if attempt[0] == "FAIL"] == [("FAIL", "lost", 1)]
    assert ("COMPLETE", None, 2) in told
    assert paced("verify").code == 0


def test_workers_end_with_a_killed_supervisor_and_a_second_run_heals(
    paced: Shell, start: Callable[..., Started]
) -> None:
    """SIGKILL of the command leaves no process; the next run takes the cell over and finishes."""
    run, processes = start_paced(paced, start, 0.5)
    assert len(processes) >= 2
    run.process.kill()
    assert run.wait(10).code == -signal.SIGKILL
    assert wait_until_gone(processes, GONE_SECONDS) == []
    go_on(paced)
