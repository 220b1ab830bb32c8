"""What the bookkeeping of a study costs: real worker processes, an objective that trains nothing, SQLite and Postgres.

Each configuration runs in a database of its own. Workers begin together, on open connections; every call of theirs is
timed, wall and CPU, our statements apart from Optuna's. In the end every finished cell must have exactly one result.

    python benchmarks/ledger.py [--database sqlite postgres] [--workers 4 16 64] [--cells 100 10000] [--epochs 3]
        [--epoch-ms 0] [--trials 1000] [--pruner none|median] [--sampler grid|random|qmc|tpe] [--stock]
        [--postgres-url URL] [--json FILE]

Postgres is started in a temporary folder, as durable as a default installation. Its own CPU time is in no table, but in
all wall times. The exit status is 1 when a check failed.
"""

import argparse
import contextlib
import itertools
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clocks import OPTUNA_PER_EPOCH, OPTUNA_PER_TRIAL, OURS_PER_EPOCH, OURS_PER_TRIAL, Report
from databases import describe_machine, fresh_database, open_server
from optuna.trial import TrialState
from stub_workers import CELLS_PER_SIZE, StubStudy, load_stock_study, our_worker, run_workers, stock_worker
from tables import print_machine, print_table, yes_or_no

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify

FINGERPRINT = "0" * 64  # no data is loaded
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def main() -> None:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # workers and server are ended on the way out
    results: dict[str, Any] = {"machine": {}, "options": {k: v for k, v in vars(options).items() if k in PLAIN_OPTIONS}}
    measures = {"ours": measure_ours, "stock": measure_stock} if options.stock else {"ours": measure_ours}
    results |= {name: [] for name in measures}
    with contextlib.ExitStack() as stack:
        servers = {
            kind: stack.enter_context(open_server(kind, options.postgres_url, max(options.workers)))
            for kind in options.database
        }
        results["machine"] = describe_machine(servers.get("postgres", ""))
        print_machine(results["machine"])
        for kind, n_cells, n_workers in itertools.product(options.database, options.cells, options.workers):
            for name, measure in measures.items():
                row = measure_once(measure, kind, servers[kind], n_cells, n_workers, options)
                say(f"{name}: {kind}, {n_workers} workers, {n_cells} cells: {row['trials']} trials, {row['seconds']} s")
                results[name].append(row)
                if options.json:  # after each, so that an interrupted series is not lost
                    options.json.write_text(json.dumps(results, indent=1))
    print_ours(results["ours"])
    if options.stock:
        print_stock(results["stock"], results["ours"])
    sys.exit(not all(row["ok"] for row in results["ours"]))


PLAIN_OPTIONS = ("database", "workers", "cells", "epochs", "epoch_ms", "trials", "pruner", "sampler", "stock")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the bookkeeping of a study costs; the objective trains nothing")
    parser.add_argument("--database", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"])
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 10_000], help=f"multiples of {CELLS_PER_SIZE}")
    parser.add_argument("--epochs", type=int, default=3, help="of a trial")
    parser.add_argument("--epoch-ms", type=float, default=0.0, help="how long an epoch sleeps")
    parser.add_argument("--trials", type=int, default=1000, help="begin none after so many are finished; 0 for all")
    parser.add_argument("--pruner", choices=("none", "median"), default="none")
    parser.add_argument("--sampler", choices=("grid", "random", "qmc", "tpe"), default="grid", help="of the cells")
    parser.add_argument("--stock", action="store_true", help="the same work by stock Optuna too, for comparison")
    parser.add_argument("--postgres-url", help="a running server whose user may create databases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    options = parser.parse_args()
    if options.stock and options.sampler != "grid":
        parser.error(f"--stock compares grids, but --sampler is {options.sampler}")
    if wrong := [n for n in options.cells if n < CELLS_PER_SIZE or n % CELLS_PER_SIZE]:
        parser.error(f"--cells must be multiples of {CELLS_PER_SIZE}, but got {wrong}")
    return options


def measure_once(
    measure: Callable[..., dict[str, Any]],
    kind: str,
    server_url: str,
    n_cells: int,
    n_workers: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    began = time.monotonic()
    with fresh_database(kind, server_url) as url:
        study = StubStudy(
            url, n_cells, options.epochs, options.epoch_ms / 1000, options.trials, options.pruner, options.sampler
        )
        row = {"database": kind, "workers": n_workers, "cells": n_cells, **measure(study, n_workers)}
    return {**row, "seconds_in_all": round(time.monotonic() - began, 1)}


def measure_ours(study: StubStudy, n_workers: int) -> dict[str, Any]:
    storage = create_storage(StorageOptions(study.url))
    record, _ = create_or_join(storage, study.spec, FINGERPRINT)
    storage.close()  # nothing open is forked
    row = summarise(run_workers(our_worker, study, n_workers))
    session = Session(storage, record, "benchmark")
    found, counts = verify(storage, session.optuna_storage, record.study_id), session.history.counts()
    storage.close()
    has_all = found.n_results == row["trials"] == (study.n_cells if study.is_whole else counts.done)
    is_clean = not (found.n_duplicates or found.n_surplus or found.problems or counts.running or counts.failed)
    return {
        **row,
        "pruned": counts.pruned,
        "results": found.n_results,
        "duplicates": found.n_duplicates,
        "surplus": found.n_surplus,
        "problems": found.problems[:10],
        "ok": has_all and is_clean and not row["errors"] and not row["outages"],
    }


def measure_stock(study: StubStudy, n_workers: int) -> dict[str, Any]:
    close_stock_study(load_stock_study(study))  # makes schema and study; nothing open is forked
    row = summarise(run_workers(stock_worker, study, n_workers))
    loaded = load_stock_study(study)
    trials = loaded.get_trials(deepcopy=False)
    close_stock_study(loaded)
    finished = [trial for trial in trials if trial.state in FINISHED]
    n_distinct = len({trial.system_attrs["grid_id"] for trial in finished})
    return {
        **row,
        "pruned": sum(trial.state == TrialState.PRUNED for trial in finished),
        "results": n_distinct,
        "duplicates": len(finished) - n_distinct,
        "unfinished": len(trials) - len(finished),
        "missing": study.n_cells - n_distinct if study.is_whole else None,
    }


def close_stock_study(loaded: Any) -> None:
    loaded._storage._backend.engine.dispose()


def summarise(reports: Sequence[Report]) -> dict[str, Any]:
    n_trials = sum(report.n_trials for report in reports)
    epoch_seconds = sorted(seconds for report in reports for seconds in report.epoch_seconds)
    started = [report for report in reports if report.began]
    seconds = max(r.ended for r in started) - min(r.began for r in started) if started else 0.0
    samples = {
        operation: mean_ms([sample for report in reports for sample in report.samples.get(operation, ())], n)
        for operations, n in (
            (OURS_PER_TRIAL + OPTUNA_PER_TRIAL, n_trials),
            (OURS_PER_EPOCH + OPTUNA_PER_EPOCH, len(epoch_seconds)),
        )
        for operation in operations
    }
    return {
        "trials": n_trials,
        "epochs": len(epoch_seconds),
        "seconds": round(seconds, 2),
        "trials_per_second": round(n_trials / seconds, 1) if seconds else 0.0,
        "cpu_ms_per_trial": round(1000 * sum(report.cpu_seconds for report in started) / max(1, n_trials), 1),
        "epoch_ms_p50": percentile_ms(epoch_seconds, 0.50),
        "epoch_ms_p99": percentile_ms(epoch_seconds, 0.99),
        "outages": sum(report.n_outages for report in reports),
        "errors": sorted(report.error for report in reports if report.error),
        "operations_ms_wall_cpu": samples,
    }


def percentile_ms(ascending_seconds: Sequence[float], share: float) -> float:
    if not ascending_seconds:
        return 0.0
    return round(1000 * ascending_seconds[min(len(ascending_seconds) - 1, int(share * len(ascending_seconds)))], 1)


def mean_ms(samples: Sequence[tuple[float, float]], n: int) -> tuple[float, float]:
    """Wall and CPU milliseconds for each of n trials or epochs, however many calls that took."""
    return tuple(round(1000 * sum(column) / max(1, n), 3) for column in zip(*samples, strict=True)) or (0.0, 0.0)


def print_ours(rows: Sequence[dict[str, Any]]) -> None:
    print_table(
        "Bookkeeping as a whole. p50, p99: one epoch's bookkeeping, ms. CPU: ms of the workers' processes a trial.",
        (*WHERE, "trials", "trials/s", "p50", "p99", "CPU", "outages", "results", "duplicates", "surplus", "ok"),
        [
            (*where(r), r["trials"], r["trials_per_second"], r["epoch_ms_p50"], r["epoch_ms_p99"],
             r["cpu_ms_per_trial"], r["outages"], r["results"], r["duplicates"], r["surplus"], yes_or_no(r["ok"]))
            for r in rows
        ],
    )  # fmt: skip
    sums = (OURS_PER_TRIAL, OURS_PER_EPOCH, OPTUNA_PER_TRIAL, OPTUNA_PER_EPOCH)
    print_table(
        "Shares: wall (CPU) ms a trial, without its epochs, and an epoch.",
        (*WHERE, "ours a trial", "ours an epoch", "Optuna a trial", "Optuna an epoch"),
        [(*where(row), *(show_sum(row, operations) for operations in sums)) for row in rows],
    )
    print_table(
        "Our statements: wall (CPU) ms a trial, `epoch` an epoch.",
        (*WHERE, "claim", "bind", "finish", "touch", "epoch"),
        [(*where(r), *(show_sum(r, [name]) for name in ("claim", "bind", "finish", "touch", "epoch"))) for r in rows],
    )
    print_table(
        "Optuna's calls: wall (CPU) ms a trial, `report` with should_prune an epoch.",
        (*WHERE, "create", "tell", "reads", "report"),
        [(*where(row), *(show_sum(row, [name]) for name in ("create", "tell", "read", "report"))) for row in rows],
    )
    print_errors(rows)


def print_stock(rows: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> None:
    print_table(
        "Stock Optuna on the same work. duplicates: evaluations of a cell beyond its first; died: workers.",
        (*WHERE, "trials", "trials/s", "ours/s", "p50", "p99", "CPU", "duplicates", "unfinished", "missing", "died"),
        [
            (*where(r), r["trials"], r["trials_per_second"], our["trials_per_second"], r["epoch_ms_p50"],
             r["epoch_ms_p99"], r["cpu_ms_per_trial"], r["duplicates"], r["unfinished"],
             "-" if r["missing"] is None else r["missing"], len(r["errors"]))
            for r, our in zip(rows, ours, strict=True)
        ],
    )  # fmt: skip
    print_errors(rows)


WHERE = ("database", "workers", "cells")


def where(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in WHERE)


def show_sum(row: dict[str, Any], operations: Sequence[str]) -> str:
    wall, cpu = (sum(row["operations_ms_wall_cpu"][name][place] for name in operations) for place in (0, 1))
    return f"{wall:.1f} ({cpu:.2f})"


def print_errors(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        for line in sorted({*row["errors"], *row.get("problems", ())}):
            print(f"\n{row['database']}, {row['workers']} workers, {row['cells']} cells: {line}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
