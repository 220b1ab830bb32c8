"""Trials for people: the leaderboard and the curve of one trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fmnist_optuna.cli.console import bar, describe_study, find_bar_ends, make_table, out
from fmnist_optuna.wording import count, format_params, format_percent, format_value

if TYPE_CHECKING:
    from fmnist_optuna.cli.trial_details import TrialDetails
    from fmnist_optuna.ledger.records import Epoch
    from fmnist_optuna.study.leaderboard import TrialRow


def print_trials(rows: Sequence[TrialRow]) -> None:
    """The leaderboard: one row for each attempt, one column for each parameter."""
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    right = ("trial", "val acc", "epochs", "seconds")
    notes = [_note(row) for row in rows]
    columns = ("trial", "state", *names, "val acc", "", "epochs", "seconds", *(["note"] if any(notes) else []))
    table = make_table(*columns, right=(*right, *names))
    low, high = find_bar_ends(row.value for row in rows)
    for row, note in zip(rows, notes, strict=True):
        table.add_row(
            str(row.number),
            row.state,
            *(format_value(row.params[name]) if name in row.params else "" for name in names),
            format_percent(row.value),
            bar(row.value, low, high, 6),
            str(row.n_epochs),
            f"{row.seconds:.1f}",
            *([note] if any(notes) else []),
        )
    out.print(table)


def _note(row: TrialRow) -> str:
    attempt = "of another program" if row.is_foreign else f"attempt {row.attempt}" if row.attempt > 1 else ""
    reason = row.error or ("" if row.reason == row.state.lower() else row.reason)
    return ", ".join(part for part in (attempt, reason) if part)


def print_curve(epochs: Sequence[Epoch], is_kept: bool) -> None:
    """One row for each epoch, with a bar for val_accuracy.

    Args:
        is_kept: Whether the weights of the best epoch were kept, which is marked then.
    """
    columns = ("epoch", "loss", "accuracy", "val loss", "val acc", "seconds")
    table = make_table("epoch", "loss", "accuracy", "val loss", "val acc", "", "seconds", right=columns)
    low, high = find_bar_ends(epoch.val_accuracy for epoch in epochs)
    best = max(epochs, key=lambda epoch: -1.0 if math.isnan(epoch.val_accuracy) else epoch.val_accuracy)
    for epoch in epochs:
        table.add_row(
            str(epoch.epoch + 1),
            f"{epoch.train_loss:.4f}",
            format_percent(epoch.train_accuracy),
            f"{epoch.val_loss:.4f}",
            format_percent(epoch.val_accuracy),
            bar(epoch.val_accuracy, low, high, 20) + (" kept" if is_kept and epoch is best else ""),
            f"{epoch.seconds:.2f}",
        )
    out.print(table)


def print_details(details: TrialDetails) -> None:
    """One trial with its curve."""
    row = details.row
    reason = f", {row.reason}" if row.reason else ""
    out.print(f"trial {row.number} of {describe_study(details.record)}: {row.state}{reason}")
    out.print(f"  {format_params(row.params)}")
    epochs = count(row.n_epochs, "epoch")
    out.print(f"  val accuracy {format_percent(row.value)}, {epochs} in {row.seconds:.1f} s, seed {row.seed}")
    if row.is_foreign:
        out.print("  added by another program; it counts for nothing")
    else:
        out.print(f"  attempt {row.attempt} at cell {row.cell_id[:12]} by worker {row.worker}")
    if details.code is not None:
        out.print(f"  model code {details.code[:12]}")
    if row.error:
        out.print(f"  error: {row.error}", soft_wrap=True)
    if details.log is not None:
        out.print(f"  log: {details.log}", soft_wrap=True)
    for name, path in details.files.items():
        out.print(f"  {name}: {path}", soft_wrap=True)
    if details.curve:
        print_curve(details.curve, is_kept=row.state == "COMPLETE")
