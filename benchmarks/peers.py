"""The same study by this project and by what people use instead: whole commands, side by side, on the same machine.

    python benchmarks/peers.py [--size short|small|full] [--tools ...] [--rounds 3] [--json FILE] [--chart FILE.png]

loop          each cell in turn through stock `model.fit`, TensorFlow's own choice of threads
optuna        GridSampler on SQLite, stock `fit`, 2 processes with one thread each
keras-tuner   GridSearch, stock `fit`, TensorFlow's own choice of threads
ray-tune      grid_search with one core a trial, stock `fit`, one thread each
ours          `fmnist-optuna run --pruner none`, on SQLite, 2 workers
ours, pruned  the same with the default pruner

All train the same cells on the same 48,000 images, select on the same 12,000, in batches of 32 (64 in the short study,
which is mostly start and end), with the same cap on epochs and early stopping, and end with the winner scored on the
10,000 test images. A time is that of the whole command, from a cold process to its end; each command has run once
before, on one cell, so that its files are in memory. The tools take turns, and a figure of several rounds is a median.
A duplicate training of Optuna's is counted out: its seconds, divided by the processes, are taken off. Needs
`pip install '.[bench]'`.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from databases import describe_machine
from peer_readings import (
    N_WORKERS,
    OURS,
    PEERS,
    TOOLS,
    Reading,
    Training,
    count_out_duplicates,
    draw_chart,
    print_summary,
    summarise,
)
from tables import print_machine
from trees import list_tree, measure_tree

from fmnist_optuna.data.fashion_mnist import find_data_dir
from fmnist_optuna.data.source import load_splits
from fmnist_optuna.durable import whole_file
from fmnist_optuna.settings import DATA

PROGRAMS = Path(__file__).with_name("peer_programs.py")
COMMAND = Path(sys.executable).with_name("fmnist-optuna")
PACKAGES = ("tensorflow", "keras", "keras-tuner", "ray", "numpy")
SAMPLE_SECONDS = 1.0  # between two readings of the memory
SPLIT = {"n_validation": 12_000, "split_seed": 0}
TRAINING = {"patience": 5, "seed": 0}


@dataclass(frozen=True)
class Size:
    """A study of some size."""

    grid: dict[str, list[Any]]
    max_epochs: int
    batch_size: int = 32


SIZES = {
    "short": Size({"hidden_size": [48, 96], "dropout_rate": [0.2, 0.3], "learning_rate": [0.001, 0.0003]}, 6, 64),
    "small": Size({"hidden_size": [64, 256], "dropout_rate": [0.2, 0.5], "learning_rate": [0.001, 0.0001]}, 5),
    "full": Size(
        {"hidden_size": [64, 128, 256], "dropout_rate": [0.2, 0.3, 0.5], "learning_rate": [0.01, 0.001, 0.0001]}, 30
    ),
}
WARM_UP = Size({"hidden_size": [16], "dropout_rate": [0.2], "learning_rate": [0.001]}, 1)

STUDY = """\
name = "peers"
[data]
source = "fashion-mnist"
n_validation = {n_validation}
split_seed = {split_seed}
[grid]
{grid}
[training]
batch_size = {batch_size}
max_epochs = {max_epochs}
patience = {patience}
seed = {seed}
"""


class MemoryWatch:
    """The largest memory of a process and its descendants, read once in SAMPLE_SECONDS."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self.seen: dict[int, psutil.Process] = {}
        self._pid, self._is_over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(SAMPLE_SECONDS):
            tree = list_tree(self._pid)
            self.seen |= {process.pid: process for process in tree}
            self.peak_bytes = max(self.peak_bytes, measure_tree(tree))


def time_command(arguments: Sequence[str | Path], folder: Path) -> tuple[float, int, str]:
    """Run a command to its end: wall seconds, peak bytes, what it printed. Nothing of it outlives the call."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FMNIST_OPTUNA")}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    began = time.monotonic()
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [str(argument) for argument in arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with MemoryWatch(process.pid) as memory:
            try:
                output, _ = process.communicate()
            finally:
                process.kill()
                wall_seconds = time.monotonic() - began
    for left in memory.seen.values():
        if left.pid != process.pid and left.is_running():  # the same process, not only the same number
            left.kill()
    if process.returncode != 0:
        words = (folder / "stderr").read_text()[-3000:]
        raise RuntimeError(
            f"{' '.join(map(str, arguments))} must succeed, but ended with {process.returncode}: {words}"
        )
    return wall_seconds, memory.peak_bytes, output


def run_peer(tool: str, size: Size, data_file: Path) -> Reading:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {"data": str(data_file), "folder": name, "n_workers": N_WORKERS}
        (folder / "job.json").write_text(json.dumps(job | asdict(size) | TRAINING))
        command = (sys.executable, PROGRAMS, tool, folder / "job.json")
        wall_seconds, peak_bytes, _ = time_command(command, folder)
        trainings = tuple(Training(**json.loads(file.read_text())) for file in sorted(folder.glob("training-*.json")))
        winner = json.loads((folder / "result.json").read_text())
    return count_out_duplicates(Reading(tool, wall_seconds, wall_seconds, peak_bytes, trainings, winner))


def run_ours(tool: str, size: Size, data_dir: Path) -> Reading:
    pruner = ("--pruner", "none") if tool == OURS else ()
    settings = asdict(size) | {"grid": "\n".join(f"{name} = {values}" for name, values in size.grid.items())}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "study.toml").write_text(STUDY.format(**settings, **SPLIT, **TRAINING))
        command = (COMMAND, "run", "study.toml", "--data-dir", data_dir, "--workers", str(N_WORKERS), "--json", *pruner)
        wall_seconds, peak_bytes, output = time_command(command, folder)
        _, _, trials = time_command((COMMAND, "trials", "--json"), folder)
    trainings = tuple(
        Training(
            trial["params"], trial["epochs"], trial["seconds"], trial["val_accuracy"] or 0.0, trial["state"] == "PRUNED"
        )
        for trial in json.loads(trials)["trials"]
    )
    winner = {name: json.loads(output)[name] for name in ("params", "val_accuracy", "test_accuracy")}
    return Reading(tool, wall_seconds, wall_seconds, peak_bytes, trainings, winner)


def write_data(folder: Path, data_dir: Path) -> Path:
    """The split that our command makes, as one file that the programs read."""
    splits = load_splits("fashion-mnist", SPLIT["n_validation"], SPLIT["split_seed"], data_dir)
    file = folder / "data.npz"
    roles = ("train", "validation", "test")
    np.savez(file, **{f"{role}_{what}": getattr(splits, f"{role}_{what}") for role in roles for what in KINDS})
    return file


KINDS = ("images", "labels")


def check_machine() -> None:
    missing = [name for name in ("keras_tuner", "ray", "matplotlib") if not is_installed(name)]
    if missing:
        sys.exit(
            f"The packages of the extra bench are needed, but {', '.join(missing)} is missing: pip install '.[bench]'"
        )
    if not COMMAND.exists():
        sys.exit(f"The command fmnist-optuna must stand beside {sys.executable}: pip install -e '.[bench]'")


def is_installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description="The same study by this project and by other tools, side by side")
    parser.add_argument("--size", choices=SIZES, default="small", help="8 cells x 6 or 5 epochs, or the default study")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every reading")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="a PNG of the times")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    check_machine()
    data_dir = find_data_dir(Path(os.environ[DATA]) if os.environ.get(DATA) else None)
    if data_dir is None:
        sys.exit(f"Fashion-MNIST is needed, but is neither in {DATA} nor in a cache: fmnist-optuna data fetch")
    machine = describe_machine() | {name: version(name) for name in PACKAGES} | {"date": time.strftime("%Y-%m-%d")}
    print_machine(machine)
    readings = measure(options, data_dir, machine)
    rows = summarise(readings)
    print_summary(rows)
    if options.chart:
        size = SIZES[options.size]
        n_cells = math.prod(map(len, size.grid.values()))
        draw_chart(rows, f"{n_cells} cells, at most {size.max_epochs} epochs, Fashion-MNIST, 2 cores", options.chart)


def measure(options: argparse.Namespace, data_dir: Path, machine: Mapping[str, str]) -> list[Reading]:
    """All rounds; what was read is on disk after each command."""
    readings: list[Reading] = []
    with tempfile.TemporaryDirectory() as name:
        data_file = write_data(Path(name), data_dir)

        def run(tool: str, size: Size) -> Reading:
            return run_peer(tool, size, data_file) if tool in PEERS else run_ours(tool, size, data_dir)

        for tool in options.tools:
            run(tool, WARM_UP)
        for number in range(options.rounds):
            for tool in rotate(options.tools, number):
                readings.append(run(tool, SIZES[options.size]))
                say(number, readings[-1])
                if options.json:
                    results = {"machine": machine, "size": options.size, "summary": summarise(readings)}
                    write_json(options.json, results | {"readings": [asdict(reading) for reading in readings]})
    return readings


def rotate(tools: Sequence[str], n_places: int) -> list[str]:
    """Another tool first in each round, so that none always runs on a machine warmed by the same one."""
    return [tools[(index + n_places) % len(tools)] for index in range(len(tools))]


def say(number: int, reading: Reading) -> None:
    print(
        f"round {number + 1}, {reading.tool}: {reading.wall_seconds:.1f} s, {reading.n_epochs} epochs, "
        f"{reading.n_duplicates} duplicates, test {100 * reading.winner['test_accuracy']:.2f} %",
        file=sys.stderr,
        flush=True,
    )


def write_json(file: Path, results: Any) -> None:
    """Whole or not at all."""
    with whole_file(file) as stream:
        stream.write(json.dumps(results, indent=1).encode())


if __name__ == "__main__":
    main()
