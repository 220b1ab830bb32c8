"""A finished study is an ordinary Optuna study: its own commands, library and dashboard read it."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import FinishedStudy

BIN = Path(sys.executable).parent
START_SECONDS = 30.0


def optuna_command(smoke: FinishedStudy, *typed: str) -> Any:
    """The JSON answer of the `optuna` command about the study."""
    done = subprocess.run(
        [BIN / "optuna", *typed, "--study-name", "smoke", "--storage", f"sqlite:///{smoke.shell.database}",
         "-f", "json"],
        cwd=smoke.shell.folder, env=smoke.shell.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_optuna_command_lists_every_trial(smoke: FinishedStudy) -> None:
    """`optuna trials` shows four COMPLETE trials with the parameters of the grid."""
    trials = optuna_command(smoke, "trials")
    assert [(trial["number"], trial["state"]) for trial in trials] == [(n, "COMPLETE") for n in range(4)]
    assert sorted((t["params"]["hidden_size"], t["params"]["learning_rate"]) for t in trials) == [
        (16, 0.001), (16, 0.01), (32, 0.001), (32, 0.01),
    ]  # fmt: skip


def test_the_optuna_command_names_our_winner(smoke: FinishedStudy) -> None:
    """`optuna best-trial` is the trial that `run` named."""
    best = optuna_command(smoke, "best-trial")
    assert f"trial {best['number']}\n" in smoke.run.stdout
    assert f"{100 * best['value']['val_accuracy']:.2f} %" in smoke.run.stdout


def test_a_stock_grid_sampler_takes_the_study_for_exhausted(smoke: FinishedStudy) -> None:
    """`optuna.load_study` with a GridSampler over the same grid finds every point evaluated and the curves reported."""
    import optuna

    grid: dict[str, Any] = {"hidden_size": [16, 32], "dropout_rate": [0.2], "learning_rate": [0.01, 0.001]}
    sampler = optuna.samplers.GridSampler(grid)
    study = optuna.load_study(study_name="smoke", storage=f"sqlite:///{smoke.shell.database}", sampler=sampler)
    assert sampler.is_exhausted(study)
    assert [len(trial.intermediate_values) for trial in study.trials] == [3] * 4
    assert study.best_value == max(max(trial.intermediate_values.values()) for trial in study.trials)


@pytest.fixture(scope="module")
def dashboard(smoke: FinishedStudy) -> Iterator[str]:
    """The address of optuna-dashboard on the study's database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = subprocess.Popen(
        [BIN / "optuna-dashboard", f"sqlite:///{smoke.shell.database}", "--host", "127.0.0.1", "--port", str(port)],
        cwd=smoke.shell.folder, env=smoke.shell.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            assert server.poll() is None, "the dashboard must start"
            assert time.monotonic() < deadline, "the dashboard must listen"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(address: str) -> tuple[int, bytes]:
    """Status and body of a page, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=30) as response:
        return response.status, response.read()


def test_the_dashboard_lists_the_study(dashboard: str) -> None:
    """GET /api/studies names the study."""
    status, body = get(f"{dashboard}/api/studies")
    assert status == 200
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["smoke"]


def test_the_dashboard_shows_every_trial_of_the_study(dashboard: str) -> None:
    """The page and its data answer 200, with four complete trials and three reported epochs each."""
    (study,) = json.loads(get(f"{dashboard}/api/studies")[1])["study_summaries"]
    assert get(f"{dashboard}/dashboard/studies/{study['study_id']}")[0] == 200
    status, body = get(f"{dashboard}/api/studies/{study['study_id']}?after=0")
    trials = json.loads(body)["trials"]
    assert status == 200
    assert [(trial["state"], len(trial["intermediate_values"])) for trial in trials] == [("Complete", 3)] * 4
