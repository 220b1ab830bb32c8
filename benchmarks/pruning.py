"""What a pruner saves and what it costs: one training without pruning, replayed through many pruners and orders.

    python benchmarks/pruning.py record CURVES.json [--study FILE | --seed N] [--database studies.db [--name STUDY]]
    python benchmarks/pruning.py replay CURVES.json... [--orders 200] [--workers 2 4] [--only PRUNER...] [--json FILE]
    python benchmarks/pruning.py ladder CURVES.json... [--draws 40] [--json FILE]
    python benchmarks/pruning.py league CURVES.json... [--orders 20] [--workers 2] [--json FILE] [--picture FILE.png]

record   runs the real command without pruning in a temporary folder, the default 27-cell grid unless a study file says
         otherwise, and keeps val_accuracy and seconds of every epoch. Or it reads a finished study of --database.
replay   trains nothing. Workers take the cells in random orders, an epoch lasts as the fastest of its hidden size, and
         at its end a real Optuna pruner is asked, as in a study. The winner is the best cell that was not pruned.
ladder   the ladder, breadth first, with one constant after another.
league   the ladder beside other searches, as recorded and as if counted over fewer validation images. Files of one grid
         with several seeds give honest regret (`league.py` says what that is).

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
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from databases import describe_machine
from league import (
    CONSTANTS,
    EPOCH_SECONDS,
    N_VALIDATION,
    SEARCHES,
    UNIT_SECONDS,
    Recording,
    Search,
    find_seeds,
    run_full,
    run_ladder,
    run_search,
    summarise,
)
from league_picture import draw_league
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
            database = train_everything(Path(folder), options.study or write_study(Path(folder), options.seed))
            curves = read_curves(database, None)
    options.file.write_text(json.dumps({"machine": describe_machine(), **curves}, indent=1) + "\n")
    n_epochs = sum(len(cell["val_accuracy"]) for cell in curves["cells"])
    print(f"{options.file}: {len(curves['cells'])} cells, {n_epochs} epochs")


def write_study(folder: Path, seed: int) -> Path:
    """A study file of the default grid with another seed."""
    file = folder / "study.toml"
    file.write_text(f"[training]\nseed = {seed}\n")
    return file


def train_everything(folder: Path, study_file: Path) -> Path:
    """The real command, to its end; its database."""
    command = ["fmnist-optuna", "run", str(study_file.resolve()), "--pruner", "none", "--workers", "2"]
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


def read_content(file: Path) -> dict[str, Any]:
    """What `record` wrote, or a list of cells with their parameters and val_accuracy alone."""
    content = json.loads(file.read_text())
    if isinstance(content, list):
        content = {"cells": content, "spec": {}}
    for cell in content["cells"]:
        seconds = EPOCH_SECONDS + UNIT_SECONDS * cell["params"].get("hidden_size", 0)
        cell.setdefault("seconds", [seconds] * len(cell["val_accuracy"]))
    return dict(content)


def load_recording(file: Path) -> Recording:
    content = read_content(file)
    curves, spec = load_curves(content), content["spec"]
    return Recording(
        file.stem,
        tuple(json.dumps(cell["params"], sort_keys=True) for cell in content["cells"]),
        tuple(curves),
        spec.get("data", {}).get("n_validation", N_VALIDATION),
        spec.get("training", {}).get("max_epochs", max(len(curve.values) for curve in curves)),
    )


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
        content = read_content(file)
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
            rows.append(describe_orders(name, n_workers, compare(full, cut)))
    return rows


def describe_orders(name: str, n_workers: int, audited: Audit) -> dict[str, Any]:
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


LADDERS = (  # kappa, margin, first rung: the chosen one, then one constant after another, then two together
    CONSTANTS,
    *((kappa, 1.0, 2) for kappa in (0.0, 0.5, 0.75, 1.25, 1.5, 2.0)),
    *((1.0, margin, 2) for margin in (0.0, 0.35, 0.7, 1.4, 2.0, 3.0)),
    *((1.0, 1.0, first_rung) for first_rung in (1, 3, 4)),
    *((0.5, margin, 2) for margin in (0.0, 1.4, 2.0, 3.0)),
    *((1.5, margin, 2) for margin in (0.0, 0.35)),
)
FEWER_IMAGES = (4000, 2000, 1000)


def try_ladders(options: argparse.Namespace) -> None:
    """Print a row for each set of constants."""
    searches: dict[str, Search] = {"full grid": run_full}
    searches |= {
        f"kappa {kappa:g}, margin {margin:g}, first {first_rung}": partial(run_ladder, kappa, margin, first_rung)
        for kappa, margin, first_rung in LADDERS
    }
    compare_searches(searches, options, n_orders=1, n_draws=options.draws, n_workers=2)


def run_league(options: argparse.Namespace) -> None:
    """Print a row for each search, and draw them."""
    if options.picture and not find_seeds([load_recording(file) for file in options.files]):
        raise SystemExit("--picture: there must be several seeds of one grid among the files, but there are none")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    rows = compare_searches(SEARCHES, options, options.orders, options.orders, options.workers)
    if options.picture:
        draw_league(rows, options.picture)


def compare_searches(
    searches: Mapping[str, Search], options: argparse.Namespace, n_orders: int, n_draws: int, n_workers: int
) -> list[dict[str, Any]]:
    """Every search over the seeds of one grid together, over each other file, and over the seeds with noise."""
    recordings = [load_recording(file) for file in options.files]
    seeds = find_seeds(recordings)
    groups = {f"{len(seeds)} seeds": seeds} if seeds else {}
    groups |= {recording.name: [recording] for recording in recordings if recording not in seeds}
    rows = []
    for name, search in searches.items():
        print(name, file=sys.stderr, flush=True)
        row: dict[str, Any] = {"search": name}
        row["files"] = {
            group: summarise(run_search(search, members, seeds, n_orders, n_workers))
            for group, members in groups.items()
        }
        row["noise"] = {
            str(n_images): summarise(run_search(search, seeds, seeds, n_draws, n_workers, n_images))
            for n_images in (FEWER_IMAGES if seeds else ())
        }
        rows.append(row)
    print_machine(describe_machine())
    print_searches(rows, n_workers)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def print_searches(rows: Sequence[Mapping[str, Any]], n_workers: int) -> None:
    for group in rows[0]["files"]:
        cells = [(row["search"], row["files"][group]) for row in rows]
        print_league(f"{group}: means over orders, {n_workers} workers", cells)
    for n_images in rows[0]["noise"]:
        cells = [(row["search"], row["noise"][n_images]) for row in rows]
        print_league(f"As if counted over {int(n_images):,} validation images", cells)


def print_league(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    print_table(
        f"{title}. Shares of the full grid; regret in points of val_accuracy.",
        ("search", "epochs", "time", "complete", "regret: mean", "max", "honest regret"),
        [
            (
                name,
                f"{row['share']:.2f}",
                f"{row['time_share']:.2f}",
                f"{row['n_complete']:.1f}",
                f"{row['regret']:.2f}",
                f"{row['regret_max']:.2f}",
                "" if row["honest_regret"] is None else f"{row['honest_regret']:.2f}",
            )
            for name, row in rows
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What a pruner saves and what it costs")
    commands = parser.add_subparsers(required=True)
    recorder = commands.add_parser("record", help="train without pruning once, and keep the curves")
    recorder.add_argument("file", type=Path, help="JSON, written")
    recorder.add_argument("--study", type=Path, help="study file; without one, the 27-cell default grid")
    recorder.add_argument("--seed", type=int, default=0, help="of the default grid")
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
    ladder = commands.add_parser("ladder", help="the ladder with one constant after another")
    ladder.add_argument("files", type=Path, nargs="+", help="what `record` wrote; several seeds of one grid among them")
    ladder.add_argument("--draws", type=int, default=40, help="of the noise that fewer validation images bring")
    ladder.add_argument("--json", type=Path, metavar="FILE")
    ladder.set_defaults(run=try_ladders)
    league = commands.add_parser("league", help="the ladder beside other searches")
    league.add_argument("files", type=Path, nargs="+", help="what `record` wrote; several seeds of one grid among them")
    league.add_argument("--orders", type=int, default=20, help="of arrival, and draws of the noise")
    league.add_argument("--workers", type=int, default=2)
    league.add_argument("--json", type=Path, metavar="FILE")
    league.add_argument("--picture", type=Path, metavar="FILE.png", help="needs Chromium")
    league.set_defaults(run=run_league)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
