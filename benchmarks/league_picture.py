"""The picture of the league, a line a search, drawn by Plotly in a headless Chromium."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from photograph import photograph
from plotly.subplots import make_subplots

WIDTH, HEIGHT = 1200, 560  # pixels
COLOURS = ("#1f4e79", "#d95f02", "#1b9e77", "#7b3294", "#666666", "#a6761d", "#e7298a", "#66a61e")
SHADES = ("#08306b", "#2171b5", "#6baed6", "#bdd7e7")  # of validation images, from all down to the fewest
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hexagon")


def draw_league(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write a PNG of three panels: epochs and regret for each grid, honest regret for each number of images.

    Args:
        rows: Of the league, with several seeds of one grid among the files.
        file: A PNG, written.
    """
    titles = ("epochs, share of the full grid", "mean regret, points", "honest regret over seeds, points")
    figure = make_subplots(cols=3, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    groups = list(rows[0]["files"])
    for index, group in enumerate(groups):
        style = {"color": COLOURS[index], "symbol": SYMBOLS[index], "size": 9}
        for column, key in ((1, "share"), (2, "regret")):
            values = [row["files"][group][key] for row in rows]
            _add(figure, column, rows, values, group, style, "legend", is_named=column == 1)
    seeds = next(group for group in groups if rows[0]["files"][group]["honest_regret"] is not None)
    counted = {"all images": [row["files"][seeds] for row in rows]}
    counted |= {f"{int(n_images):,}": [row["noise"][n_images] for row in rows] for n_images in rows[0]["noise"]}
    for index, (name, summaries) in enumerate(counted.items()):
        style = {"color": SHADES[index], "size": 9}
        _add(figure, 3, rows, [each["honest_regret"] for each in summaries], name, style, "legend2", is_named=True)
    figure.update_yaxes(autorange="reversed", showgrid=True)
    figure.update_xaxes(rangemode="tozero", showgrid=True)
    place = {"orientation": "h", "y": -0.08, "yanchor": "top"}
    figure.update_layout(
        width=WIDTH, height=HEIGHT, template="simple_white", margin={"l": 10, "r": 20, "t": 40, "b": 10},
        legend={**place, "x": 0.0}, legend2={**place, "x": 0.68},
    )  # fmt: skip
    photograph(figure, WIDTH, HEIGHT, file)


def _add(
    figure: go.Figure, column: int, rows: Sequence[Mapping[str, Any]], values: Sequence[float], name: str,
    style: Mapping[str, Any], legend: str, is_named: bool,
) -> None:  # fmt: skip
    names = [row["search"] for row in rows]
    points = go.Scatter(
        x=values, y=names, mode="markers", name=name, marker=style, legend=legend, showlegend=is_named, opacity=0.85
    )
    figure.add_trace(points, row=1, col=column)
