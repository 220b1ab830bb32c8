"""What a worker costs in memory: `run` with more and more workers on Fashion-MNIST, each in the middle of a training.

    python benchmarks/memory.py [--workers 1 2 4 8 16] [--hidden-size 256] [--json FILE]

A reading is the proportional set size of all processes of the command (a page that n processes share counts 1/n in
each), taken when every worker has finished an epoch, three times. Where the system does not know it, only the pages of
each process alone are counted. The epochs wait for each other in no way; a callback holds each worker after its first.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from databases import describe_machine
from tables import print_machine, print_table
from trees import list_tree, measure_tree

sys.path.append(str(Path(__file__).parents[1] / "tests" / "acceptance"))

from recovery import Watch, wait_for
from shell import PACE, Shell

from fmnist_optuna.data.fashion_mnist import find_data_dir
from fmnist_optuna.settings import DATA

ENDLESS_SECONDS = 3600.0  # a worker that has its first epoch behind it stays where it is
SETTLE_SECONDS = 2.0  # until what a first epoch needed for a moment is given back
N_READINGS = 3
N_AT_IT = "SELECT count(*) FROM fmnist_cells WHERE state = 'running' AND trial_id IS NOT NULL"
STUDY = """\
name = "memory"
[data]
source = "fashion-mnist"
[grid]
hidden_size = [{hidden_size}]
dropout_rate = [0.2]
learning_rate = {learning_rates}
[training]
callbacks = ["pace:make"]
"""


def measure(n_workers: int, hidden_size: int, data_dir: Path) -> int:
    """Bytes of the whole command while all workers train."""
    with tempfile.TemporaryDirectory() as name:
        shell = Shell(Path(name)).with_variables(**{DATA: str(data_dir)})
        shell.write("pace.py", PACE)
        shell.write("pace", str(ENDLESS_SECONDS))
        rates = [round(0.001 + 0.0001 * number, 4) for number in range(n_workers)]
        shell.write("study.toml", STUDY.format(hidden_size=hidden_size, learning_rates=rates))
        with shell.start("run", "study.toml", "--workers", str(n_workers)) as run:
            wait_for(shell.database.exists, "a database")
            watch = Watch(shell.database)
            try:
                wait_for(lambda: is_at_it(watch, n_workers), "a cell for each worker")
                wait_for(lambda: are_resting(run.pid), "a first epoch of each worker")
                time.sleep(SETTLE_SECONDS)
                return round(statistics.median(measure_tree(list_tree(run.pid)) for _ in range(N_READINGS)))
            finally:
                watch.close()


def is_at_it(watch: Watch, n_workers: int) -> bool:
    try:
        ((n_at_it,),) = watch.rows(N_AT_IT)
    except Exception:  # the tables are still being made
        return False
    return bool(n_at_it == n_workers)


def are_resting(pid: int) -> bool:
    """Whether nobody computes: all workers are in the callback that holds them."""
    tree = list_tree(pid)
    before = sum(sum(member.cpu_times()[:2]) for member in tree)
    time.sleep(1.0)
    return sum(sum(member.cpu_times()[:2]) for member in tree) - before < 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description="What a worker costs in memory")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    data_dir = find_data_dir(Path(os.environ[DATA]) if os.environ.get(DATA) else None)
    if data_dir is None:
        sys.exit(f"Fashion-MNIST is needed, but is neither in {DATA} nor in a cache: fmnist-optuna data fetch")
    machine = describe_machine()
    print_machine(machine)
    totals: dict[int, int] = {}
    for n_workers in sorted(options.workers):
        totals[n_workers] = measure(n_workers, options.hidden_size, data_dir)
        print(f"{n_workers} workers: {totals[n_workers] / 1e6:.0f} MB", file=sys.stderr, flush=True)
    first, first_bytes = next(iter(totals.items()))
    further = {n: (size - first_bytes) / (n - first) for n, size in totals.items() if n > first}
    print_table(
        "Memory of the whole command, MB, and of each worker after the first ones.",
        ("workers", "in all", "a further worker"),
        [(n, f"{size / 1e6:,.0f}", f"{further[n] / 1e6:,.0f}" if n in further else "") for n, size in totals.items()],
    )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "bytes": totals, "further_bytes": further}, indent=1))


if __name__ == "__main__":
    main()
