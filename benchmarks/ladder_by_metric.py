"""What the ladder saves and costs where a study compares by another metric: recorded curves, replayed rung by rung.

    python benchmarks/ladder_by_metric.py studies.db STUDY... [--margins 0 0.5 1 2 3]

Each study must be one that was trained without pruning (`pruner.name = "none"`): its epochs have the accuracy and the
loss of the validation images, and the metric that it compares by. The ladder is replayed by that metric and by the
accuracy. The regret is what the best cell that was not cut lacks to the best of all, in the unit of the metric.
"""

import argparse
import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from databases import describe_machine
from tables import print_machine, print_table

from fmnist_optuna.search.ladder import LadderRule, stand_at
from fmnist_optuna.search.metric import VAL_ACCURACY, Epoch, Metric
from fmnist_optuna.spec.reading import restore_spec
from fmnist_optuna.spec.study_spec import StudySpec

EPOCHS = """
SELECT cells.cell_id, epochs.epoch, train_loss, train_accuracy, val_loss, epochs.val_accuracy, epochs.seconds, objective
FROM fmnist_cells AS cells JOIN fmnist_studies AS studies USING (study_id) JOIN fmnist_epochs AS epochs USING (trial_id)
WHERE studies.study_name = ? AND cells.result = 'COMPLETE' ORDER BY cells.cell_id, epochs.epoch
"""
SPEC = "SELECT spec FROM fmnist_studies WHERE study_name = ?"

Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Replayed:
    """What the ladder makes of a grid: the share of its epochs, the cells that are not cut, and the regret."""

    share: float
    n_complete: int
    regret: float


def read_study(database: Path, name: str) -> tuple[StudySpec, dict[str, list[Epoch]]]:
    """The specification of a study and the epochs of each complete cell."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    found = connection.execute(SPEC, (name,)).fetchone()
    if found is None:
        raise SystemExit(f"STUDY must be a study of {database}, but there is no {name}")
    curves: dict[str, list[Epoch]] = defaultdict(list)
    for cell_id, *measured in connection.execute(EPOCHS, (name,)):
        curves[cell_id].append(Epoch(*measured))
    connection.close()
    return restore_spec(json.loads(found[0]), name), dict(curves)


def climb(scores: Scores, rule: LadderRule) -> Replayed:
    """All cells from rung to rung, as a study decides them."""
    racing, finished, n_epochs = set(scores), dict[str, float | None](), 0
    for rung in rule.rungs():
        for cell in [cell for cell in racing if len(scores[cell]) < rung]:
            finished[cell] = max(scores[cell])
            racing.remove(cell)
        for cell in rule.decide({cell: stand_at(rung, scores[cell]) for cell in racing}, finished).cut:
            racing.remove(cell)
            n_epochs += rung
    complete = racing | set(finished)
    n_epochs += sum(len(scores[cell]) for cell in complete)
    best = max(max(scores[cell]) for cell in complete)
    n_all = sum(map(len, scores.values()))
    return Replayed(n_epochs / n_all, len(complete), max(map(max, scores.values())) - best)


def rows_of(
    name: str, spec: StudySpec, curves: Mapping[str, Sequence[Epoch]], margins: Sequence[float]
) -> list[list[str]]:
    """One row a metric and margin."""
    rows = []
    metrics: list[Metric] = [spec.metric] if spec.metric.is_accuracy else [spec.metric, VAL_ACCURACY]
    for metric in metrics:
        scores = {cell: [metric.score(metric.value_of(each)) for each in curve] for cell, curve in curves.items()}
        if not all(math.isfinite(score) for curve in scores.values() for score in curve):
            raise SystemExit(f"{name}: every epoch must have a finite {metric.name}")
        rule = replace(spec.ladder_rule(), is_share=metric.is_share)
        best = metric.value(max(map(max, scores.values())))
        for margin in margins:
            found = climb(scores, replace(rule, margin=margin))
            figures = f"{found.share:.2f}", str(found.n_complete), metric.format_distance(found.regret)
            rows.append([name, metric.name, f"{margin:g}", *figures, metric.format(best)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--margins", nargs="+", type=float, default=[0.0, 0.5, 1.0, 2.0, 3.0])
    options = parser.parse_args()
    print_machine(describe_machine())
    rows = [
        row for name in options.studies for row in rows_of(name, *read_study(options.database, name), options.margins)
    ]
    print_table(
        "The ladder by the metric of a study, and by the accuracy.",
        ["study", "metric", "margin", "epochs", "complete", "regret", "best"],
        rows,
    )


if __name__ == "__main__":
    main()
