"""What a pause costs: a checkpoint written, read and restored, and a training that goes on from memory.

    python benchmarks/checkpoint.py [--units 256] [--repeat 50]

The net is 784-UNITS-10 with Adam, after two epochs on 48,000 random images, so that it has best weights too. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from databases import describe_machine
from tables import print_machine, print_table

from fmnist_optuna.settings import prepare_training_environment

if TYPE_CHECKING:
    from fmnist_optuna.training.resident_data import ResidentData
    from fmnist_optuna.training.running_cell import CellTraining
    from fmnist_optuna.training.user_code import UserCode

N_TRAIN, N_VALIDATION = 48_000, 12_000

Row = tuple[str, str]


def measure(name: str, work: Callable[[], object], repeat: int = 1) -> Row:
    """Median milliseconds of a piece of work."""
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return name, f"{1000 * statistics.median(seconds):.1f} ms"


@dataclass
class Bench:
    """A study of one cell, and the data."""

    code: UserCode
    data: ResidentData
    params: dict[str, float]

    @classmethod
    def of(cls, units: int) -> Bench:
        from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
        from fmnist_optuna.spec.reading import parse_spec
        from fmnist_optuna.training.resident_data import ResidentData
        from fmnist_optuna.training.user_code import UserCode

        random = np.random.default_rng(0)
        images = random.integers(0, 256, (N_TRAIN + N_VALIDATION, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, N_TRAIN + N_VALIDATION).astype(np.uint8)
        train, validation = slice(N_TRAIN), slice(N_TRAIN, None)
        arrays = (images[train], labels[train], images[validation], labels[validation])
        params = {"hidden_size": units, "dropout_rate": 0.2, "learning_rate": 0.001}
        grid = {name: [value] for name, value in params.items()}
        code = UserCode(parse_spec({"name": "bench", "grid": grid}, "bench"), FASHION_MNIST)
        code.bind()
        return cls(code, ResidentData.from_arrays(FASHION_MNIST, *arrays), params)

    def begin(self, seed: int = 0) -> CellTraining:
        from fmnist_optuna.training.cell_training import begin_cell

        return begin_cell(self.code, self.params, seed, self.data, [])


def measure_file(bench: Bench, path: Path, repeat: int) -> Iterator[Row]:
    """Save, read and restore."""
    from fmnist_optuna.training.checkpoint import Checkpoint, Identity, read_checkpoint

    identity = Identity("cell", 0, "code", "environment")
    first = bench.begin()
    first.run(2)
    yield measure("save", lambda: first.save(path, identity), repeat)
    first.close()
    yield "size of the file", f"{path.stat().st_size / 1e6:.1f} MB"
    yield measure("read", lambda: read_checkpoint(path, identity), repeat)
    checkpoint = read_checkpoint(path, identity)
    assert isinstance(checkpoint, Checkpoint)
    yield measure("build a fresh model", lambda: bench.begin().close())
    fresh = bench.begin()
    yield measure("restore, with the first trace", lambda: fresh.restore(checkpoint))
    yield measure("restore, traced", lambda: fresh.restore(checkpoint), repeat)
    yield measure("first epoch after it", lambda: fresh.run(3))
    yield measure("an epoch", lambda: fresh.run(4))
    fresh.close()


def measure_memory(bench: Bench, repeat: int) -> Iterator[Row]:
    """Take and keep, after another cell has cleared away what it clears away."""
    from fmnist_optuna.training.paused import PausedTrainings

    paused = PausedTrainings(bench.code)
    for seed in (0, 1):
        cell = bench.begin(seed)
        cell.run(2)
        paused.keep(str(seed), cell)

    def take() -> CellTraining:
        cell = paused.take("0", [])
        assert cell is not None
        return cell

    yield measure("take from memory and keep again", lambda: paused.keep("0", take()), repeat)
    cell = take()
    yield measure("first epoch after it", lambda: cell.run(3))
    yield measure("an epoch", lambda: cell.run(4))
    cell.close()
    paused.drop_all()


def main() -> None:
    parser = argparse.ArgumentParser(description="What a pause costs")
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=50)
    options = parser.parse_args()
    prepare_training_environment()
    from fmnist_optuna.training.engine import use_threads

    use_threads()
    bench = Bench.of(options.units)
    with tempfile.TemporaryDirectory() as folder:
        rows = [*measure_file(bench, Path(folder) / "checkpoint", options.repeat)]
    rows += measure_memory(bench, options.repeat)
    print_machine(describe_machine())
    print_table(f"A pause of a training of {options.units} units.", ("what", "takes"), rows)


if __name__ == "__main__":
    main()
