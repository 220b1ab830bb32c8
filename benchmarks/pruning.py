"""What a pruner saves and what it costs: one training without pruning, replayed through many pruners and orders.

    python benchmarks/pruning.py record CURVES.json [--study STUDY.toml] [--database studies.db [--name STUDY]]
    python benchmarks/pruning.py replay CURVES.json... [--orders 200] [--workers 2 4] [--only PRUNER...] [--json FILE]

record   runs the real command without pruning in a temporary folder, the default 27-cell grid unless a study file says
         otherwise, and keeps val_accuracy and seconds of every epoch. Or it reads a finished study of --database.
replay   trains nothing. Workers take the cells in random orders, an epoch lasts as the fastest of its hidden size, and
         at its end a real Optuna pruner is asked, as in a study. The winner is the best cell that was not pruned.

A curve is the same at every recording, to the bit; its seconds are not: whatever else runs makes an epoch longer, and
never shorter, so the fastest says how long it takes.
"""

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from databases import describe_machine
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PatientPruner, PercentilePruner
from optuna.pruners import SuccessiveHalvingPruner as Halving
from replay import Audit, Curve, compare, make_orders, percentile, replay_orders
from tables import print_machine, print_table

EPOCHS = """
SELECT cells.cell_id, cells.params, epochs.val_accuracy, epochs.seconds
FROM fmnist_cells AS cells JOIN fmnist_studies AS studies USING (study_id) JOIN fmnist_epochs AS epochs USING (trial_id)
WHERE studies.study_name = ? AND cells.result = 'COMPLETE' ORDER BY cells.position, epochs.epoch
"""
STUDIES = "SELECT study_name, spec FROM fmnist_studies"

# Median and percentile: n_startup_trials, n_warmup_steps, n_min_trials. "median 5 0 1" is what Optuna takes by itself.
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": NopPruner,
    "median 8 8 5": lambda: MedianPruner(8, 8, n_min_trials=5),
    "median 4 4 2": lambda: MedianPruner(4, 4, n_min_trials=2),
    "median 5 0 1": MedianPruner,
    "median 6 0 1": lambda: MedianPruner(6, 0),
    "median 8 0 1": lambda: MedianPruner(8, 0),
    "median 6 2 1": lambda: MedianPruner(6, 2),
    "percentile 66, 4 5 2": lambda: PercentilePruner(66.0, 4, 5, n_min_trials=2),
    "percentile 75, 4 2 2": lambda: PercentilePruner(75.0, 4, 2, n_min_trials=2),
    "patient 2, median 6 0 1": lambda: PatientPruner(MedianPruner(6, 0), patience=2),
    "hyperband 4 30 3": lambda: HyperbandPruner(4, 30, 3),
    "halving 4 2": lambda: Halving(4, 2),
    "halving 6 3": lambda: Halving(6, 3),
    "halving 8 2, bootstrap 4": lambda: Halving(8, 2, bootstrap_count=4),
}


def record(options: argparse.Namespace) -> None:
    """Write the curves of one study as JSON."""
    if options.database:
        curves = read_curves(options.database, options.name)
    else:
        with tempfile.TemporaryDirectory() as folder:
            database = train_everything(Path(folder), options.study)
            curves = read_curves(database, None)
    options.file.write_text(json.dumps({"machine": describe_machine(), **curves}, indent=1) + "\n")
    n_epochs = sum(len(cell["val_accuracy"]) for cell in curves["cells"])
    print(f"{options.file}: {len(curves['cells'])} cells, {n_epochs} epochs")


def train_everything(folder: Path, study_file: Path | None) -> Path:
    """The real command, to its end; its database."""
    study = [str(study_file.resolve())] if study_file else []
    command = ["fmnist-optuna", "run", *study, "--pruner", "none", "--workers", "2"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "studies" / "studies.db"


def read_curves(database: Path, name: str | None) -> dict[str, Any]:
    """A study's specification, and of each complete cell its parameters and epochs."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    specs = dict(connection.execute(STUDIES).fetchall())
    if name is None and len(specs) == 1:
        (name,) = specs
    if name not in specs:
        raise SystemExit(f"--name must be a study of {database}, which has {', '.join(specs)}, but got {name}")
    cells: dict[str, dict[str, Any]] = {}
    for cell_id, params, val_accuracy, seconds in connection.execute(EPOCHS, (name,)):
        cell = cells.setdefault(cell_id, {"params": json.loads(params), "val_accuracy": [], "seconds": []})
        cell["val_accuracy"].append(val_accuracy)
        cell["seconds"].append(seconds)
    connection.close()
    return {"spec": json.loads(specs[name]), "cells": list(cells.values())}


def load_curves(content: Mapping[str, Any]) -> list[Curve]:
    """A curve a cell; an epoch lasts as long as the fastest of all epochs with the same hidden size."""
    seconds: dict[Any, list[float]] = defaultdict(list)
    for cell in content["cells"]:
        seconds[cell["params"].get("hidden_size")] += cell["seconds"]
    return [
        Curve(tuple(cell["val_accuracy"]), min(seconds[cell["params"].get("hidden_size")])) for cell in content["cells"]
    ]


def replay_files(options: argparse.Namespace) -> None:
    """Print a table for each file of curves."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    answer: dict[str, Any] = {"machine": describe_machine(), "orders": options.orders, "files": {}}
    print_machine(answer["machine"])
    for file in options.files:
        content = json.loads(file.read_text())
        rows = answer["files"][file.name] = audit_file(content, options)
        n_epochs = sum(len(cell["val_accuracy"]) for cell in content["cells"])
        print_rows(f"{file.stem}: {len(content['cells'])} cells, {n_epochs} epochs, {options.orders} orders.", rows)
        if options.json:
            options.json.write_text(json.dumps(answer, indent=1) + "\n")


def audit_file(content: Mapping[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    curves = load_curves(content)
    orders = make_orders(len(curves), options.orders)
    rows = []
    for n_workers in options.workers:
        full = replay_orders(curves, orders, n_workers, NopPruner)
        for name in options.only:
            print(f"{name}, {n_workers} workers", file=sys.stderr, flush=True)
            cut = replay_orders(curves, orders, n_workers, PRUNERS[name])
            rows.append(summarise(name, n_workers, compare(full, cut)))
    return rows


def summarise(name: str, n_workers: int, audited: Audit) -> dict[str, Any]:
    """The figures of one pruner and number of workers; shares 0..1, regret in points of val_accuracy."""
    return {
        "pruner": name,
        "workers": n_workers,
        "share_median": statistics.median(audited.shares),
        "share_5": percentile(audited.shares, 5),
        "share_95": percentile(audited.shares, 95),
        "time_share_median": statistics.median(audited.time_shares),
        "time_share_5": percentile(audited.time_shares, 5),
        "time_share_95": percentile(audited.time_shares, 95),
        "regret_median": statistics.median(audited.regrets),
        "regret_95": percentile(audited.regrets, 95),
        "regret_max": max(audited.regrets),
        "winner_lost": audited.n_lost,
    }


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        f"{title} Medians and 5 to 95 % over orders; speed-up over the same order without pruning; regret in points.",
        ("pruner", "workers", "epochs used", "5 to 95 %", "speed-up: epochs", "time", "5 to 95 %",
         "regret: median", "95 %", "max", "winner lost"),
        [
            (
                row["pruner"],
                row["workers"],
                f"{row['share_median']:.2f}",
                f"{row['share_5']:.2f} to {row['share_95']:.2f}",
                f"{1 / row['share_median']:.2f}",
                f"{1 / row['time_share_median']:.2f}",
                f"{1 / row['time_share_95']:.2f} to {1 / row['time_share_5']:.2f}",
                f"{row['regret_median']:.2f}",
                f"{row['regret_95']:.2f}",
                f"{row['regret_max']:.2f}",
                row["winner_lost"],
            )
            for row in rows
        ],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="What a pruner saves and what it costs")
    commands = parser.add_subparsers(required=True)
    recorder = commands.add_parser("record", help="train without pruning once, and keep the curves")
    recorder.add_argument("file", type=Path, help="JSON, written")
    recorder.add_argument("--study", type=Path, help="study file; without one, the 27-cell default grid")
    recorder.add_argument("--database", type=Path, help="SQLite with a finished study; trains nothing")
    recorder.add_argument("--name", help="of the study in --database, if there are several")
    recorder.set_defaults(run=record)
    replayer = commands.add_parser("replay", help="recorded curves through pruners and random orders")
    replayer.add_argument("files", type=Path, nargs="+", help="what `record` wrote")
    replayer.add_argument("--orders", type=int, default=200)
    replayer.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    replayer.add_argument("--only", nargs="+", choices=PRUNERS, default=list(PRUNERS), metavar="PRUNER")
    replayer.add_argument("--json", type=Path, metavar="FILE")
    replayer.set_defaults(run=replay_files)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
