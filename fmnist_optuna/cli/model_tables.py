"""Stored models for people: a reproduction, an export, the answers for pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmnist_optuna.cli.console import describe_study, out, print_params
from fmnist_optuna.wording import WITHOUT_FLIPS, count, format_percent

if TYPE_CHECKING:
    from fmnist_optuna.export.facts import Facts
    from fmnist_optuna.export.folder import Export
    from fmnist_optuna.export.prediction import Prediction
    from fmnist_optuna.results.reproduction import Reproduction
    from fmnist_optuna.study.records import StudyRecord


def print_reproduction(record: StudyRecord, reproduction: Reproduction) -> None:
    """Whether a trial came out the same, and where it did not."""
    verdict = "the same, bit for bit" if reproduction.matches else "NOT the same"
    out.print(f"trial {reproduction.trial} of {describe_study(record)}: {verdict}")
    print_params(reproduction.params, f", seed {reproduction.seed}")
    epoch = reproduction.first_difference
    curve = "equal" if epoch is None else f"differ from epoch {epoch + 1} on"
    out.print(f"  {count(len(reproduction.recorded), 'epoch')}: {curve}")
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
    facts = exported.facts
    note = f" ({facts.info.name})" if facts.info.is_demo else ""
    name = facts.source.session.record.name
    trials = [str(attempt.number) for attempt in facts.source.attempts]
    what = f"an ensemble of trials {', '.join(trials)}" if facts.source.is_ensemble else f"trial {trials[0]}"
    out.print(f"Exported {what} of {name}{note} to {exported.folder}", soft_wrap=True)
    print_params(facts.source.params)
    metric, is_scored = facts.record.metric, facts.val_accuracy is not None
    if not metric.is_accuracy:
        values = [f"val {metric.format(facts.value)}"] if is_scored else []
        values += _describe_objective(facts)
        out.print(f"  {metric.name_in_logs:<9} {', '.join(values) or 'not measured of several nets together'}")
    val = f"val {format_percent(facts.val_accuracy)}, " if is_scored else ""
    flipped = f", with flips {format_percent(facts.evaluation.flip_accuracy)}" if facts.flip else ""
    out.print(f"  accuracy  {val}test {format_percent(facts.evaluation.accuracy)}{flipped}")
    if facts.parity is not None:
        difference = facts.parity.max_difference
        probabilities = f"probabilities within {difference:.1g}" if difference else "the same probabilities"
        out.print(
            f"  parity    {facts.parity.n_images:,} test {facts.info.noun}s in a process with TensorFlow alone: every "
            f"class as recorded, {probabilities}",
            soft_wrap=True,
        )
    files = sorted(path.name for path in exported.folder.iterdir() if path.is_file() and path.name != "manifest.json")
    out.print(f"  files     {', '.join(files)}", soft_wrap=True)


def _describe_objective(facts: Facts) -> list[str]:
    """The study's metric on the test images, if there is one: of the exported model where it averages answers."""
    metric, value, flipped = facts.record.metric, facts.evaluation.objective, facts.evaluation.flip_objective
    if value is None:
        return []
    if not facts.flip:
        return [f"test {metric.format(value)}"]
    alone = f"test {metric.format(value)} of the net alone, {WITHOUT_FLIPS}"
    return [alone] if flipped is None else [f"test {metric.format(value)}", f"with flips {metric.format(flipped)}"]


def print_prediction(prediction: Prediction, n_classes: int) -> None:
    """One line for each picture: its most likely classes."""
    if prediction.is_synthetic:
        out.print(f"This model was trained on {prediction.info.name}.")
    for answer in prediction.answers:
        ranking = ", ".join(f"{label} {format_percent(p)}" for label, p in answer.ranking[:n_classes])
        note = "   (inverted: it was dark on light)" if answer.is_inverted else ""
        if answer.is_mixed:
            note = "   (taken as light on dark, but its border is as much light as dark: invert it if it is the other)"
        out.print(f"{answer.name}: {ranking}{note}", soft_wrap=True)
