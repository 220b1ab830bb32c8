"""Answers for people: tables and lines on stdout, at home in 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fmnist_optuna.search.cell import Params

if TYPE_CHECKING:
    from fmnist_optuna.confirming import ConfirmedStudy
    from fmnist_optuna.export.folder import Export
    from fmnist_optuna.export.prediction import Prediction
    from fmnist_optuna.ledger.progress import CellCounts, RunningCell
    from fmnist_optuna.ledger.records import Epoch
    from fmnist_optuna.results.confirmation import Confirmation
    from fmnist_optuna.results.evaluation import Evaluation
    from fmnist_optuna.results.reproduction import Reproduction
    from fmnist_optuna.results.winner import Winner
    from fmnist_optuna.study.leaderboard import TrialRow
    from fmnist_optuna.study.studies import StudyRecord, UnreadableStudy
    from fmnist_optuna.study.verification import Verification


BARS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉"


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


def bar(value: float | None, low: float, high: float, width: int) -> str:
    """A bar of up to `width` characters, empty at `low` and full at `high`; never empty for a value in between."""
    if value is None or math.isnan(value):
        return ""
    span = (high - low) or 1.0
    eighths = max(1, round(8 * width * min(1.0, max(0.0, (value - low) / span))))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _ends(values: Iterable[float | None]) -> tuple[float, float]:
    """Lowest and highest of what is there; what is far below the middle is left to the lower end of a bar."""
    there = sorted(value for value in values if value is not None and not math.isnan(value))
    if not there:
        return 0.0, 1.0
    low = max(there[0], there[-1] - 3 * (there[-1] - there[len(there) // 2]))
    return min(low, there[-1] - 1e-4), there[-1]


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
    if winner.confirmation is not None:
        field = f"confirmed; {counts.complete} complete cells, {counts.pruned} pruned"
    out.print(f"  validation accuracy  {percent(winner.val_accuracy)}   {field}")
    if winner.evaluation is None:
        out.print("  test accuracy        not opened yet: `fmnist-optuna run` does when all cells are done")
        return
    low, high = winner.evaluation.interval
    scored = f"95 % interval {100 * low:.2f} to {100 * high:.2f}, {winner.evaluation.n_images:,} images"
    out.print(f"  test accuracy        {percent(winner.evaluation.accuracy)}   {scored}")
    if winner.confirmation is not None:
        print_confirmed(winner.confirmation)
    out.print()
    print_classes(winner.evaluation)


def print_confirmed(confirmation: Confirmation) -> None:
    """The chosen cell's means over fresh seeds."""
    n_seeds = len(confirmation.chosen.val.values)
    for name, sample in (("validation", confirmation.chosen.val), ("test", confirmation.test)):
        if sample is not None:
            low, high = sample.interval
            scored = f"95 % interval {100 * low:.2f} to {100 * high:.2f}, mean of {n_seeds} seeds"
            out.print(f"  {f'confirmed {name}':<20} {percent(sample.mean)}   {scored}")


def print_confirmation(record: StudyRecord, confirmed: ConfirmedStudy) -> None:
    """All cells that were compared, the chosen one's scores, and how much the selection flattered."""
    confirmation, winner = confirmed.confirmation, confirmed.winner
    n_seeds = max(len(candidate.val.values) + candidate.n_missing for candidate in confirmation.candidates)
    out.print(f"Confirmation of {title(record)}: {len(confirmation.candidates)} cells, {n_seeds} fresh seeds each")
    names = list(confirmation.chosen.cell.params)
    numbers = ("trial", *names, "params", "val acc", "sd", "95 % interval")
    table = _table(*numbers, "", right=numbers)
    for candidate in confirmation.candidates:
        low, high = candidate.val.interval
        is_chosen = candidate is confirmation.chosen
        table.add_row(
            str(candidate.cell.trial_number),
            *(_number(candidate.cell.params[name]) for name in names),
            f"{candidate.n_parameters:,}",
            percent(candidate.val.mean),
            f"{100 * candidate.val.sd:.2f}",
            f"{100 * low:.2f} to {100 * high:.2f}",
            f"{'*' if is_chosen else ''}{f' {candidate.n_missing} missing' if candidate.n_missing else ''}".strip(),
        )
    out.print(table)
    out.print()
    out.print(f"* Chosen: trial {winner.trial}, the smallest model within one standard error of the best")
    out.print(f"  {show_params(winner.params)}")
    print_confirmed(confirmation)
    if winner.evaluation is not None:
        score = f"val {percent(winner.val_accuracy)}, test {percent(winner.evaluation.accuracy)}"
        out.print(f"  its stored weights   {score}")
    if confirmed.selected_optimism is not None and confirmed.confirmed_optimism is not None:
        selected, mean = 100 * confirmed.selected_optimism, 100 * confirmed.confirmed_optimism
        out.print(f"  val minus test       {selected:+.2f} points for the trial with the best val accuracy,")
        out.print(f"                       {mean:+.2f} points for the confirmed mean")


def print_reproduction(record: StudyRecord, reproduction: Reproduction) -> None:
    """Whether a trial came out the same, and where it did not."""
    verdict = "the same, bit for bit" if reproduction.matches else "NOT the same"
    out.print(f"trial {reproduction.trial} of {title(record)}: {verdict}")
    out.print(f"  {show_params(reproduction.params)}, seed {reproduction.seed}")
    epoch = reproduction.first_difference
    curve = "equal" if epoch is None else f"differ from epoch {epoch + 1} on"
    out.print(f"  {len(reproduction.recorded)} epochs: {curve}")
    if reproduction.recorded_sha256 is not None:
        out.print(f"  weights then  {reproduction.recorded_sha256}")
        out.print(f"  weights now   {reproduction.repeated_sha256}")
    for line in reproduction.environment_differences:
        out.print(f"  {line}", soft_wrap=True)
    if reproduction.code_differences:
        out.print("  the model code is not the one that the trial was trained with:")
    for line in reproduction.code_differences:
        out.print(f"    {line}", soft_wrap=True, markup=False)


def print_export(exported: Export) -> None:
    """Where the model is, what it scores, and that it was compared."""
    manifest = exported.manifest
    note = " (SYNTHETIC garments, not Fashion-MNIST)" if manifest["synthetic"] else ""
    out.print(f"Exported trial {manifest['trial']} of {manifest['study']}{note} to {exported.folder}", soft_wrap=True)
    out.print(f"  {show_params(manifest['params'])}")
    accuracies = f"val {percent(manifest['val_accuracy'])}, test {percent(manifest['test_accuracy'])}"
    out.print(f"  accuracy  {accuracies}")
    if (parity := manifest["parity"]) is not None:
        out.print(
            f"  parity    {parity['n_images']:,} test images in a process with TensorFlow alone: every class as "
            f"recorded, probabilities within {parity['max_difference']:.1g}",
            soft_wrap=True,
        )
    out.print(f"  files     {', '.join(name for name in manifest['files'] if '/' not in name)}", soft_wrap=True)


def print_prediction(prediction: Prediction, n_classes: int) -> None:
    """One line a picture: its most likely classes."""
    if prediction.is_synthetic:
        out.print("This model was trained on SYNTHETIC garments, not on Fashion-MNIST.")
    for answer in prediction.answers:
        ranking = ", ".join(f"{label} {percent(p)}" for label, p in answer.ranking[:n_classes])
        note = "   (inverted: it was dark on light)" if answer.is_inverted else ""
        if answer.is_mixed:
            note = "   (taken as light on dark, but its border is as much light as dark: invert it if it is the other)"
        out.print(f"{answer.name}: {ranking}{note}", soft_wrap=True)


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
    notes = [_note(row) for row in rows]
    columns = ("trial", "state", *names, "val acc", "", "epochs", "seconds", *(["note"] if any(notes) else []))
    table = _table(*columns, right=(*right, *names))
    low, high = _ends(row.value for row in rows)
    for row, note in zip(rows, notes, strict=True):
        table.add_row(
            str(row.number),
            row.state,
            *(_number(row.params[name]) if name in row.params else "" for name in names),
            percent(row.value),
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
    """One row an epoch, with a bar for val_accuracy.

    Args:
        is_kept: Whether the weights of the best epoch were kept, which is marked then.
    """
    columns = ("epoch", "loss", "accuracy", "val loss", "val acc", "seconds")
    table = _table("epoch", "loss", "accuracy", "val loss", "val acc", "", "seconds", right=columns)
    low, high = _ends(epoch.val_accuracy for epoch in epochs)
    best = max(epochs, key=lambda epoch: -1.0 if math.isnan(epoch.val_accuracy) else epoch.val_accuracy)
    for epoch in epochs:
        table.add_row(
            str(epoch.epoch + 1),
            f"{epoch.train_loss:.4f}",
            percent(epoch.train_accuracy),
            f"{epoch.val_loss:.4f}",
            percent(epoch.val_accuracy),
            bar(epoch.val_accuracy, low, high, 20) + (" kept" if is_kept and epoch is best else ""),
            f"{epoch.seconds:.2f}",
        )
    out.print(table)


def print_foreign(n_trials: int) -> None:
    """How many trials other programs added to a study; nothing where there are none."""
    if n_trials:
        out.print(f"{n_trials} trials of other programs are in this study too; they count for nothing.", soft_wrap=True)


def print_verification(name: str, verification: Verification) -> None:
    """The verdict, and every problem in a line."""
    verdict = "ok" if verification.ok else "NOT ok"
    out.print(
        f"{name}: {verdict}. {verification.n_cells} cells, {verification.n_results} results, "
        f"{verification.n_duplicates} duplicates, {verification.n_missing} missing, {verification.n_failed} failed, "
        f"{verification.n_running} running, {verification.n_surplus} surplus trials.",
        soft_wrap=True,
    )
    print_foreign(verification.n_foreign)
    for problem in verification.problems:
        out.print(f"  {problem}", soft_wrap=True)


def print_studies(studies: Sequence[tuple[StudyRecord | UnreadableStudy, CellCounts, float | None]]) -> None:
    """One row a study, and below a line for each that cannot be read."""
    from fmnist_optuna.study.studies import UnreadableStudy

    numbers = ("cells", "done", "failed", "best val acc")
    table = _table("study", "data", *numbers, right=numbers)
    unreadable = [study for study, _, _ in studies if isinstance(study, UnreadableStudy)]
    for study, counts, best in studies:
        if isinstance(study, UnreadableStudy):
            data = "unreadable"
        else:
            data = "SYNTHETIC" if study.is_synthetic else study.data_source
        table.add_row(study.name, data, str(counts.total), str(counts.done), str(counts.failed), percent(best))
    out.print(table)
    for study in unreadable:
        how = f"use the version that made it, or: fmnist-optuna delete {study.name}"
        out.print(f"{study.name} cannot be read: {study.reason}; {how}", soft_wrap=True)


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
