"""What it costs to be watched: an event, a scrape, and CPU seconds of a short study with and without both.

The study has 8 cells of 48 and 96 units, batch 64, six epochs, on Fashion-MNIST. `run` is measured with `--events` and
without, a `worker` with `--metrics-port`, scraped 200 times a minute, and `--events`, and without; they take turns, so
that both see the same machine. CPU seconds are those of all processes of a command, read every 0.1 s: what a worker
uses in its last instant is not seen. FMNIST_OPTUNA_DATA may name the folder of the data, as for every command.

    python benchmarks/watching.py --runs 5
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from databases import describe_machine, fresh_database
from sqlalchemy import insert
from start import STUDY
from tables import print_machine, print_table

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.bridge.totals import read_totals
from fmnist_optuna.events.file import EventFile
from fmnist_optuna.events.schema import make_line
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import cells, epochs, studies

COMMAND = Path(sys.executable).with_name("fmnist-optuna")
PORT = 9137
LOOK_SECONDS = 0.1
SCRAPE_SECONDS = 60 / 200
TICKS = os.sysconf("SC_CLK_TCK")
EPOCH = {
    "study": "short", "cell": "ab" * 32, "trial": 7, "worker": "host-0a1b2c-1", "epoch": 3, "value": 0.8765432,
    "train_loss": 0.41234567, "train_accuracy": 0.8512345, "val_loss": 0.35123456, "val_accuracy": 0.8765432,
    "seconds": 1.2345678,
}  # fmt: skip


def time_event(n_events: int) -> tuple[float, float]:
    """Microseconds of the processor that an event takes to be put into a line, and to be written as well."""
    began = time.process_time()
    for _ in range(n_events):
        make_line("epoch_ended", EPOCH, datetime.now(UTC))
    made = time.process_time()
    with tempfile.TemporaryDirectory(prefix="watching-") as folder:
        file = EventFile(Path(folder) / "events.ndjson")
        began_writing = time.process_time()
        for _ in range(n_events):
            file.write("epoch_ended", EPOCH)
        ended = time.process_time()
        file.close()
    return 1e6 * (made - began) / n_events, 1e6 * (ended - began_writing) / n_events


def time_read(n_cells: int, n_epochs: int) -> float:
    """Milliseconds of the processor that one read of a study's numbers takes, on SQLite."""
    row = {"study_id": 1, "state": "done", "result": "COMPLETE", "claims": 1, "failures": 0, "lost": 0, "params": "{}"}
    study = {"study_id": 1, "study_name": "s", "kind": "search", "generation": 0, "spec_version": 1, "spec": "{}"}
    study |= {"spec_sha256": "", "grids": "[]", "data_source": "", "data_fingerprint": "", "created_at": 0.0}
    trained = {"study_id": 1, "seconds": 1.0}
    with fresh_database("sqlite", "") as url:
        storage = create_storage(StorageOptions(url))
        with storage.write() as connection:
            connection.execute(insert(studies), [study])
            for n in range(n_cells):
                of_cell = {"cell_id": f"{n:064}", "position": n, "trial_id": n, "value": n / n_cells}
                connection.execute(insert(cells), [{**row, **of_cell}])
                numbers = [{**trained, "trial_id": n, "epoch": epoch} for epoch in range(n_epochs)]
                connection.execute(insert(epochs), numbers)
        times = []
        for _ in range(5):
            began = time.process_time()
            (totals,) = read_totals(storage)
            times.append(1e3 * (time.process_time() - began))
        storage.close()
        if (totals.cells[State.COMPLETE], totals.n_epochs) != (n_cells, n_cells * n_epochs):
            sys.exit(f"all cells and epochs must be counted, but the totals are {totals}")
    return statistics.median(times)


def read_cpu(group: int) -> dict[int, float]:
    """CPU seconds so far of each process of a group."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    found[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def measure(folder: Path, *arguments: str) -> float:
    """CPU seconds of a command and of all that it starts."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([COMMAND, *arguments], cwd=folder, stdout=log, stderr=log, process_group=0)
        seen: dict[int, float] = {}
        while process.poll() is None:
            seen |= read_cpu(process.pid)
            time.sleep(LOOK_SECONDS)
    if process.returncode != 0:
        sys.exit(f"{arguments} must end with 0, but ended with {process.returncode}: {(folder / 'log').read_text()}")
    return sum(seen.values())


@contextlib.contextmanager
def scraping() -> Iterator[None]:
    """Within this block, scrape the worker 200 times a minute from when it answers."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_SECONDS):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5).read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def run(*options: str) -> float:
    """`run` with two workers, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="watching-") as folder:
        (Path(folder) / "short.toml").write_text(STUDY)
        return measure(Path(folder), "run", "short.toml", "--workers", "2", *options)


def work(*options: str) -> float:
    """One `worker` that trains the whole study."""
    with tempfile.TemporaryDirectory(prefix="watching-") as folder:
        (Path(folder) / "short.toml").write_text(STUDY)
        measure(Path(folder), "init", "short.toml")
        with scraping() if options else contextlib.nullcontext():
            return measure(Path(folder), "worker", *options)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5)
    n_runs = parser.parse_args().runs
    print_machine(describe_machine())
    made, written = time_event(20_000)
    print(f"\nan event: {made:.0f} us to make its line, {written:.0f} us with its write")
    for n_cells in (27, 1_000, 10_000):
        print(f"a read of the numbers of {n_cells:,} cells of 10 epochs: {time_read(n_cells, 10):.1f} ms")
    cases: dict[str, Callable[[], float]] = {
        "run": run,
        "run --events": lambda: run("--events", "events.ndjson"),
        "worker": work,
        "worker --metrics-port --events": lambda: work("--metrics-port", str(PORT), "--events", "events.ndjson"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(n_runs):
        for name, case in cases.items():
            seconds[name].append(case())
            print(f"{name}: {seconds[name][-1]:.1f} CPU s", flush=True)
    rows = [
        [name, f"{statistics.median(found):.1f}", f"{min(found):.1f}", f"{max(found):.1f}"]
        for name, found in seconds.items()
    ]
    print_table(f"CPU seconds of a study of 8 cells, {n_runs} runs each", ("command", "median", "least", "most"), rows)


if __name__ == "__main__":
    main()
