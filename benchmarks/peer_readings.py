"""What whole commands of several tools took, summed up: a table and a chart of medians.

Knows no tool and starts nothing: `peers` does.
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tables import print_table

Params = dict[str, Any]

N_WORKERS = 2  # of each tool that has any
OURS, PRUNED = "ours", "ours, pruned"
PEERS = ("loop", "optuna", "keras-tuner", "ray-tune")
TOOLS = (*PEERS, OURS, PRUNED)
IN_PARALLEL = {"loop": 1, "keras-tuner": 1}  # trainings at once; the others use all workers


@dataclass(frozen=True)
class Training:
    """One finished training: epochs it ran, seconds from its first to its last, and whether it was cut short."""

    params: Params
    epochs: int
    seconds: float
    val_accuracy: float
    is_pruned: bool = False


@dataclass(frozen=True)
class Reading:
    """One command.

    Args:
        wall_seconds: From its start to its end.
        seconds: The same without what duplicates cost.
        peak_bytes: Of all its processes together, each page counted once (proportional set size).
        trainings: One a training.
        winner: Parameters, val_accuracy and test_accuracy.
    """

    tool: str
    wall_seconds: float
    seconds: float
    peak_bytes: int
    trainings: tuple[Training, ...]
    winner: Mapping[str, Any]

    @property
    def n_epochs(self) -> int:
        return sum(training.epochs for training in self.trainings)

    @property
    def n_duplicates(self) -> int:
        return len(self.trainings) - len(count_cells(self.trainings))


def count_cells(trainings: Iterable[Training]) -> Counter[str]:
    return Counter(json.dumps(training.params, sort_keys=True) for training in trainings)


def count_out_duplicates(reading: Reading) -> Reading:
    """Take off the seconds of every training of a cell but the shortest, divided by the processes that shared them."""
    shortest: dict[str, float] = {}
    total = 0.0
    for training in reading.trainings:
        cell = json.dumps(training.params, sort_keys=True)
        shortest[cell] = min(training.seconds, shortest.get(cell, training.seconds))
        total += training.seconds
    surplus = total - sum(shortest.values())
    return replace(reading, seconds=reading.wall_seconds - surplus / parallelism(reading.tool))


def parallelism(tool: str) -> int:
    return IN_PARALLEL.get(tool, N_WORKERS)


def summarise(readings: Sequence[Reading]) -> dict[str, dict[str, Any]]:
    """Medians by tool, and every tool's time over ours."""
    rows: dict[str, dict[str, Any]] = {}
    for tool in TOOLS:
        mine = [reading for reading in readings if reading.tool == tool]
        if mine:
            rows[tool] = {
                "rounds": len(mine),
                "seconds": statistics.median(reading.seconds for reading in mine),
                "seconds_all": [round(reading.seconds, 2) for reading in mine],
                "epochs": statistics.median(reading.n_epochs for reading in mine),
                "epochs_per_second": statistics.median(reading.n_epochs / reading.wall_seconds for reading in mine),
                "duplicates": [reading.n_duplicates for reading in mine],
                "peak_bytes": statistics.median(reading.peak_bytes for reading in mine),
                "winner": mine[-1].winner,
                "epoch_seconds": epoch_seconds(mine),
            }
    for row in rows.values():
        row["over"] = {ours: row["seconds"] / rows[ours]["seconds"] for ours in (OURS, PRUNED) if ours in rows}
    return rows


def epoch_seconds(readings: Sequence[Reading]) -> dict[int, float]:
    """Seconds of the machine that an epoch of a training takes, by hidden size: those of a training over its epochs."""
    by_size: dict[int, list[float]] = {}
    for reading in readings:
        for training in reading.trainings:
            seconds = training.seconds / training.epochs / parallelism(reading.tool)
            by_size.setdefault(training.params["hidden_size"], []).append(seconds)
    return {size: statistics.median(values) for size, values in sorted(by_size.items())}


def print_summary(rows: Mapping[str, Mapping[str, Any]]) -> None:
    head = (
        "tool",
        "time, s",
        "over ours",
        "over pruned",
        "epochs",
        "a second",
        "val acc",
        "test acc",
        "peak, MB",
        "twice",
    )
    print_table(
        "Whole commands: seconds to a tested winner, and those of a tool over ours.",
        head,
        [
            (
                tool,
                f"{row['seconds']:.1f}",
                *(f"{row['over'][ours]:.1f}" if ours in row["over"] else "" for ours in (OURS, PRUNED)),
                f"{row['epochs']:.0f}",
                f"{row['epochs_per_second']:.2f}",
                f"{100 * row['winner']['val_accuracy']:.2f} %",
                f"{100 * row['winner']['test_accuracy']:.2f} %",
                f"{row['peak_bytes'] / 1e6:,.0f}",
                " ".join(map(str, row["duplicates"])),
            )
            for tool, row in rows.items()
        ],
    )
    sizes = next(iter(rows.values()))["epoch_seconds"]
    reference = rows.get(OURS, {}).get("epoch_seconds", {})
    print_table(
        "Seconds of the machine an epoch of a training, by hidden size (over ours).",
        ("tool", *(f"h = {size}" for size in sizes)),
        [
            (tool, *(f"{s:.3f} ({s / reference[size]:.1f})" if size in reference else f"{s:.3f}" for size, s in times))
            for tool, times in ((tool, row["epoch_seconds"].items()) for tool, row in rows.items())
        ],
    )


def draw_chart(rows: Mapping[str, Mapping[str, Any]], title: str, file: Path) -> None:
    """Bars of minutes, the slowest on top, ours in a colour of their own."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    tools = sorted(rows, key=lambda tool: rows[tool]["seconds"])
    minutes = [rows[tool]["seconds"] / 60 for tool in tools]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(tools) + 1.1), layout="constrained")
    bars = axes.barh(
        range(len(tools)), minutes, color=["#d55e00" if tool in (OURS, PRUNED) else "#8a98a8" for tool in tools]
    )
    labels = [LABELS[tool] for tool in tools]
    axes.set_yticks(range(len(tools)), labels, fontsize=11)
    axes.bar_label(bars, [f" {value_label(rows[tool])}" for tool in tools], fontsize=11)
    axes.set_xlim(0, 1.3 * max(minutes))
    axes.set_xlabel("minutes from a cold command to the tested winner")
    axes.set_title(title, loc="left", fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


LABELS = {
    "loop": "Keras, one after another",
    "optuna": "Optuna GridSampler, 2 processes",
    "keras-tuner": "KerasTuner GridSearch",
    "ray-tune": "Ray Tune, 2 x 1 CPU",
    OURS: "fmnist-optuna, no pruning",
    PRUNED: "fmnist-optuna",
}


def value_label(row: Mapping[str, Any]) -> str:
    minutes, seconds = divmod(round(row["seconds"]), 60)
    time_text = f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
    over = row["over"].get(PRUNED, 0.0)
    return time_text if over <= 1.0 else f"{time_text} ({over:.1f} x)"
