"""How near the engine's epoch comes to its kernels, and what a trial costs outside its epochs.

    python benchmarks/floor.py [--hidden-sizes 64 128 ...] [--batch-sizes 32 128 512] [--repeats 5] [--json FILE]
                               [--clock wall|cpu]

floor   what an epoch of 48,000 images cannot do without: the kernels of a step (`kernels.py`), each timed alone, its
        operands as near as its last turn left them, times the steps; and one forward over 12,000. One thread.
engine  the whole epoch of `fmnist_optuna.training.engine` on the real model, in the same process.

A kernel runs as often as an epoch has steps, inside one compiled loop; the same loop without the kernel is subtracted.
Kernels and engine take turns, and medians are given. What the engine has and the floor has not: reading variables,
counters, seeds and powers of beta, summing losses, the softmax behind the hits, going from one node of the graph to the
next, and caches that the kernels of a step take from each other. `--clock cpu` counts the process's CPU time instead,
which on a machine with other work is nearer to what a quiet one shows. Without Fashion-MNIST on disk the images are
drawn, which changes no time.
"""

import argparse
import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read at TensorFlow's import

import keras
import numpy as np
from databases import describe_machine
from kernels import DROPOUT_RATE, GROUPS, compile_empty_loop, compile_loop, compile_validation, make_kernels
from tables import print_machine, print_table

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST, find_data_dir
from fmnist_optuna.data.source import load_splits
from fmnist_optuna.settings import DATA
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.training.cell_training import build_cell
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.engine import TrainingPass, ValidationPass, use_threads
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.user_code import UserCode

HIDDEN_SIZES = (64, 128, 256, 512, 1024)
BATCH_SIZES = (32, 128, 512)
N_TRAIN, N_VALIDATION = 48_000, 12_000  # images
LEARNING_RATE = 0.001
EPOCHS_OF_A_TRIAL = 3  # a trial's first epoch is compared with the median of those after it

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Clock = Callable[[], float]


class Floor:
    """The kernels of one setting, compiled.

    Args:
        clock: Seconds.
    """

    def __init__(self, hidden_size: int, batch_size: int, data: ResidentData, clock: Clock) -> None:
        self._n_steps = N_TRAIN // batch_size
        self._n_all_steps = N_TRAIN / batch_size  # the last one may be a part of a step
        self._clock = clock
        kernels = make_kernels(hidden_size, batch_size, data)
        self._loops = [(k.group, len(k.inputs), compile_loop(k, self._n_steps)) for k in kernels]
        self._empty = {n: compile_empty_loop(n, self._n_steps) for n in {len(k.inputs) for k in kernels}}
        self._validation = compile_validation(hidden_size, data)
        self.measure()  # traces all

    def measure(self) -> dict[str, float]:
        """Microseconds a step by group, and seconds of the validation and of the whole."""
        empty = {n: time_call(loop, self._clock) for n, loop in self._empty.items()}
        groups = dict.fromkeys(GROUPS, 0.0)
        for group, n_inputs, loop in self._loops:
            seconds = time_call(loop, self._clock) - empty[n_inputs]
            groups[group] += max(0.0, seconds) / self._n_steps * 1e6
        validation = time_call(self._validation, self._clock)
        return {**groups, **sum_floor(groups, self._n_all_steps, validation)}


def sum_floor(groups: Mapping[str, float], n_steps: float, validation: float) -> dict[str, float]:
    """Seconds of an epoch, of microseconds a step and seconds of the validation."""
    return {"validation": validation, "floor": sum(groups.values()) * 1e-6 * n_steps + validation}


def time_call(call: Callable[[], Any], clock: Clock) -> float:
    began = clock()
    call()
    return clock() - began


def measure_setting(
    hidden_size: int, batch_size: int, data: ResidentData, n_repeats: int, clock: Clock
) -> dict[str, Any]:
    """Kernels and engine in turn, so many times."""
    floor = Floor(hidden_size, batch_size, data, clock)
    keras.utils.set_random_seed(0)
    model = create_model(hidden_size, DROPOUT_RATE, LEARNING_RATE)
    run_epoch = make_epoch(model, data, batch_size)
    run_epoch(0, 0)
    samples: list[dict[str, float]] = []
    for epoch in range(1, n_repeats + 1):
        sample = floor.measure()
        sample["engine"] = time_call(lambda: run_epoch(epoch, 0), clock)  # noqa: B023
        samples.append({**sample, "ratio": sample["engine"] / sample["floor"]})
    medians = {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
    return {"hidden_size": hidden_size, "batch_size": batch_size, **medians, "samples": samples}


def measure_overhead(
    code: UserCode, hidden_size: int, batch_size: int, data: ResidentData, n_repeats: int, clock: Clock
) -> dict[str, Any]:
    """Medians of what a short trial costs outside of its epochs, in seconds."""
    trials = [time_trial(code, hidden_size, batch_size, data, clock) for _ in range(n_repeats)]
    medians = {name: statistics.median(trial[name] for trial in trials) for name in trials[0]}
    return {"hidden_size": hidden_size, "batch_size": batch_size, **medians, "samples": trials}


def time_trial(code: UserCode, hidden_size: int, batch_size: int, data: ResidentData, clock: Clock) -> dict[str, float]:
    """Seconds of each part of a trial that is no epoch, as a worker's trial has them."""
    params = {"hidden_size": hidden_size, "dropout_rate": DROPOUT_RATE, "learning_rate": LEARNING_RATE}
    times = [clock()]
    model = build_cell(code, params, 0)
    times.append(clock())
    run_epoch = make_epoch(model, data, batch_size)
    for epoch in range(EPOCHS_OF_A_TRIAL + 1):
        times.append(clock())
        if epoch < EPOCHS_OF_A_TRIAL:
            run_epoch(epoch, 0)
    del model, run_epoch
    code.end()
    times.append(clock())
    build, prepare, first, *later, teardown = np.diff(times).tolist()
    parts = {
        "build": build,
        "prepare": prepare,
        "first epoch": first - statistics.median(later),  # tracing and graph optimisation
        "teardown": teardown,
    }
    return {**parts, "all": sum(parts.values())}


def make_epoch(model: keras.Model, data: ResidentData, batch_size: int) -> Callable[[int, int], None]:
    """An epoch of the engine, training and validation, of its 0-based number and the seed of the shuffles."""
    train = TrainingPass(model, data, batch_size)
    validate = ValidationPass(model, data.validation_images, data.validation_labels)

    def run_epoch(epoch: int, seed: int) -> None:
        train(epoch, seed)
        validate()

    return run_epoch


def load_data() -> tuple[str, ResidentData]:
    """Where the images come from, and as many as the default study has."""
    folder = find_data_dir(Path(os.environ[DATA]) if os.environ.get(DATA) else None)
    splits = load_splits("synthetic" if folder is None else "fashion-mnist", N_VALIDATION, 0, folder)
    return splits.source, ResidentData.from_arrays(
        FASHION_MNIST,
        repeat_to(splits.train_images, N_TRAIN),
        repeat_to(splits.train_labels, N_TRAIN),
        repeat_to(splits.validation_images, N_VALIDATION),
        repeat_to(splits.validation_labels, N_VALIDATION),
    )


def repeat_to(array: np.ndarray, n_items: int) -> np.ndarray:
    """So many items: the synthetic images are fewer."""
    return np.tile(array, (math.ceil(n_items / len(array)), *[1] * (array.ndim - 1)))[:n_items]


def say_ratio(row: Mapping[str, Any]) -> None:
    setting = f"hidden size {row['hidden_size']}, batch {row['batch_size']}"
    print(f"{setting}: {row['engine']:.3f} s over {row['floor']:.3f} s", file=sys.stderr, flush=True)


def print_epochs(rows: Sequence[dict[str, Any]], clock: str) -> None:
    print_table(
        f"Microseconds a step by kernels; seconds of one epoch ({clock} time, medians).",
        ("hidden size", "batch", *GROUPS, "validation s", "floor s", "engine s", "engine / floor"),
        [
            (
                row["hidden_size"],
                row["batch_size"],
                *(f"{row[group]:.1f}" for group in GROUPS),
                *(f"{row[name]:.3f}" for name in ("validation", "floor", "engine")),
                f"{row['ratio']:.2f}",
            )
            for row in rows
        ],
    )


def print_overheads(rows: Sequence[dict[str, Any]], clock: str) -> None:
    parts = list(rows[0]["samples"][0])
    print_table(
        f"Seconds of a trial outside its epochs ({clock} time, medians); of the first epoch, what it takes longer.",
        ("hidden size", *parts),
        [(row["hidden_size"], *(f"{row[part]:.3f}" for part in parts)) for row in rows],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The engine's epoch over its kernels, and a trial's overhead")
    parser.add_argument("--hidden-sizes", type=int, nargs="+", default=HIDDEN_SIZES)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES, help="overhead: of the first")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single time")
    options = parser.parse_args()
    use_threads()
    clock = CLOCKS[options.clock]
    source, data = load_data()
    described = {name: version(name.lower()) for name in ("TensorFlow", "Keras")}
    machine = {**describe_machine(), **described, "data": source, "clock": options.clock}
    print_machine(machine)
    epochs = []
    for hidden_size in options.hidden_sizes:
        for batch_size in options.batch_sizes:
            epochs.append(measure_setting(hidden_size, batch_size, data, options.repeats, clock))
            say_ratio(epochs[-1])
            keras.backend.clear_session()
            gc.collect()
    code = UserCode(parse_spec({"name": "floor"}, "floor"), FASHION_MNIST)
    code.bind()
    gc.freeze()  # as a worker does
    time_trial(code, options.hidden_sizes[0], options.batch_sizes[0], data, clock)  # the process's first pays for all
    overheads = [
        measure_overhead(code, hidden_size, options.batch_sizes[0], data, options.repeats, clock)
        for hidden_size in options.hidden_sizes
    ]
    print_epochs(epochs, options.clock)
    print_overheads(overheads, options.clock)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "epochs": epochs, "overhead": overheads}, indent=1))


if __name__ == "__main__":
    main()
