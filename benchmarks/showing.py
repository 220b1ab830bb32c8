"""What it costs to look: the report of a large study, a dashboard's first paint, and a watcher beside a study.

Trials are made up: 20 epochs, median pruner; the objective trains nothing. Databases are SQLite, in a temporary folder.

    python benchmarks/showing.py [--cells 5000] [--shown 1000] [--chromium PROGRAM]
"""

import argparse
import itertools
import os
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright
from stub_workers import StubStudy, accuracy

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.loop import LeaveRequest, work
from fmnist_optuna.work.running_trial import RunningTrial

COMMAND = Path(sys.executable).with_name("fmnist-optuna")
FINGERPRINT = "0" * 64  # no data is loaded
N_EPOCHS = 20
ROUNDS = 5
WATCH_SECONDS = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to look at a study")
    parser.add_argument("--cells", type=int, default=5000, help="of the study that a report tells of; in hundreds")
    parser.add_argument("--shown", type=int, default=1000, help="cells of the study in the dashboard; in hundreds")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = fill(folder / "large", options.cells)
        shown = fill(folder / "shown", options.shown)
        measure_report(large, options.cells)
        measure_dashboard(shown, options.shown, options.chromium)
        measure_watcher(folder / "watched", options.cells)


def fill(folder: Path, n_cells: int, n_done: int | None = None) -> str:
    """A study with results in a new database; returns its URL."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'studies.db'}"
    study = StubStudy(url, n_cells, N_EPOCHS, 0.0, 0, "median")
    storage = create_storage(StorageOptions(url))
    record = create_or_join(storage, study.spec, FINGERPRINT)[0]
    session = Session(storage, record, "filler")
    leave = LeaveRequest()
    n_begun = itertools.count(1)

    def objective(params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        if next(n_begun) == n_done:
            leave.set()  # read between trials
        for epoch in range(N_EPOCHS):
            if not running.report(Epoch(epoch, 1.0, 0.5, 1.0, accuracy(params, epoch), 0.1)):
                return Outcome(State.PRUNED, reason="pruned") if running.ending == "pruned" else None
        return Outcome(State.COMPLETE, accuracy(params, N_EPOCHS - 1))

    began = time.perf_counter()
    work(session, objective, leave, record.generation)
    say(f"{n_cells} cells filled in {time.perf_counter() - began:.0f} s: {session.history.counts()}")
    storage.close()
    return url


def measure_report(url: str, n_cells: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "report.html"
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            subprocess.run([COMMAND, "report", "--storage", url, "--out", file], check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
        say(f"report of {n_cells} cells: {show(seconds)}, {file.stat().st_size / 1e6:.1f} MB")


def measure_dashboard(url: str, n_cells: int, chromium: str) -> None:
    arguments: list[str | Path] = [COMMAND, "dashboard", "--storage", url, "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            seconds = []
            for _ in range(ROUNDS):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                began = time.perf_counter()
                page.goto(f"{address}/studies/1")
                page.locator(".js-plotly-plot .main-svg").first.wait_for()
                seconds.append(time.perf_counter() - began)
                page.close()
            browser.close()
        finally:
            server.terminate()
    say(f"dashboard of {n_cells} trials, first figure drawn: {show(seconds)}; the first {seconds[0]:.2f} s")


def measure_watcher(folder: Path, n_cells: int) -> None:
    """CPU of `status --watch` on a study half done, with a cell that runs."""
    url = fill(folder, n_cells, n_cells // 2)
    storage = open_storage(StorageOptions(url))
    record = create_or_join(storage, StubStudy(url, n_cells, N_EPOCHS, 0.0, 0, "median").spec, FINGERPRINT)[0]
    session = Session(storage, record, "runner")
    assert session.ledger.claim(session.name, record.generation) is not None
    screen, terminal = pty.openpty()
    threading.Thread(target=drain, args=(screen,), daemon=True).start()
    with subprocess.Popen([COMMAND, "status", "--watch", "--storage", url], stdout=terminal) as watcher:
        try:
            time.sleep(5)  # it has started
            process = psutil.Process(watcher.pid)
            before = sum(process.cpu_times()[:2])
            time.sleep(WATCH_SECONDS)
            used = sum(process.cpu_times()[:2]) - before
        finally:
            watcher.terminate()
    storage.close()
    say(f"status --watch on {n_cells} cells: {100 * used / WATCH_SECONDS:.1f} % of a core")


def drain(screen: int) -> None:
    while os.read(screen, 65536):
        pass


def show(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
