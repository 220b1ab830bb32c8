"""Trials for people: the leaderboard and the curve of one trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fmnist_optuna.cli.console import (
    bar,
    describe_study,
    describe_teacher,
    find_bar_ends,
    make_table,
    out,
    print_params,
)
from fmnist_optuna.cli.parameter_columns import Column, ParameterOrder, make_trials_table, print_trials_table
from fmnist_optuna.ledger.states import State
from fmnist_optuna.wording import count, format_percent

if TYPE_CHECKING:
    from fmnist_optuna.cli.trial_details import TrialDetails
    from fmnist_optuna.ledger.records import Attempt
    from fmnist_optuna.search.metric import Epoch, Metric
    from fmnist_optuna.study.records import StudyRecord


def print_trials(attempts: Sequence[Attempt], record: StudyRecord, order: ParameterOrder | None = None) -> None:
    """The leaderboard: one row for each attempt, one column for each parameter; notes take the place of the bars.

    Where points have several cells, each row says the mean of its point, beside its own value.

    Args:
        record: Of the study.
        order: Of the parameters; that of the study file where it is left out.
    """
    order = order or ParameterOrder(list(record.spec.axes))
    metric, notes = record.metric, [_note(attempt) for attempt in attempts]
    scores = [_score(metric, attempt.value) for attempt in attempts]
    low, high = find_bar_ends(scores)
    before = [
        Column("trial", [str(attempt.number) for attempt in attempts]),
        Column("state", [attempt.state.optuna_name for attempt in attempts], is_right=False),
    ]
    after = [Column(record.value_name, [metric.format(attempt.value) for attempt in attempts])]
    if any(attempt.point_mean is not None for attempt in attempts):
        after.append(Column("mean", [metric.format(attempt.point_mean) for attempt in attempts]))
    if not any(notes):
        after.append(Column("", [bar(score, low, high, 6) for score in scores], is_right=False, is_picture=True))
    if not metric.is_accuracy:
        after.append(Column(record.accuracy_name, [format_percent(attempt.val_accuracy) for attempt in attempts]))
    after.append(Column("epochs", [str(attempt.n_epochs) for attempt in attempts]))
    after.append(Column("seconds", [f"{attempt.seconds:.1f}" for attempt in attempts]))
    if any(notes):
        after.append(Column("note", notes, is_right=False, is_text=True))
    gap = 1 if any(notes) else 2
    table, choice = make_trials_table(before, [attempt.params for attempt in attempts], after, order, gap)
    print_trials_table(table, choice, order)


def _score(metric: Metric, value: float | None) -> float | None:
    """What a bar shows: the longer one is the better one."""
    return None if value is None else metric.score(value)


def _note(attempt: Attempt) -> str:
    """Which attempt at its cell it is, unless the first, and how it ended or where it rests."""
    from fmnist_optuna.study.attempts import describe_ending  # loads Optuna and SQLAlchemy

    serial = attempt.attributes.attempt or 1
    which = "of another program" if attempt.is_foreign else f"attempt {serial}" if serial > 1 else ""
    return ", ".join(part for part in (which, describe_ending(attempt)) if part)


def print_curve(epochs: Sequence[Epoch], kept: int | None, record: StudyRecord) -> None:
    """One row for each epoch, with a bar for what the study compares by.

    Args:
        kept: 0-based epoch whose weights were kept, which is marked; None for none.
        record: Of the study.
    """
    metric = record.metric
    columns = ["epoch", "loss", "accuracy", "val loss", record.accuracy_name]
    columns += [record.value_name] if metric.is_compiled else []
    table = make_table(*columns, "", "seconds", right=(*columns, "seconds"))
    low, high = find_bar_ends(metric.score(metric.value_of(epoch)) for epoch in epochs)
    for epoch in epochs:
        table.add_row(
            str(epoch.epoch + 1),
            f"{epoch.train_loss:.4f}",
            format_percent(epoch.train_accuracy),
            f"{epoch.val_loss:.4f}",
            format_percent(epoch.val_accuracy),
            *([metric.format(metric.value_of(epoch))] if metric.is_compiled else []),
            bar(metric.score(metric.value_of(epoch)), low, high, 20) + (" kept" if epoch.epoch == kept else ""),
            f"{epoch.seconds:.2f}",
        )
    out.print(table)


def print_details(details: TrialDetails) -> None:
    """One trial with its curve."""
    attempt, noted = details.attempt, details.attempt.attributes
    reason = f", {noted.reason}" if noted.reason and noted.reason != attempt.state else ""
    if attempt.standing is State.PARKED:
        reason = f", parked at epoch {attempt.rung}"
    out.print(f"trial {attempt.number} of {describe_study(details.record)}: {attempt.state.optuna_name}{reason}")
    print_params(attempt.params)
    epochs, score = count(attempt.n_epochs, "epoch"), _describe_score(attempt, details.record)
    out.print(f"  {score}, {epochs} in {attempt.seconds:.1f} s, seed {noted.seed}")
    for line in describe_teacher(details.record, attempt.params):
        out.print(line, soft_wrap=True)
    _print_origin(attempt)
    if details.cut is not None:
        out.print(f"  {details.cut}", soft_wrap=True)
    if noted.kept_epochs:
        out.print(f"  goes on from epoch {noted.kept_epochs} of an earlier attempt")
    if noted.code is not None:
        out.print(f"  model code {noted.code[:12]}")
    if noted.error:
        out.print(f"  error: {noted.error}", soft_wrap=True)
    if details.log is not None:
        out.print(f"  log: {details.log}", soft_wrap=True)
    for name, path in details.files.items():
        out.print(f"  {name}: {path}", soft_wrap=True)
    if attempt.epochs:
        kept = noted.best_epoch if attempt.state is State.COMPLETE else None
        print_curve(attempt.epochs, kept, details.record)


def _describe_score(attempt: Attempt, record: StudyRecord) -> str:
    """The value of an attempt, and the accuracy beside another metric."""
    value = f"{record.value_in_full} {record.metric.format(attempt.value)}"
    accuracy = f", {record.accuracy_in_full} {format_percent(attempt.val_accuracy)}"
    return value if record.metric.is_accuracy else f"{value}{accuracy}"


def _print_origin(attempt: Attempt) -> None:
    """Which attempt it is, and who trained it: the last worker, and of a trial that was paused each one."""
    if attempt.is_foreign:
        out.print("  added by another program; it counts for nothing")
        return
    serial = attempt.attributes.attempt or 1
    out.print(f"  attempt {serial} at cell {attempt.cell_id[:12]} by worker {attempt.worker}")
    for leg in attempt.legs if len(attempt.legs) > 1 else ():
        out.print(f"    from epoch {leg.n_epochs + 1} by worker {leg.worker}", soft_wrap=True)
