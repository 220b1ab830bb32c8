"""What the bookkeeping of a study costs: real workers, a stub objective, SQLite.

Starts 8 processes on a study of 100 and on one of 5,000 cells. The objective trains nothing: it reports its epochs and
returns. Prints milliseconds of bookkeeping a trial, and checks that every cell has exactly one result.

    python benchmarks/ledger.py [--workers 8] [--cells 100 5000] [--epochs 1]
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import threading
from pathlib import Path

from optuna.trial import TrialState

from fmnist_optuna.grid import Params
from fmnist_optuna.spec import DataSpec, PrunerSpec, StudySpec
from fmnist_optuna.study.claims import Epoch, Timing
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.storage import open_storage
from fmnist_optuna.study.studies import create_or_join, find_study
from fmnist_optuna.study.trials import Outcome
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.attempt import RunningTrial
from fmnist_optuna.work.loop import work

FINGERPRINT = "0" * 64


def make_spec(n_cells: int) -> StudySpec:
    sizes = tuple(range(1, n_cells // 10 + 1))
    rates = tuple(10.0**-exponent for exponent in range(1, 11))
    return StudySpec(
        name=f"stub-{n_cells}",
        data=DataSpec(source="synthetic"),
        grid={"hidden_size": sizes, "learning_rate": rates},
        pruner=PrunerSpec(name="none"),
    )


class StubObjective:
    def __init__(self, n_epochs: int) -> None:
        self.n_epochs = n_epochs

    def __call__(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        for epoch in range(self.n_epochs):
            if not running.report(Epoch(epoch, 1.0, 0.5, 1.0, 0.5, 0.0)):
                return None
        return Outcome(TrialState.COMPLETE, (seed % 1000) / 1000)


def run_stub_worker(url: str, name: str, index: int, n_epochs: int, barrier: threading.Barrier) -> None:
    storage = open_storage(url)
    session = Session(storage, find_study(storage, name), Timing(), f"stub-{index}")
    session.presence.register(session.name, fresh_seconds=60)
    _ = session.study  # connections and Optuna's caches are made before the clock starts
    barrier.wait()
    work(session, StubObjective(n_epochs), threading.Event(), session.record.generation)


def measure(url: str, n_cells: int, n_workers: int, n_epochs: int) -> dict[str, object]:
    storage = open_storage(url, create=True)
    record, _ = create_or_join(storage, make_spec(n_cells), FINGERPRINT, Timing())
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(n_workers + 1)
    workers = [
        context.Process(target=run_stub_worker, args=(url, record.name, index, n_epochs, barrier))
        for index in range(n_workers)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    for worker in workers:
        worker.join()
    session = Session(storage, record, Timing(), "benchmark")
    seconds = session.history.elapsed_seconds()  # first claim to last result, without the last poll of idle workers
    verification = verify(storage, session.trials, record.study_id)
    return {
        "cells": n_cells,
        "workers": n_workers,
        "epochs_per_trial": n_epochs,
        "seconds": round(seconds, 2),
        "ms_per_trial_wall": round(1000 * seconds / n_cells, 2),
        "exit_codes": sorted({worker.exitcode for worker in workers}),
        "verified": verification.ok,
        "results": verification.n_results,
        "duplicates": verification.n_duplicates,
        "surplus_trials": verification.n_surplus,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Bookkeeping of a study with a stub objective")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 5000])
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps({"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}))
    for n_cells in arguments.cells:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'studies.db'}"
            print(json.dumps(measure(url, n_cells, arguments.workers, arguments.epochs)), flush=True)


if __name__ == "__main__":
    main()
