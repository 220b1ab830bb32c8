"""Answers for people: tables and lines on stdout, at home in 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fmnist_optuna.grid import Params

if TYPE_CHECKING:
    from fmnist_optuna.results.evaluation import Evaluation, Winner
    from fmnist_optuna.study.claims import Epoch
    from fmnist_optuna.study.history import CellCounts, RunningCell
    from fmnist_optuna.study.leaderboard import TrialRow
    from fmnist_optuna.study.studies import StudyRecord
    from fmnist_optuna.study.verification import Verification


BARS = "▁▂▃▄▅▆▇█"


class _Out(Console):
    def on_broken_pipe(self) -> None:
        """Leave `... | head` to the command's own end; rich would exit with 1."""
        raise BrokenPipeError


out = _Out(highlight=False, soft_wrap=False, emoji=False, markup=False)


def percent(value: float | None) -> str:
    """A fraction as percent with two digits, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f} %"


def show_params(params: Params) -> str:
    """Parameters in one line: `hidden_size 128, dropout_rate 0.2`."""
    return ", ".join(f"{name} {_number(value)}" for name, value in params.items())


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def sparkline(values: Sequence[float], width: int = 20) -> str:
    """The last values as a small curve between their smallest and largest."""
    shown = [value for value in values[-width:] if value == value]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1))] for value in shown)


def title(record: StudyRecord) -> str:
    """The study's name, and SYNTHETIC where its garments are drawn."""
    return f"{record.name} (SYNTHETIC garments, not Fashion-MNIST)" if record.is_synthetic else record.name


def show_counts(counts: CellCounts) -> str:
    """Cells by state in one line."""
    text = f"{counts.done} of {counts.total} cells done ({counts.complete} complete, {counts.pruned} pruned)"
    for name in ("running", "waiting", "failed"):
        if n := getattr(counts, name):
            text += f", {n} {name}"
    return text


def print_winner(record: StudyRecord, winner: Winner, counts: CellCounts) -> None:
    """The winner, its scores and its classes."""
    out.print(f"Winner of {title(record)}: trial {winner.trial}")
    out.print(f"  {show_params(winner.params)}")
    field = f"best of {counts.complete} complete cells, {counts.pruned} pruned"
    out.print(f"  validation accuracy  {percent(winner.val_accuracy)}   {field}")
    if winner.evaluation is None:
        out.print("  test accuracy        not opened yet: `fmnist-optuna run` does when all cells are done")
        return
    low, high = winner.evaluation.interval
    scored = f"95 % interval {100 * low:.2f} to {100 * high:.2f}, {winner.evaluation.n_images:,} images"
    out.print(f"  test accuracy        {percent(winner.evaluation.accuracy)}   {scored}")
    out.print()
    print_classes(winner.evaluation)


def print_classes(evaluation: Evaluation) -> None:
    """Recall and precision of each class on the test images."""
    table = _table("class", "images", "recall", "precision", right=("images", "recall", "precision"))
    for result in evaluation.classes:
        table.add_row(result.label, f"{result.n_images:,}", percent(result.recall), percent(result.precision))
    out.print(table)


def print_trials(rows: Sequence[TrialRow]) -> None:
    """The leaderboard: one row an attempt, a column a parameter."""
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    right = ("trial", "val acc", "epochs", "seconds")
    table = _table("trial", "state", *names, "val acc", "epochs", "seconds", "note", right=(*right, *names))
    for row in rows:
        note = row.error or row.reason or ""
        attempt = f"attempt {row.attempt}" if row.attempt > 1 else ""
        table.add_row(
            str(row.number),
            row.state,
            *(_number(row.params[name]) if name in row.params else "" for name in names),
            percent(row.value),
            str(row.n_epochs),
            f"{row.seconds:.1f}",
            ", ".join(part for part in (attempt, note) if part),
        )
    out.print(table)


def print_curve(epochs: Sequence[Epoch]) -> None:
    """One row an epoch."""
    columns = ("epoch", "loss", "accuracy", "val loss", "val acc", "seconds")
    table = _table(*columns, right=columns)
    for epoch in epochs:
        table.add_row(
            str(epoch.epoch + 1),
            f"{epoch.train_loss:.4f}",
            percent(epoch.train_accuracy),
            f"{epoch.val_loss:.4f}",
            percent(epoch.val_accuracy),
            f"{epoch.seconds:.2f}",
        )
    out.print(table)


def print_verification(name: str, verification: Verification) -> None:
    """The verdict, and every problem in a line."""
    verdict = "ok" if verification.ok else "NOT ok"
    out.print(
        f"{name}: {verdict}. {verification.n_cells} cells, {verification.n_results} results, "
        f"{verification.n_duplicates} duplicates, {verification.n_missing} missing, {verification.n_failed} failed, "
        f"{verification.n_running} running, {verification.n_surplus} surplus trials.",
        soft_wrap=True,
    )
    for problem in verification.problems:
        out.print(f"  {problem}", soft_wrap=True)


def print_studies(studies: Sequence[tuple[StudyRecord, CellCounts, float | None]]) -> None:
    """One row a study."""
    numbers = ("cells", "done", "failed", "best val acc")
    table = _table("study", "data", *numbers, right=numbers)
    for record, counts, best in studies:
        data = "SYNTHETIC" if record.is_synthetic else record.data_source
        table.add_row(record.name, data, str(counts.total), str(counts.done), str(counts.failed), percent(best))
    out.print(table)


def running_table(cells: Sequence[RunningCell]) -> Table:
    """One row a running cell: what it trains, how far it is, its curve."""
    table = _table("worker", "cell", "epoch", "val acc", "curve", right=("epoch", "val acc"))
    for cell in cells:
        latest = cell.val_accuracies[-1] if cell.val_accuracies else None
        table.add_row(
            cell.worker.rsplit("-", 1)[-1] if "-" in cell.worker else cell.worker,
            " ".join(_number(value) for value in cell.params.values()),
            str(cell.n_epochs),
            percent(latest),
            sparkline(cell.val_accuracies),
        )
    return table


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        # Long parameter names stand in two lines, so that the table fits 80 columns.
        header = column.replace("_", "\n")
        table.add_column(header, justify="right" if column in right else "left", overflow="fold")
    return table
