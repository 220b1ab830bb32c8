"""Studies for people: their cells by state, their workers, the verdict of `verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fmnist_optuna.cli.console import make_table, out, sparkline
from fmnist_optuna.cli.parameter_columns import Column, ParameterOrder, make_trials_table, table_width
from fmnist_optuna.search.metric import VAL_ACCURACY
from fmnist_optuna.wording import count, format_bytes, format_duration, format_percent, format_value

if TYPE_CHECKING:
    from fmnist_optuna.artifacts.checkpoints import DiskUse
    from fmnist_optuna.ledger.records import Cell, CellCounts, WorkerRow
    from fmnist_optuna.ledger.rung_records import DecidedRung
    from fmnist_optuna.search.metric import Epoch, Metric
    from fmnist_optuna.study.climb import Climb, Step
    from fmnist_optuna.study.records import StudyRecord, UnreadableStudy
    from fmnist_optuna.study.verification import Verification


def describe_counts(counts: CellCounts) -> str:
    """Cells by state in one line."""
    cells = count(counts.total, "cell")
    text = f"{counts.done} of {cells} done ({counts.complete} complete, {counts.pruned} pruned)"
    for name in ("running", "parked", "waiting", "failed"):
        if n := getattr(counts, name):
            text += f", {n} {name}"
    return text


def print_studies(studies: Sequence[tuple[StudyRecord | UnreadableStudy, CellCounts, float | None]]) -> None:
    """One row for each study, and below them a line for each that cannot be read."""
    from fmnist_optuna.study.records import StudyRecord, UnreadableStudy  # loads SQLAlchemy

    metrics = [study.metric for study, _, _ in studies if isinstance(study, StudyRecord)]
    has_others = not all(metric.is_accuracy for metric in metrics)
    numbers = ("cells", "done", "failed", "best" if has_others else "best val acc")
    table = make_table("study", "data", *numbers, right=numbers)
    unreadable = [study for study, _, _ in studies if isinstance(study, UnreadableStudy)]
    for study, counts, best in studies:
        data = "unreadable" if isinstance(study, UnreadableStudy) else study.info.warning or study.data_source
        score = format_percent(best)
        if isinstance(study, StudyRecord):
            name = f"{study.value_name} " if has_others and best is not None else ""
            score = "seen" if study.is_on_all_data else f"{name}{study.metric.format(best)}"
        table.add_row(study.name, data, str(counts.total), str(counts.done), str(counts.failed), score)
    out.print(table)
    for study in unreadable:
        how = f"use the version that made it, or: fmnist-optuna delete {study.name}"
        out.print(f"{study.name} cannot be read: {study.reason}; {how}", soft_wrap=True)


def rungs_table(climb: Climb, metric: Metric = VAL_ACCURACY) -> Table:
    """One row for each rung: how many cells came, are parked, were cut and went on, and what that cost and saved.

    Args:
        metric: By which they are compared.
    """
    columns = ("rung", "cells", "best", "cut", "went on", "trained", "saved")
    table = make_table(*columns, "", right=columns)
    for step in climb.steps:
        n_decided = step.n_cut + step.n_went_on
        table.add_row(
            str(step.rung),
            f"{step.n_cells:,}",
            metric.format(step.best),
            f"{step.n_cut:,}" if n_decided else "",
            f"{step.n_went_on:,}" if n_decided else "",
            f"{step.n_epochs:,}",
            f"up to {step.n_saved:,}" if step.n_saved else "",
            describe_parked(step),
        )
    return table


def describe_parked(step: Step) -> str:
    """How many of those that may come to a rung are parked there: `5 of 9 parked`; "" where none is."""
    return f"{step.n_parked:,} of {step.n_parked + step.n_to_come:,} parked" if step.n_parked else ""


def describe_decided(decided: DecidedRung, metric: Metric = VAL_ACCURACY) -> str:
    """A decision in one line: `rung 4: 9 cells, 4 cut, the best has 88.2 %`.

    Args:
        metric: By which the cells are compared.
    """
    score = decided.leader_value
    best = "" if score is None else f", the best has {metric.format(metric.value(score), 1)}"
    how = f"{decided.n_cut:,} cut" if decided.n_cut else "all go on" if decided.n_parked > 1 else "goes on"
    return f"rung {decided.rung}: {count(decided.n_parked, 'cell')}, {how}{best}"


def describe_climb(climb: Climb) -> str:
    """What the rungs have saved so far: `198 epochs trained; the 22 cut cells would have taken up to 608 more`."""
    cut = f"; {count(climb.n_cut, 'cut cell')} would have taken up to {climb.n_saved:,} more" if climb.n_cut else ""
    return f"{count(climb.n_epochs, 'epoch')} trained{cut}"


def describe_checkpoints(use: DiskUse) -> str:
    """What checkpoints take: `checkpoints: 9 files, 31 MiB`."""
    return f"checkpoints: {count(use.n_files, 'file')}, {format_bytes(use.n_bytes)}"


def workers_table(workers: Sequence[WorkerRow]) -> Table:
    """One row for each worker, whose name begins with its host: since when it is there, and when it was last seen."""
    columns = ("worker", "pid", "version", "device", "for", "seen")
    table = make_table(*columns, right=("pid", "for", "seen"))
    for worker in workers:
        table.add_row(
            worker.worker_id,
            str(worker.pid),
            worker.version,
            worker.device or "",
            format_duration(worker.seconds_since_start),
            f"{format_duration(worker.seconds_since_seen)} ago",
        )
    return table


def running_table(
    measured: Mapping[int, Sequence[Epoch]], cells: Sequence[Cell], record: StudyRecord
) -> RenderableType:
    """One row for each running cell: what it trains, how far it is, its curve.

    Its values stand in one column; where they would not fit, the first parameters of the study file have one each.

    Args:
        measured: The epochs of each trial.
        record: Of their study.
    """
    metric = record.metric
    curves = [[metric.value_of(epoch) for epoch in measured.get(cell.trial_id or 0, ())] for cell in cells]
    workers = [cell.worker.rsplit("-", 1)[-1] if "-" in cell.worker else cell.worker for cell in cells]
    before = [Column("worker", workers, is_right=False)]
    after = [
        Column("epoch", [str(len(curve)) for curve in curves]),
        Column(record.value_name, [metric.format(curve[-1] if curve else None) for curve in curves]),
        Column("curve", [sparkline(curve) for curve in curves], is_right=False),
    ]
    points = [" ".join(format_value(value) for value in cell.params.values()) for cell in cells]
    together = [*before, Column("cell", points, is_right=False), *after]
    order = ParameterOrder(list(record.spec.axes))
    if table_width(together) <= out.width:
        return make_trials_table(together, [{} for _ in cells], [], order)[0]
    table, choice = make_trials_table(before, [cell.params for cell in cells], after, order)
    left_out = f"{count(len(choice.left_out), 'more parameter')} of each cell not shown" if choice.left_out else ""
    return Group(table, *(Text(line) for line in (choice.describe_same(), left_out) if line))


def print_verification(name: str, verification: Verification) -> None:
    """The verdict, and every problem in a line."""
    verdict = "ok" if verification.ok else "NOT ok"
    out.print(
        f"{name}: {verdict}. {count(verification.n_cells, 'cell')}, {count(verification.n_results, 'result')}, "
        f"{count(verification.n_duplicates, 'duplicate')}, {verification.n_missing} missing, "
        f"{verification.n_failed} failed, {verification.n_running} running, "
        f"{count(verification.n_surplus, 'surplus trial')}.",
        soft_wrap=True,
    )
    print_foreign(verification.n_foreign)
    if verification.n_unchecked_points:
        points = count(verification.n_unchecked_points, "point")
        out.print(f"{points} not derived anew, as they are of another version of Optuna or SciPy.", soft_wrap=True)
    for problem in verification.problems:
        out.print(f"  {problem}", soft_wrap=True)


def print_foreign(n_trials: int) -> None:
    """How many trials other programs added to a study; nothing where there are none."""
    if n_trials:
        trials = count(n_trials, "trial of another program is", "trials of other programs are")
        they = "it counts" if n_trials == 1 else "they count"
        out.print(f"{trials} in this study too; {they} for nothing.", soft_wrap=True)
