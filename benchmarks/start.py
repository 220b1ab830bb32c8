"""How long a short study waits: seconds from the command's start to its first claim, first epoch, last result and end.

Eight cells of 48 and 96 units, batch 64, six epochs, without pruning, on Fashion-MNIST. The times are those of the
records in the log of the command and of its workers, and of the epochs in the database. With --other the command of
another checkout takes its turn after each run of this one, so that both see the same machine.

    python benchmarks/start.py --runs 5 --other ../before/.venv/bin/fmnist-optuna
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from databases import describe_machine
from tables import print_machine, print_table

from fmnist_optuna.data.fashion_mnist import find_data_dir
from fmnist_optuna.settings import DATA

STUDY = """\
name = "short"
data = {source = "fashion-mnist"}
grid = {hidden_size = [48, 96], dropout_rate = [0.2, 0.3], learning_rate = [0.001, 0.0003]}
training = {batch_size = 64, max_epochs = 6, patience = 6}
pruner = {name = "none"}
"""
DATABASE = "studies/studies.db"
LOOK_SECONDS = 0.005  # between looks for the first epoch, whose row has no time
STAGES = ("first claim", "first epoch", "last result", "end")


def run(command: Path, n_workers: int, data_dir: Path) -> dict[str, float]:
    """One cold command in an empty folder: seconds from its start to each stage."""
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        study = Path(folder) / "short.toml"
        study.write_text(STUDY)
        arguments = [str(command), "run", str(study), "--workers", str(n_workers), "--log-format", "json", "--verbose"]
        environment = {**os.environ, DATA: str(data_dir)}
        began = time.time()
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=log)
            try:
                first_epoch = wait_for_epoch(Path(folder) / DATABASE, process)
                status = process.wait()
            finally:  # interrupted: the command ends in order
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        ended = time.time()
        if status != 0:
            sys.exit(f"{command} must end with 0, but ended with {status}:\n{(Path(folder) / 'log').read_text()}")
        times = list(event_times(Path(folder) / "studies/logs"))
    claims = [at for event, at in times if event == "trial_began"]
    results = [at for event, at in times if event == "trial_ended"]
    stages = dict(zip(STAGES, (min(claims), first_epoch, max(results), ended), strict=True))
    return {name: at - began for name, at in stages.items()}


def wait_for_epoch(database: Path, process: subprocess.Popen[bytes]) -> float:
    """The time at which the first epoch's row is there."""
    while process.poll() is None:
        try:
            with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
                if connection.execute("SELECT count(*) FROM fmnist_epochs").fetchone()[0]:
                    return time.time()
        except sqlite3.OperationalError:  # the tables are still being made
            pass
        time.sleep(LOOK_SECONDS)
    return time.time()


def event_times(folder: Path) -> Iterator[tuple[str, float]]:
    """Event and time, in seconds since 1970, of every record in the workers' logs."""
    for file in folder.glob("*.log"):
        for line in file.read_text().splitlines():
            record: dict[str, Any] = json.loads(line)
            yield record["event"], datetime.fromisoformat(record["time"]).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a short study waits before, between and after its trainings")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--other", type=Path, metavar="COMMAND", help="fmnist-optuna of another checkout")
    options = parser.parse_args()
    data_dir = find_data_dir(Path(os.environ[DATA]) if os.environ.get(DATA) else None)
    if data_dir is None:
        sys.exit(f"Fashion-MNIST is needed, but is neither in {DATA} nor in a cache: fmnist-optuna data fetch")
    print_machine(describe_machine())
    commands = {"this": Path(sys.executable).with_name("fmnist-optuna")}
    if options.other is not None:
        commands["other"] = options.other.absolute()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(options.runs):
        for name, command in commands.items():
            runs[name].append(run(command, options.workers, data_dir.absolute()))
            print(name, {stage: round(at, 2) for stage, at in runs[name][-1].items()}, file=sys.stderr, flush=True)
    print_table(
        f"Seconds from the command's start, {options.workers} workers: median of {options.runs} runs.",
        ("checkout", *STAGES, "end after last result"),
        [(name, *middles(measured)) for name, measured in runs.items()],
    )


def middles(runs: list[dict[str, float]]) -> list[str]:
    """The medians of a table's row."""
    values = [[run[stage] for run in runs] for stage in STAGES]
    values.append([run["end"] - run["last result"] for run in runs])
    return [f"{statistics.median(column):.2f}" for column in values]


if __name__ == "__main__":
    main()
