"""Studies for people: their cells by state, their workers, the verdict of `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fmnist_optuna.cli.console import make_table, out, sparkline
from fmnist_optuna.wording import count, format_percent, format_value

if TYPE_CHECKING:
    from fmnist_optuna.ledger.progress import History
    from fmnist_optuna.ledger.records import Cell, CellCounts
    from fmnist_optuna.ledger.rungs import DecidedRung
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
    from fmnist_optuna.study.records import UnreadableStudy  # loads SQLAlchemy

    numbers = ("cells", "done", "failed", "best val acc")
    table = make_table("study", "data", *numbers, right=numbers)
    unreadable = [study for study, _, _ in studies if isinstance(study, UnreadableStudy)]
    for study, counts, best in studies:
        data = "unreadable" if isinstance(study, UnreadableStudy) else study.info.warning or study.data_source
        table.add_row(study.name, data, str(counts.total), str(counts.done), str(counts.failed), format_percent(best))
    out.print(table)
    for study in unreadable:
        how = f"use the version that made it, or: fmnist-optuna delete {study.name}"
        out.print(f"{study.name} cannot be read: {study.reason}; {how}", soft_wrap=True)


def rungs_table(decided: Sequence[DecidedRung], max_epochs: int) -> Table:
    """One row for each rung: how many cells came, were cut and went on, and what that saves."""
    columns = ("epoch", "cells", "cut", "went on", "best", "epochs saved")
    table = make_table(*columns, right=columns)
    for rung in sorted({each.rung for each in decided}):
        those = [each for each in decided if each.rung == rung]
        n_cells, n_cut = sum(each.n_parked for each in those), sum(each.n_cut for each in those)
        best = max((each.leader_value for each in those if each.leader_value is not None), default=None)
        saved = f"up to {n_cut * (max_epochs - rung):,}" if n_cut else ""
        table.add_row(str(rung), str(n_cells), str(n_cut), str(n_cells - n_cut), format_percent(best), saved)
    return table


def running_table(history: History, cells: Sequence[Cell]) -> Table:
    """One row for each running cell: what it trains, how far it is, its curve."""
    table = make_table("worker", "cell", "epoch", "val acc", "curve", right=("epoch", "val acc"))
    curves = history.curves([cell.trial_id for cell in cells if cell.trial_id is not None])
    for cell in cells:
        values = [epoch.val_accuracy for epoch in curves.get(cell.trial_id or 0, ())]
        table.add_row(
            cell.worker.rsplit("-", 1)[-1] if "-" in cell.worker else cell.worker,
            " ".join(format_value(value) for value in cell.params.values()),
            str(len(values)),
            format_percent(values[-1] if values else None),
            sparkline(values),
        )
    return table


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
    for problem in verification.problems:
        out.print(f"  {problem}", soft_wrap=True)


def print_foreign(n_trials: int) -> None:
    """How many trials other programs added to a study; nothing where there are none."""
    if n_trials:
        trials = count(n_trials, "trial of another program is", "trials of other programs are")
        they = "it counts" if n_trials == 1 else "they count"
        out.print(f"{trials} in this study too; {they} for nothing.", soft_wrap=True)
