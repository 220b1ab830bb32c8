"""What a card says of the metric that the study compares by, where it is another than the accuracy."""

from fmnist_optuna.export.facts import Facts
from fmnist_optuna.results.seeds import OpenedSeeds, Sample
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.wording import WITH_FLIPS, WITHOUT_FLIPS, count


def name_compared(metric: Metric) -> str:
    """What cells were chosen by, within a sentence."""
    return "validation accuracy" if metric.is_accuracy else f"`{metric.name}`"


def compared_table(facts: Facts) -> str:
    """Its values as a table in Markdown; empty for the accuracy, which has a table in any case."""
    metric = facts.record.metric
    if metric.is_accuracy:
        return ""
    evaluation, tested = facts.evaluation, count(facts.evaluation.n_images, f"test {facts.info.noun}")
    rows = {
        f"validation {facts.info.noun}s": None if facts.value is None else metric.format(facts.value),
        f"{tested}{f', the net alone, {WITHOUT_FLIPS}' if facts.flip else ''}": metric.format(evaluation.objective),
        f"{tested}, {WITH_FLIPS}": metric.format(evaluation.flip_objective),
    }
    if (repeats := facts.source.repeats) is not None:
        rows[f"validation, mean of {len(repeats.values)} repeats"] = describe_mean(repeats)
    if (folds := facts.source.folds) is not None:
        rows[f"validation, mean of {folds.described}"] = describe_folds(folds.values)
    if (confirmation := facts.confirmation) is not None:
        of_seeds = f"mean of {len(confirmation.chosen.val.values)} fresh seeds"
        rows[f"validation, {of_seeds}"] = describe_mean(confirmation.chosen.val)
        rows |= _tested_rows(confirmation, of_seeds, facts.flip)
    if (all_data := facts.source.all_data) is not None:
        rows |= _tested_rows(all_data, f"mean of {len(all_data.runs)} seeds trained on all data", facts.flip)
    way = "larger" if metric.direction == "maximize" else "smaller"
    lines = [f"| | {metric.name_in_logs}, the {way} the better |", "|---|---|"]
    lines += [f"| {images} | {value} |" for images, value in rows.items() if value not in (None, metric.format(None))]
    return "\n".join([*lines, "", ""]) if len(lines) > 2 else ""


def _tested_rows(opened: OpenedSeeds, of_seeds: str, has_flips: bool) -> dict[str, str | None]:
    test, flipped = opened.test_objective, opened.flipped_objective
    return {
        f"test, {of_seeds}{f', {WITHOUT_FLIPS}' if has_flips else ''}": None if test is None else describe_mean(test),
        f"test, {of_seeds}, {WITH_FLIPS}": None if flipped is None else describe_mean(flipped),
    }


def describe_mean(sample: Sample) -> str:
    """A mean over seeds with its interval and deviation."""
    metric, interval = sample.metric, sample.metric.format_interval(sample.interval)
    return f"{metric.format(sample.mean)} (95 % interval {interval}, sd {metric.format_distance(sample.sd)})"


def describe_folds(sample: Sample) -> str:
    """A mean over folds with its deviation; they share images, so that no interval follows from it."""
    return f"{sample.metric.format(sample.mean)} (sd {sample.metric.format_distance(sample.sd)})"
