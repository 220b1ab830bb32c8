"""Writes the parts of these pages that the program itself knows: the keys of a study file, help texts, Python names.

Run it with `make docs-pages` after a change of either; a test fails while a page says something else.
"""

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from api_page import render_api

PAGES = Path(__file__).parent
COLUMNS = 80  # of the help texts
UNBOUNDED = 2**53  # the largest integer that a database keeps exactly: no bound that a reader meets
TABLES = (
    *("data", "model", "search", "space", "enqueue", "grid"),
    *("training", "augment", "objective", "pruner", "confirm"),
)
MEANINGS = {
    "name": "Name of the study. Results are found by it, and so is the study when it is run again.",
    "data.source": "Which data: `auto`, `fashion-mnist`, `synthetic`, or [your own](own-data.md): "
    '`"folder:DIR"`, `"npz:FILE"`, `"idx:DIR"`, `"keras:NAME"` or `"package.module:function"`. `auto` takes '
    "Fashion-MNIST, and drawn garments only if it is neither on disk nor reachable; the study then gets a name that "
    "ends in `-synthetic`.",
    "data.n_validation": "How many of the training images are held out to choose by, stratified by label: at least one "
    "for each class, and as many fewer than there are; of Fashion-MNIST's 60,000 images 10 to 59,990. Of the 12,000 "
    "drawn garments at most 2,400 are held out, whatever stands here.",
    "data.folds": "In the place of `n_validation`: into how many folds the training images are dealt, each of which "
    "validates one cell of every point; the point with the best mean wins, and is trained once more on all of them "
    "([more](searches.md#folds)). 0 for none.",
    "data.split_seed": "Seed of that split, and of the choice of the test where `test_share` keeps one out: another "
    "seed is another test set.",
    "data.size": "`folder:` alone: height and width that pictures are made, in pixels. Without it they must be of one "
    "size.",
    "data.mode": "`folder:` alone: whether pictures are made grey or colour. As they are, one in colour makes all of "
    "them so.",
    "data.resize": "`folder:` alone: how another size is fitted: with margins of the colour of the border, cropped to "
    "the middle, or stretched.",
    "data.skip_broken": "`folder:` alone: whether files that are no pictures are left out, instead of refused.",
    "data.test_share": "`folder:`, `npz:` and functions, where they have no test: the share of each class that is kept "
    "out as one.",
    "data.class_names": "`idx:` and `npz:`: names of the labels 0, 1, 2 and so on.",
    "model.architecture": '`dense`, `conv`, `resnet`, or a function of your own as `"package.module:function"` '
    "([more](own-model.md)). Every further key of this table is an argument of the function that is the same for all "
    "cells.",
    "search.sampler": "`grid` trains every point of `[grid]`; `random`, `qmc` and `tpe` train so many points of "
    "`[space]` ([more](searches.md)).",
    "search.n_trials": "How many points; must be given with every sampler but `grid`, and not with that. It may grow.",
    "search.seed": "Of all that is drawn; not with `grid`.",
    "search.repeats": "Over how many seeds each point is trained, with any sampler; the point with the best mean wins "
    "([more](searches.md#repeats)).",
    "training.batch_size": "Images in a batch. It may be a parameter of the grid as well.",
    "training.max_epochs": "Largest number of epochs of a trial.",
    "training.patience": "A trial ends early after this many epochs without a better value of the objective.",
    "training.keep_weights": "Those of the epoch with the best value of the objective, or those of the `last` epoch, "
    "however they score: every trial then trains for `max_epochs`, and the patience does nothing. A training that a "
    "callback stops before, or whose weights it replaces at the end, is refused then.",
    "training.seed": "Seed of the study. The seed of a trial is made from it and from the cell.",
    "training.callbacks": 'Functions as `"package.module:function"` that return Keras callbacks.',
    "training.checkpoint_seconds": "After so many seconds, at an epoch's end, a training is kept, so that another "
    "attempt goes on from there. It changes no number, so it may differ between runs: workers that begin later have "
    "that of the newest `run` or `init`.",
    "training.teacher": "Another finished study of the same storage and `[data]`, whose winner's answers are learnt "
    "from beside the labels ([more](#learning-from-another-study)). Empty for none.",
    "training.threads": "TensorFlow's threads in each worker. The numbers of a training depend on it, so it belongs to "
    "the study; without `--workers` there are then as many workers as the cores have threads for "
    "([when more help](operating.md#threads)).",
    "training.class_weight": "`balanced` lets the loss of each training image count by n / (n_classes x images of its "
    "class), of the images that are trained on, as scikit-learn has it. In training only; a source may give a weight "
    "for each image instead ([more](own-metric.md#weights)).",
    "training.optimizer": "`compiled` is the one that the architecture compiles; `adam`, or `sgd` with Nesterov's "
    "momentum, take its place with the learning rate that it was compiled with.",
    "training.momentum": "Of `sgd`.",
    "training.schedule": "Of the learning rate over the steps of all `max_epochs`: it stays, falls as a cosine, or "
    "rises and falls in straight lines (`one-cycle`). Late epochs then gain the most: take a `patience` of "
    "`max_epochs`; without a table `[pruner]` no cell is cut ([why](concepts.md#the-ladder)).",
    "training.warmup_epochs": "Epochs, or a part of one, in which the learning rate first rises in a straight line, "
    "fewer than `max_epochs` unless the schedule is `constant`; with 0 `one-cycle` rises for a quarter of "
    "`max_epochs`.",
    "training.learning_rate_floor": "Share of the highest rate that a schedule ends with.",
    "training.weight_decay": "Decoupled, as in AdamW: for a learning rate of 1, the share of each entry of a matrix or "
    "kernel that a step takes away. Biases and normalisations are left alone.",
    "training.label_smoothing": "Share of each label that is spread over all classes, for the loss "
    "`sparse_categorical_crossentropy`. The validation loss stays as it is.",
    "training.ema": "A running average of the weights is validated and kept in their place; this is what it keeps of "
    "itself at each update, such as `0.999`. 0 is no average.",
    "training.ema_after": "Whether each step or each epoch updates the average.",
    "training.teacher_weight": "Share of the loss that the teacher's answers have; the labels have the rest.",
    "training.teacher_temperature": "What logits are divided by before answers are compared: more makes the teacher's "
    "smaller probabilities count.",
    "augment.horizontal_flip": "Mirrors images: each at `random`, or `alternating`, so that any two epochs in a row "
    "show both forms of each.",
    "augment.shift": "Moves each image by up to so many pixels, up or down and left or right; beyond it is black.",
    "augment.erase": "Blackens a square with sides of so many pixels somewhere in each image.",
    "augment.mixup": "Mixes each image with another of its batch, and their losses with the same shares, drawn from a "
    "Beta distribution with this number as both parameters. 0 mixes none.",
    "objective.metric": "What cells are compared by: when a training stops early, which are cut, which one wins. "
    "`val_accuracy`, `val_loss`, or `val_` and the name of a metric that the model is compiled with "
    "([more](own-metric.md)).",
    "objective.direction": "Whether the larger or the smaller value is the better one. It is known of `val_loss`, and "
    "of names that [say so](own-metric.md#which-way-is-better), such as `accuracy`, `auc`, `f1`, `loss` and `error`.",
    "pruner.name": "`median` cuts trials that are worse than the median of the others, `ladder` those that at a rung "
    "[cannot reach the best](concepts.md#the-ladder), `none` trains every cell to its end. Without the table it is "
    "`none` where `training.schedule`, or a value of it in the grid, is not `constant`.",
    "pruner.n_startup_trials": "`median`: this many trials must be complete before any is cut.",
    "pruner.n_warmup_steps": "`median`: no trial is cut in its first so many epochs.",
    "pruner.interval_steps": "`median`: it compares every so many epochs.",
    "pruner.n_min_trials": "`median`: at an epoch that fewer trials have reached, none is cut.",
    "pruner.first_rung": "`ladder`: epochs at the first rung; each further rung has twice as many. Rungs lie below "
    "`max_epochs`.",
    "pruner.kappa": "`ladder`: how many times the gain of the last doubling is trusted to come again; more cuts less.",
    "pruner.margin": "`ladder`: how many standard errors of the leader's value may then lack; more cuts less.",
    "pruner.keep": "`ladder`: how many of the best at a rung go on whatever they promise.",
    "confirm.top": "How many of the best cells `confirm` trains again; the newest `run` or `init` decides.",
    "confirm.seeds": "With how many fresh seeds each.",
    "confirm.flip": "Whether an exported model averages its probabilities over an image and its mirror image. The test "
    "set is then scored both ways, and both scores are shown.",
}


def render() -> dict[Path, str]:
    """The pages as they should be, by their files."""
    from fmnist_optuna.cli.spec import EXAMPLE

    study_file, accuracy, operating = PAGES / "study-file.md", PAGES / "accuracy.md", PAGES / "operating.md"
    monitoring = PAGES / "monitoring.md"
    entries = tomllib.loads((PAGES / "accuracy.toml").read_text(encoding="utf-8"))
    of_study_file = {"keys": _keys(), "example": ["```toml", EXAMPLE.rstrip("\n"), "```"]}
    of_accuracy = {"measured": _measured(entries["measured"]), "published": _published(entries["published"])}
    return {
        study_file: _fill(study_file, of_study_file),
        accuracy: _fill(accuracy, of_accuracy),
        operating: _fill(operating, {"statuses": _statuses()}),
        monitoring: _fill(monitoring, {**_events(), **_metrics()}),
        PAGES / "commands.md": _commands(),
        PAGES / "api.md": render_api(),
    }


def _fill(file: Path, parts: Mapping[str, Iterable[str]]) -> str:
    """A page with the lines between its markers made anew."""
    page = file.read_text(encoding="utf-8")
    for name, lines in parts.items():
        text = "\n".join(lines)
        begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
        before, _, rest = page.partition(begin)
        _, found, behind = rest.partition(end)
        if not found:
            raise ValueError(f"The page must have a part between {begin} and {end}, but has none.")
        page = f"{before}{begin}\n\n{text}\n\n{end}{behind}"
    return page


def _keys() -> Iterator[str]:
    """A table of the keys of each table of a study file."""
    from fmnist_optuna.spec.study_spec import StudySpec

    schema = StudySpec.model_json_schema()
    described = set()
    for table in ("", *TABLES):
        found = schema["properties"][table] if table else schema
        properties = _resolve(schema, found).get("properties", {})
        keys = {name: value for name, value in properties.items() if name not in TABLES}
        if not keys:  # [grid], [space] and [[enqueue]], whose keys are the reader's
            continue
        yield from ("", f"### {f'`[{table}]`' if table else 'At the top'}", "")
        yield from ("| key | value | default | meaning |", "|---|---|---|---|")
        for key, value in keys.items():
            name = f"{table}.{key}" if table else key
            described.add(name)
            yield f"| `{key}` | {_describe(value)} | {_default(value)} | {MEANINGS[name]} |"
    if unknown := sorted(set(MEANINGS) - described):
        raise ValueError(f"Meanings must be of keys that exist, but there is no {', '.join(unknown)}.")


def _statuses() -> Iterator[str]:
    """A table of the exit statuses."""
    from fmnist_optuna.statuses import Status

    yield from ("| exit status | meaning | start it again automatically? |", "|---|---|---|")
    for status in Status:
        yield f"| {int(status)} | {status.meaning} | {'yes' if status.is_healed_by_restart else 'no'} |"


def _resolve(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
    return found


def _describe(value: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "enum" in value:
        return " or ".join(f'`"{choice}"`' for choice in value["enum"])
    if "anyOf" in value:  # or nothing
        return _describe(value["anyOf"][0])
    if value["type"] == "array":
        return "list of strings" if value["items"].get("type") == "string" else "list of integers"
    if value["type"] == "integer":
        low, high = value.get("minimum"), value.get("maximum")
        is_bounded = high is not None and high < UNBOUNDED
        return f"integer from {low:,} to {high:,}" if is_bounded else f"integer, at least {low:,}"
    if value["type"] == "number":
        return f"number from {value['minimum']:,g} to {value['maximum']:,g}"
    return str(value["type"])


def _default(value: dict[str, Any]) -> str:
    default = value["default"]
    if default is None:
        return "none"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


COUNTED = "seeds", "parameters", "epochs", "seconds", "openings"


def _measured(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A table of what the studies reach, the highest first."""
    names = "net", "test acc (95 % interval)", "with flips", "together", *COUNTED, "study"
    yield from (f"| {' | '.join(names)} |", f"|{'---|' * len(names)}")
    for entry in sorted(entries, key=lambda entry: -entry["test"][0]):
        accuracies = [_interval(entry[name]) if name in entry else "" for name in ("test", "flips")]
        together = ", ".join(f"{accuracy:.2f} %" for accuracy in entry.get("ensemble", ()))
        figures = (f"{entry[name]:,}" for name in COUNTED)
        yield f"| {' | '.join((entry['net'], *accuracies, together, *figures, entry['study']))} |"


def _interval(accuracy: tuple[float, float, float]) -> str:
    mean, low, high = accuracy
    return f"{mean:.2f} % ({low:.2f} to {high:.2f})"


def _published(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A table of the accuracies of others."""
    yield from ("| net | test acc | how | source |", "|---|---|---|---|")
    for entry in entries:
        name = entry["source"].rpartition("/")[2]
        yield f"| {entry['net']} | {entry['test']:.2f} % | {entry['how']} | [arXiv:{name}]({entry['source']}) |"


def _events() -> dict[str, Iterable[str]]:
    """Tables of the fields that every event has, and of the events with their own."""
    from fmnist_optuna.events.schema import COMMON, EVENTS

    common = ["| field | kind | meaning |", "|---|---|---|"]
    common += [f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in COMMON.items()]
    events = ["| event | what happened | its fields |", "|---|---|---|"]
    for event, (meaning, fields) in EVENTS.items():
        described = "; ".join(f"`{name}` ({kind}): {text}" for name, (kind, text) in fields.items())
        events.append(f"| `{event}` | {meaning} | {described} |")
    return {"common": common, "events": events}


def _metrics() -> dict[str, Iterable[str]]:
    """Tables of what the dashboard and a worker export."""
    from prometheus_client import CollectorRegistry

    from fmnist_optuna.bridge.totals import StudyTotals
    from fmnist_optuna.pages.monitoring.studies import make_families, make_own_families
    from fmnist_optuna.pages.monitoring.worker import WorkerMetrics
    from fmnist_optuna.search.metric import VAL_ACCURACY

    example = StudyTotals(1, "", values=(0.0, 1.0))
    studies = [*make_own_families(is_up=True, seconds=0.0), *make_families([(example, VAL_ACCURACY)])]
    worker: CollectorRegistry = WorkerMetrics("").registry
    return {
        "study metrics": _metric_rows(studies),
        "worker metrics": _metric_rows(each for each in worker.collect() if not each.name.startswith("process_")),
    }


def _metric_rows(families: Iterable[Any]) -> Iterator[str]:
    yield from ("| name | type | labels | meaning |", "|---|---|---|---|")
    for family in families:
        labels = {name: None for sample in family.samples for name in sample.labels if name != "le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        described = ", ".join(f"`{label}`" for label in labels)
        yield f"| `{name}` | {family.type} | {described} | {family.documentation} |"


def _commands() -> str:
    """The help text of every command."""
    lines = [
        "# Commands",
        "",
        "What `fmnist-optuna COMMAND --help` prints, for every command. This page is generated (`make docs-pages`).",
        "",
        "An option wins over the environment variable of the same meaning, which wins over the study file, which wins",
        "over the default. Results go to stdout and everything else to stderr. Exit statuses are listed under",
        "[Operating](operating.md#exit-statuses).",
    ]
    for names in command_names():
        title = " ".join(names) or "fmnist-optuna"
        lines += ["", f"## {title}", "", "```text", *help_text(names), "```"]
    return "\n".join(lines) + "\n"


def command_names() -> list[tuple[str, ...]]:
    """Every command, groups included, the whole program first."""
    import typer

    from fmnist_optuna.cli.main import app

    def walk(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield names
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*names, name))

    return list(walk(typer.main.get_command(app), ()))


def help_text(names: tuple[str, ...]) -> list[str]:
    """The lines that a command prints when it is asked for help, at a terminal of 80 columns."""
    from typer.testing import CliRunner

    from fmnist_optuna.cli.main import app

    variables = {"COLUMNS": str(COLUMNS), "TERM": "dumb", "NO_COLOR": "1", "FORCE_COLOR": None, "GITHUB_ACTIONS": None}
    answer = CliRunner().invoke(app, [*names, "--help"], prog_name="fmnist-optuna", env=variables)
    return [line.rstrip() for line in answer.output.strip("\n").splitlines()]


def main() -> None:
    """Write the pages."""
    for file, text in render().items():
        file.write_text(text, encoding="utf-8")
        print(os.path.relpath(file))


if __name__ == "__main__":
    main()
