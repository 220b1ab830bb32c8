"""`data fetch`, `data verify` and `data describe`: the data set on disk, and what any data set holds."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist_optuna.cli.answers import Answer, print_json
from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import Common, DataDir, JsonFlag, Mirrors, Source
from fmnist_optuna.cli.running import SpecFile, choose_spec
from fmnist_optuna.cli.streams import say
from fmnist_optuna.durable import whole_file
from fmnist_optuna.errors import DataError, StorageError
from fmnist_optuna.wording import count, reason_of

if TYPE_CHECKING:
    from fmnist_optuna.data.folds import Int64Array
    from fmnist_optuna.data.split import Splits
    from fmnist_optuna.data.summary import Summary

MOST_LINES = 50  # classes, or columns, that are listed each by itself
Sheet = Annotated[
    Path | None, typer.Option("--sheet", metavar="FILE.png", help="Draw some pictures of each class into this file.")
]

group = make_group("Data sets: on disk with checksums, and what they hold.")


@command(group, "fetch")
def fetch(common: Common, data_dir: DataDir = None, mirror: Mirrors = None) -> None:
    """Download Fashion-MNIST, checked by SHA-256, unless it is there."""
    from fmnist_optuna.data.download import fetch as fetch_files  # loads NumPy, urllib, hashlib and uuid

    folder = fetch_files(data_dir, tuple(mirror or ()))
    print(folder)
    quoted = shlex.quote(str(folder))
    say(f"Next: fmnist-optuna data verify --data-dir {quoted}")


@command(group, "verify")
def verify(common: Common, data_dir: DataDir = None, as_json: JsonFlag = False) -> None:
    """Check the four files against their SHA-256; exit 4 when one is missing or corrupt."""
    from fmnist_optuna.data.fashion_mnist import find_data_dir, verify_files  # loads NumPy and hashlib

    is_given = data_dir is not None and data_dir.is_dir()  # then a missing file is one of the lines
    folder = data_dir if is_given else find_data_dir(data_dir)
    if folder is None:
        raise DataError("Fashion-MNIST must be on disk, but is in no cache; get it with `fmnist-optuna data fetch`.")
    checks = verify_files(folder)
    if as_json:
        files = [
            {
                "name": check.name,
                "path": None if check.path is None else str(check.path),
                "ok": check.ok,
                "items": check.n_items,
                "sha256": check.sha256,
                "message": check.message,
            }
            for check in checks
        ]
        print_json({"folder": str(folder), "ok": all(check.ok for check in checks), "files": files})
    else:
        for check in checks:
            print(f"{'ok ' if check.ok else 'BAD'} {check.name}  {check.message}")
    bad = [check.name for check in checks if not check.ok]
    if bad:
        raise DataError(f"All four files in {folder} must be right, but {', '.join(bad)} must be replaced.")


@command(group, "describe")
def describe(
    common: Common,
    study_file: SpecFile = None,
    data: Source = None,
    data_dir: DataDir = None,
    sheet: Sheet = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a data set holds, of a study file or of --data: shape, classes, counts, range, repeated images."""
    # These load NumPy, Pillow and multiprocessing.
    from fmnist_optuna.data.contact_sheet import draw_sheet
    from fmnist_optuna.data.summary import check_content, summarise
    from fmnist_optuna.work.splits import load_described

    splits = load_described(choose_spec(study_file, None, data, None).data, data_dir)
    summary = summarise(splits)
    if sheet is not None:
        picture = draw_sheet(splits)
        try:
            with whole_file(sheet) as file:
                picture.save(file, "PNG")
        except OSError as error:
            raise StorageError(
                f"--sheet must be a file that can be written, but {sheet}: {reason_of(error)}."
            ) from error
    if as_json:
        print_json(_answer(splits, summary))
    else:
        _print_summary(splits, summary)
    if sheet is not None:
        say(f"Some pictures of each class: {sheet}")
    check_content(splits.source, summary)


def _answer(splits: "Splits", summary: "Summary") -> Answer:
    return {
        "source": splits.source,
        "fingerprint": splits.fingerprint,
        "folds": None if splits.folds is None else _count_folds(splits.folds),
        "dataset": splits.info.to_content(),
        "images": {role: sum(counts) for role, counts in summary.n_of_class.items()},
        "classes": [
            {"label": name, **{role: counts[index] for role, counts in summary.n_of_class.items()}}
            for index, name in enumerate(splits.info.class_names)
        ],
        "range": list(summary.value_range),
        "mean": summary.mean,
        "columns": [list(ends) for ends in summary.columns],
        "repeated_test_images": summary.n_repeated,
        "skipped_files": summary.n_skipped,
        "warnings": list(summary.warnings.values()),
    }


def _count_folds(folds: "Int64Array") -> list[int]:
    """The images of each."""
    n_of_fold = Counter(folds.tolist())
    return [n_of_fold[number] for number in range(1, max(n_of_fold) + 1)]


def _print_summary(splits: "Splits", summary: "Summary") -> None:
    info, roles = splits.info, summary.n_of_class
    low, high = summary.value_range
    print(f"{info.name} ({splits.source}): {info.kind}, {info.dtype}, in {count(info.n_classes, 'class', 'classes')}")
    print(f"{info.noun}s: " + ", ".join(f"{sum(counts):,} {role}" for role, counts in roles.items()))
    if splits.folds is not None:
        sizes = _count_folds(splits.folds)
        of_each = f"{min(sizes):,} to {max(sizes):,} {info.noun}s"
        print(f"folds: {len(sizes)}, of {of_each}; each validates what the others train")
    print(f"numbers to train on: {low:g} to {high:g}, mean {summary.mean:.4g}")
    for number, (smallest, largest) in enumerate(summary.columns[:MOST_LINES]):
        print(f"  column {number}: {smallest:g} to {largest:g}")
    if len(summary.columns) > MOST_LINES:
        print(f"  and {len(summary.columns) - MOST_LINES:,} more columns (--json has all)")
    width = max(map(len, info.class_names[:MOST_LINES]))
    if info.n_classes <= MOST_LINES:
        for index, name in enumerate(info.class_names):
            print(f"  {name:{width}}  " + ", ".join(f"{counts[index]:,} {role}" for role, counts in roles.items()))
    else:
        for role, counts in roles.items():
            print(f"  {info.noun}s of a class, {role}: {min(counts):,} to {max(counts):,}")
    print(f"{summary.on_repeated}.")
    for sentence in filter(None, (summary.on_balance, summary.on_scale, summary.on_skipped)):
        print(f"Note: {sentence}.")
    print(f"fingerprint: {splits.fingerprint}")
