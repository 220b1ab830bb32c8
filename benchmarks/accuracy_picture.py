"""The picture of the page "How high, how fast": test accuracy against minutes of a training, from docs/accuracy.toml.

python benchmarks/accuracy_picture.py [docs/accuracy.png]
"""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from photograph import photograph

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT = 1000, 560  # pixels
LABELS = ("middle right", "middle left")  # where the name of a net stands beside its mean, and beside its ensemble
MINUTES = (2, 5, 10, 20, 50, 100, 200, 500)  # marked on the axis
ENDS = (0.5, 2.4)  # of the axis, logarithms to the base of 10
PLAIN, FLIPPED, PUBLISHED = "#1f4e79", "#d95f02", "#8a98a8"
KINDS = {"test": ("one image at a time", PLAIN), "flips": ("mean over the mirror image", FLIPPED)}


def draw(measured: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]]) -> go.Figure:
    """A point with its interval for each measured accuracy, a line for each published one."""
    figure = go.Figure()
    for key, (name, colour) in KINDS.items():
        entries = [entry for entry in measured if key in entry]
        means, lows, highs = zip(*(entry[key] for entry in entries), strict=True) if entries else ((), (), ())
        above = [high - mean for mean, high in zip(means, highs, strict=True)]
        below = [mean - low for mean, low in zip(means, lows, strict=True)]
        figure.add_scatter(
            x=[entry["seconds"] / 60 for entry in entries], y=means, name=name, mode="markers+text",
            text=[f"  {entry['net']}  " if key == "test" else "" for entry in entries],
            textposition=[entry.get("labels", LABELS)[0] for entry in entries],
            marker={"color": colour, "size": 9}, error_y={"array": above, "arrayminus": below, "symmetric": False},
        )  # fmt: skip
    groups = [entry for entry in measured if "ensemble" in entry]
    figure.add_scatter(
        x=[entry["seconds"] / 60 * entry["seeds"] for entry in groups], y=[entry["ensemble"][1] for entry in groups],
        name="all seeds together, the same", mode="markers+text",
        text=[f"  {entry['seeds']} x {entry['net']}  " for entry in groups],
        textposition=[entry.get("labels", LABELS)[1] for entry in groups],
        marker={"color": FLIPPED, "size": 10, "symbol": "diamond"},
    )  # fmt: skip
    line = {"color": PUBLISHED, "dash": "dot", "width": 1}
    for entry in published:
        place, name = f"{entry.get('label', 'top')} left", f"{entry['net']}, published: {entry['how']}"
        text = {"annotation_text": name, "annotation_font_color": PUBLISHED, "annotation_position": place}
        figure.add_hline(entry["test"], line=line, opacity=1, **text)
    figure.update_xaxes(type="log", title="minutes of a training on two cores", tickvals=MINUTES, range=ENDS)
    figure.update_yaxes(title="test accuracy, %, mean over seeds with its 95 % interval")
    figure.update_layout(
        width=WIDTH, height=HEIGHT, template="simple_white", margin={"l": 10, "r": 20, "t": 20, "b": 10},
        legend={"x": 0.99, "xanchor": "right", "y": 0.45, "yanchor": "middle"},
    )  # fmt: skip
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="The picture of test accuracy against minutes of a training")
    parser.add_argument("file", type=Path, nargs="?", default=DOCS / "accuracy.png")
    options = parser.parse_args()
    entries = tomllib.loads((DOCS / "accuracy.toml").read_text(encoding="utf-8"))
    photograph(draw(entries["measured"], entries["published"]), WIDTH, HEIGHT, options.file)


if __name__ == "__main__":
    main()
