"""Threads against workers: epochs a minute by one worker a core with one thread, and by one worker with all cores.

    python benchmarks/threads.py [--images 8000] [--repeats 3]

Each worker is a process that trains the same net on its own copy of the images, which are drawn. The first epoch, which
traces, is left out; those that count begin at the same moment in all workers. The ways take turns, medians are given.
"""

import argparse
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from databases import describe_machine
from tables import print_machine, print_table

from fmnist_optuna.processes.cores import usable_cores

if TYPE_CHECKING:
    import keras

BATCH_SIZE, RATE = 128, 0.001
NETS = ("dense 256", "dense 1024 x 3", "conv 8 16 32", "conv 32 64 128", "resnet-20")


def make_model(net: str) -> "keras.Model":
    """One of the nets."""
    # These load TensorFlow, in the workers alone.
    from fmnist_optuna.training.conv import create_conv
    from fmnist_optuna.training.dense import create_model
    from fmnist_optuna.training.resnet import create_resnet

    if net == "resnet-20":
        return create_resnet(RATE)
    if net == "dense 256":
        return create_model(256, 0.2, RATE)
    if net == "dense 1024 x 3":
        return create_model(1024, 0.1, RATE, n_hidden_layers=3, batch_norm=True)
    width_1, width_2, width_3 = (int(width) for width in net.split()[1:])
    return create_conv(RATE, width_1, width_2, width_3)


def train(net: str, n_threads: int, n_images: int) -> None:
    """Body of a worker: says when the first epoch is over, and prints the seconds of another for each line it gets."""
    from fmnist_optuna.settings import prepare_training_environment

    prepare_training_environment()
    # These load TensorFlow, which reads the environment.
    import numpy as np
    import tensorflow as tf

    from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
    from fmnist_optuna.training.engine import TrainingPass
    from fmnist_optuna.training.resident_data import ResidentData

    tf.config.threading.set_intra_op_parallelism_threads(n_threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n_images, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, n_images).astype(np.uint8)
    data = ResidentData.from_arrays(FASHION_MNIST, images, labels, images[:1], labels[:1])
    run_epoch = TrainingPass(make_model(net), data, BATCH_SIZE)
    run_epoch(0, 0)
    print("ready", flush=True)
    for epoch, _ in enumerate(sys.stdin, start=1):
        began = time.perf_counter()
        run_epoch(epoch, 0)
        print(time.perf_counter() - began, flush=True)


class Workers:
    """Processes that train one net at the same time."""

    def __init__(self, net: str, n_workers: int, n_threads: int, n_images: int) -> None:
        command = [sys.executable, __file__, "--worker", net, "--threads", str(n_threads), "--images", str(n_images)]
        self._processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            for _ in range(n_workers)
        ]
        self._read()

    def _read(self) -> list[str]:
        lines = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                sys.exit(f"A worker must train, but it ended with {process.wait()}.")
            lines.append(line)
        return lines

    def epochs_per_minute(self) -> float:
        """Of one epoch in each worker, begun at the same moment."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return sum(60 / float(line) for line in self._read())

    def end(self) -> None:
        """Let the processes end."""
        for process in self._processes:
            process.communicate()


def measure(net: str, n_cores: int, n_images: int, n_repeats: int) -> tuple[float, float]:
    """Epochs a minute with a thread a worker, and with one worker."""
    ways = Workers(net, n_cores, 1, n_images), Workers(net, 1, n_cores, n_images)
    found: tuple[list[float], list[float]] = [], []
    for _ in range(n_repeats):
        for way, seconds in zip(ways, found, strict=True):
            seconds.append(way.epochs_per_minute())
    for way in ways:
        way.end()
    return statistics.median(found[0]), statistics.median(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Epochs a minute with many workers, and with many threads")
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train(options.worker, options.threads, options.images)
        return
    n_cores = usable_cores()
    print_machine(describe_machine() | {"date": time.strftime("%Y-%m-%d")})
    rows = []
    for net in options.nets:
        workers, threads = measure(net, n_cores, options.images, options.repeats)
        rows.append((net, f"{workers:.1f}", f"{threads:.1f}", f"{workers / threads:.2f}"))
    print_table(
        f"Epochs of {options.images:,} images a minute, batches of {BATCH_SIZE}; medians of {options.repeats}.",
        ("net", f"{n_cores} workers, 1 thread each", f"1 worker, {n_cores} threads", "ratio"),
        rows,
    )


if __name__ == "__main__":
    main()
