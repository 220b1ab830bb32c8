"""What goes with an exported model for its readers: a card in Markdown.

Source of the card's form: Mitchell et al. (2019), Model Cards for Model Reporting, arXiv:1810.03993.
"""

import statistics
from collections.abc import Mapping
from pathlib import Path

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.export.choice import describe_choice
from fmnist_optuna.export.compared import compared_table, describe_folds, describe_mean
from fmnist_optuna.export.facts import Facts
from fmnist_optuna.export.source import Source
from fmnist_optuna.results.all_data import AllData
from fmnist_optuna.results.confirmation import Confirmation
from fmnist_optuna.results.evaluation import ClassResult, Evaluation
from fmnist_optuna.study.teacher import Teacher
from fmnist_optuna.wording import WITH_FLIPS, WITHOUT_FLIPS, as_markdown, format_interval, format_percent

CARD = """\
# {study}, {which}{demo_title}

A classifier of {kind} into {n_classes:,} classes, found by a search over a {searched} of hyperparameters.
{demo_warning}
## Model

| | |
|---|---|
| architecture | {architecture} |
| parameters | {params} |
{teacher}| input | `image`: {form}{meaning}, any n |
| answers | {answers} |
| output | {output} |
| {weights}, SHA-256 | `{weights_sha256}` |

## Data

{name}{description}. {held_out}; its
{n_test_images:,} test {examples} are for the final score alone. Fingerprint of data and split: `{fingerprint}`.

## How it was chosen

{chosen}

## Results

{compared}| | accuracy |
|---|---|
| {validation} | {val_accuracy} |
| {n_test_images:,} test {examples} | {test_accuracy} (95 % interval {test_interval}) |
{flipped}{repeated}{confirmed}{all_data}
No trial saw the test {examples}; they were scored once with these very weights, and the score was recorded.{parity}

{classes}

{confusions}

## Limits

- It knows the {n_classes:,} classes of this data, in {these}. Of anything else it names one of them all the
  same.
- Probabilities are those of the softmax; they were not calibrated.
- {weakest} is found least often: {weakest_recall} of its test {examples}.
- {intervals}; what comes from elsewhere does worse.

## Licence of the data

{licence}

## Provenance

`manifest.json` has all figures, versions and a SHA-256 of every file. To train it again:
{reproduce}.
"""

PARITY = " The SavedModel gave the same\nanswers in a process that has TensorFlow alone."


def write_card(file: Path, facts: Facts, picture: str | None) -> None:
    """Write the card of an exported model.

    Args:
        facts: What the export is and where it comes from.
        picture: File name of the confusion matrix, beside the card; None where there are too many classes for one.
    """
    evaluation, each_of = facts.evaluation, facts.source.session.record.name
    weakest = evaluation.weakest[0]
    card = CARD.format(
        study=facts.record.name,
        which=_which(facts.source),
        searched=facts.record.spec.searched,
        **_describe_data(facts.info),
        architecture=_pairs(facts.architecture),
        params=_pairs(facts.source.params),
        teacher=_teacher(facts.teacher),
        weights_sha256=facts.weights_sha256,
        weights="weights" if len(facts.source.attempts) == 1 else "weights of all nets, in their order",
        fingerprint=facts.record.data_fingerprint,
        chosen=describe_choice(facts),
        **_describe_validation(facts.source),
        compared=compared_table(facts),
        n_test_images=evaluation.n_images,
        test_accuracy=format_percent(evaluation.accuracy),
        test_interval=format_interval(evaluation.interval),
        **_describe_answers(facts),
        flipped=_flipped(evaluation),
        repeated=_repeated(facts),
        confirmed=_confirmed(facts.confirmation),
        all_data=_on_all_data(facts.source.all_data),
        parity="" if facts.parity is None else PARITY,
        classes=_list_classes(facts),
        confusions=_show_confusions(facts, picture),
        weakest=as_markdown(weakest.label),
        weakest_recall=format_percent(weakest.recall),
        intervals=_describe_intervals(facts),
        reproduce=",\n".join(f"`fmnist-optuna reproduce {each.number} {each_of}`" for each in facts.source.attempts),
    )
    file.write_text(card, encoding="utf-8")


def _teacher(teacher: Teacher | None) -> str:
    if teacher is None:
        return ""
    return f"| learned from | the labels, and the answers of study {as_markdown(teacher.describe())} |\n"


def _which(source: Source) -> str:
    trained = " on all data" if source.is_on_all_data else ""
    if source.is_ensemble:
        return f"an ensemble of {len(source.attempts)} seeds{trained}"
    if source.folds is not None:
        return f"trained on all training {source.session.record.info.noun}s"
    return f"a seed{trained}" if source.is_on_all_data else f"trial {source.attempts[0].number}"


def _describe_validation(source: Source) -> dict[str, str]:
    noun = source.session.record.info.noun
    of_nets = ", mean of the nets" if source.is_ensemble else ""
    is_seen, n_folds = source.is_on_all_data, source.session.record.spec.data.folds
    held_out = f"Some of its training {noun}s were held out for validation, stratified by label"
    if n_folds:
        held_out = f"Each of its training {noun}s validated once, in {n_folds} folds that are stratified by label"
    elif is_seen:
        held_out += ", until the choice was made"
    mean = statistics.fmean(each.val_accuracy or 0.0 for each in source.attempts)
    seen = ", which were trained on: no score" if is_seen else ""
    return {
        "held_out": held_out,
        "validation": f"validation {noun}s{of_nets}{seen}",
        "val_accuracy": format_percent(None if is_seen else mean),
    }


def _describe_answers(facts: Facts) -> dict[str, str]:
    return {"answers": _how_it_answers(facts), "output": _describe_output(facts)}


def _how_it_answers(facts: Facts) -> str:
    if facts.source.is_ensemble:
        asked = "the image and to its mirror image" if facts.flip else f"the {facts.info.noun}"
        return f"the mean of those of {len(facts.source.attempts)} nets to {asked}"
    if not facts.flip:
        return f"those of the net to the {facts.info.noun}"
    keras_file = "; `model.keras` is the net alone" if "keras" in facts.formats else ""
    return f"the mean of the net's answers to the image and to its mirror image{keras_file}"


def _describe_output(facts: Facts) -> str:
    form = f"float32 (n, {facts.info.n_classes})"
    if facts.has_saved_model:
        return f"`probabilities`: {form}; `class_id`: int64 (n,); `label`: string (n,)"
    return f"{'logits' if facts.ends_in_logits else 'probabilities'}: {form}"


def _flipped(evaluation: Evaluation) -> str:
    if evaluation.flip_accuracy is None:
        return ""
    accuracy = format_percent(evaluation.flip_accuracy)
    return f"| {evaluation.n_images:,} test images, {WITH_FLIPS} | {accuracy} |\n"


def _list_classes(facts: Facts) -> str:
    """A table of the classes; of many, of those that are found least often."""
    evaluation, alone = facts.evaluation, f"Classes and confusions are of the answers {WITHOUT_FLIPS}."
    note = [alone, ""] if facts.flip else []
    note += [evaluation.shown_note, ""] if evaluation.shown_note else []
    rows = [_class_row(result) for result in evaluation.shown_classes]
    return "\n".join([*note, f"| class | {facts.info.noun}s | recall | precision |", "|---|---:|---:|---:|", *rows])


def _show_confusions(facts: Facts, picture: str | None) -> str:
    """The picture of all, or the commonest ones as a table."""
    evaluation, examples = facts.evaluation, f"{facts.info.noun}s"
    if picture:
        return f"![Confusion matrix on the test {examples}]({picture})"
    if not evaluation.worst:
        return "No class was taken for another."
    rows = [
        f"| {as_markdown(each.label)} | {as_markdown(each.answer)} | {each.n_images:,} | {format_percent(each.share)} |"
        for each in evaluation.worst
    ]
    columns = f"| class | taken for | {examples} | of its {examples} |"
    head = ["The commonest confusions:", "", columns, "|---|---|---:|---:|"]
    return "\n".join([*head, *rows])


def _class_row(result: ClassResult) -> str:
    cells = (
        as_markdown(result.label),
        f"{result.n_images:,}",
        format_percent(result.recall),
        format_percent(result.precision),
    )
    return f"| {' | '.join(cells)} |"


def _describe_data(info: DatasetInfo) -> dict[str, str | float]:
    black, white = info.value_range
    of_pictures = f", {black:g} (black) to {white:g} (white){', light on dark' if info.is_light_on_dark else ''}"
    return {
        "demo_title": f" ({info.warning})" if info.is_demo else "",
        "demo_warning": f"\n**Trained on {info.warning}: of no use on real pictures.**\n" if info.is_demo else "",
        "kind": info.kind,
        "examples": f"{info.noun}s",
        "these": "pictures like these" if info.is_of_pictures else f"{info.noun}s like these",
        "n_classes": info.n_classes,
        "form": info.form,
        "meaning": of_pictures if info.is_of_pictures else "",
        "name": as_markdown(info.name),
        "description": f": {info.description.strip().rstrip('.')}" if info.description.strip() else "",
        "licence": info.licence,
    }


def _repeated(facts: Facts) -> str:
    repeats, folds = facts.source.repeats, facts.source.folds
    if not facts.record.metric.is_accuracy:
        return ""
    if folds is not None:
        return f"| validation, mean of {folds.described} | {describe_folds(folds.values)} |\n"
    if repeats is None:
        return ""
    return f"| validation, mean of {len(repeats.values)} repeats | {describe_mean(repeats)} |\n"


def _confirmed(confirmation: Confirmation | None) -> str:
    if confirmation is None:
        return ""
    n_seeds = len(confirmation.chosen.val.values)
    lines = [f"| validation, mean of {n_seeds} fresh seeds | {describe_mean(confirmation.chosen.val_accuracy)} |"]
    if confirmation.test is not None:
        lines.append(f"| test, mean of {n_seeds} fresh seeds | {describe_mean(confirmation.test)} |")
    if confirmation.flipped is not None:
        lines.append(f"| the same, averaged with mirror images | {describe_mean(confirmation.flipped)} |")
    return "\n".join(lines) + "\n"


def _on_all_data(all_data: AllData | None) -> str:
    samples = {} if all_data is None else {"": all_data.test, ", averaged with mirror images": all_data.flipped}
    return "".join(
        f"| test, mean of {len(sample.values)} seeds trained on all data{how} | {describe_mean(sample)} |\n"
        for how, sample in samples.items()
        if sample is not None
    )


def _describe_intervals(facts: Facts) -> str:
    """What the intervals of the card are about: a mean over seeds is one of the same test images."""
    of_images = f"about other test {facts.info.noun}s of the same kind"
    if facts.confirmation is None and facts.source.repeats is None:
        return f"The intervals are {of_images} and about one seed"
    of_one = "these nets" if facts.source.is_ensemble else "one net"
    return f"The intervals of means are about other seeds, that of {of_one} {of_images}"


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} `{value}`" for name, value in values.items()).replace("|", "\\|")
