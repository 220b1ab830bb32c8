"""The figures of a study as plotly graph objects: what a report shows, and a dashboard keeps.

Colours: Okabe and Ito (2008), told apart by colour-blind readers (blue a little lighter, to be seen on black), and
viridis for values. Backgrounds are transparent, so that a page may be light or dark; whatever is not a datum takes the
page's own colour.
"""

import html
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fmnist_optuna.data.source import CLASS_NAMES
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.progress import GridCell
from fmnist_optuna.pages.overview import Attempt, Overview
from fmnist_optuna.results.confirmation import Confirmation
from fmnist_optuna.results.evaluation import confusion_shares
from fmnist_optuna.search.cell import Params, canonical_json

BLUE, ORANGE, GREEN, VERMILION, GREY = "#2f8fcf", "#E69F00", "#009E73", "#D55E00", "#8a8f98"
STATE_COLORS = {"complete": BLUE, "pruned": GREY, "fail": VERMILION, "running": GREEN, "waiting": "#c9ccd1"}
SIGNS = {"pruned": "pruned", "failed": "FAILED", "running": "running", "waiting": "·"}
N_FACETS = 12  # more heat maps than that nobody looks at
N_LETTERED = 400  # cells with their value written on them
N_CURVES = 60
HEIGHT = 360  # pixels of a figure, unless its content asks for more


def heat_map(overview: Overview) -> tuple[go.Figure, str]:
    """The grid: two parameters as axes, a facet for each combination of the others.

    Returns:
        The figure, and what it leaves out, if anything.
    """
    rows, columns, others = _axes(overview)
    grid = _values(overview)
    facets: dict[str, list[GridCell]] = {}
    for cell in overview.cells:
        facets.setdefault(_label(cell.params, others), []).append(cell)
    shown = sorted(facets, key=lambda name: -_best_value(facets[name]))
    left_out = len(shown) - N_FACETS
    shown = [name for name in _in_order(overview, others) if name in shown[:N_FACETS]]
    n_across = min(3, len(shown))
    titles = [name.replace(", ", "<br>") for name in shown]
    figure = make_subplots(
        rows=max(1, math.ceil(len(shown) / max(1, n_across))), cols=max(1, n_across), subplot_titles=titles or None,
        horizontal_spacing=0.06, shared_yaxes=True,
    )  # fmt: skip
    complete = [cell.value for cell in overview.cells if cell.state == "complete" and cell.value is not None]
    low, high = _scale(complete)
    is_lettered = len(overview.cells) <= N_LETTERED
    for index, name in enumerate(shown):
        place = {"row": index // n_across + 1, "col": index % n_across + 1}
        by_point = {(_text(cell.params.get(rows)), _text(cell.params.get(columns))): cell for cell in facets[name]}
        y, x = [_text(value) for value in grid[rows]], [_text(value) for value in grid[columns]]
        cells = [[by_point.get((row, column)) for column in x] for row in y]
        for trace in _heat_traces(cells, x, y, (low, high), is_lettered, has_scale=index == 0):
            figure.add_trace(trace, **place)
    figure.update_xaxes(type="category", title_text=columns, title_standoff=4)
    figure.update_yaxes(type="category")
    figure.update_yaxes(title_text=rows, col=1)
    n_down = math.ceil(len(shown) / max(1, n_across))
    _finish(figure, height=90 + n_down * max(170, 34 * len(grid[rows]) + 80))
    return figure, f"{left_out} further combinations of {', '.join(others)} are left out." if left_out > 0 else ""


def _axes(overview: Overview) -> tuple[str, str, list[str]]:
    """Rows, columns and facets: the facets are few, learning_rate among them if it can be."""
    names = [name for name, values in _values(overview).items() if len(values) > 1] or list(_values(overview))
    order = sorted(names, key=lambda name: {"hidden_size": 0, "dropout_rate": 1, "learning_rate": 3}.get(name, 2))
    rows, columns, *others = [*order, *([order[0]] if len(order) == 1 else [])]
    return rows, columns, others


def _values(overview: Overview) -> dict[str, list[Any]]:
    """Every value of each parameter that a cell has, in order."""
    found: dict[str, list[Any]] = {}
    for name in overview.cells[0].params if overview.cells else overview.record.spec.grid:
        values = {cell.params[name] for cell in overview.cells}
        found[name] = sorted(values, key=lambda value: (isinstance(value, str), value))
    return found


def _in_order(overview: Overview, others: Sequence[str]) -> list[str]:
    """The labels of all facets, by the order of their values."""
    values = _values(overview)
    combinations = itertools.product(*(values[name] for name in others))
    return [_label(dict(zip(others, point, strict=True)), others) for point in combinations]


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a colour scale: a far outlier below (Tukey's fence) must not make all the others look alike."""
    if not values:
        return 0.0, 1.0
    lower, upper = (float(quartile) for quartile in np.quantile(values, (0.25, 0.75)))
    return max(min(values), lower - 1.5 * (upper - lower)), max(values)


def _heat_traces(
    cells: Sequence[Sequence[GridCell | None]],
    x: Sequence[str],
    y: Sequence[str],
    scale: tuple[float, float],
    is_lettered: bool,
    has_scale: bool,
) -> list[go.Heatmap]:
    """One trace of values, and one a state that has none: a flat colour each, named by a word."""
    hover = [[_hover(cell) for cell in row] for row in cells]
    values = [[None if c is None else _score(c) for c in row] for row in cells]
    traces = [
        go.Heatmap(
            x=x, y=y, z=values, zmin=100 * scale[0], zmax=100 * scale[1], colorscale="Viridis", showscale=has_scale,
            colorbar={"title": "val acc, %", "thickness": 12}, hovertext=hover, hoverinfo="text", xgap=2, ygap=2,
            texttemplate="%{z:.2f}" if is_lettered else None, hoverongaps=False,
        )
    ]  # fmt: skip
    for state, color in (("pruned", "#b9bdc4"), ("failed", VERMILION), ("running", GREEN), ("waiting", "#e4e6ea")):
        flat = [[1 if c and c.state == state else None for c in row] for row in cells]
        if any(value for row in flat for value in row):
            traces.append(
                go.Heatmap(
                    x=x, y=y, z=flat, colorscale=[[0, color], [1, color]], showscale=False, hovertext=hover,
                    hoverinfo="text", xgap=2, ygap=2, hoverongaps=False,
                    text=[[SIGNS[state] if value else "" for value in row] for row in flat],
                    texttemplate="%{text}" if is_lettered else None, textfont={"color": "#1b1f24", "size": 10},
                )
            )  # fmt: skip
    return traces


def _score(cell: GridCell) -> float | None:
    """In percent; None unless the cell is complete."""
    return 100 * cell.value if cell.state == "complete" and cell.value is not None else None


def _best_value(cells: Sequence[GridCell]) -> float:
    return max((_score(cell) or 0.0 for cell in cells), default=0.0)


def _hover(cell: GridCell | None) -> str:
    if cell is None:
        return "no cell"
    value = "" if cell.value is None else f"<br>val acc {100 * cell.value:.2f} %"
    trial = "" if cell.trial_number is None else f"<br>trial {cell.trial_number}"
    return f"{_label(cell.params, list(cell.params))}<br>{cell.state}{trial}{value}"


def curves(overview: Overview) -> tuple[go.Figure, str]:
    """val_accuracy and training accuracy by epoch, one line a trial; crosses end pruned ones, a star is the kept epoch.

    Returns:
        The figure, and how many trials it leaves out, if any.
    """
    drawn = [attempt for attempt in overview.attempts if attempt.curve and attempt.state != "fail"]
    shown = _some(drawn)
    figure = make_subplots(rows=1, cols=2, subplot_titles=("validation", "training (with dropout)"), shared_yaxes=True)
    winner = None if overview.winner is None else overview.winner.trial
    for attempt in sorted(shown, key=lambda a: a.number == winner):
        is_winner = attempt.number == winner
        line = {"color": ORANGE if is_winner else STATE_COLORS[attempt.state], "width": 3 if is_winner else 1}
        name = f"trial {attempt.number}: {_label(attempt.params, list(attempt.params))}"
        epochs = [epoch.epoch + 1 for epoch in attempt.curve]
        for column, values in (
            (1, [100 * epoch.val_accuracy for epoch in attempt.curve]),
            (2, [100 * epoch.train_accuracy for epoch in attempt.curve]),
        ):
            figure.add_trace(
                go.Scatter(
                    x=epochs, y=values, mode="lines", line=line, opacity=1.0 if is_winner else 0.6,
                    hovertemplate=f"{name}<br>epoch %{{x}}: %{{y:.2f}} %<extra></extra>", name="the winner",
                    showlegend=is_winner and column == 1,
                ),
                row=1, col=column,
            )  # fmt: skip
    complete = [attempt for attempt in shown if attempt.state == "complete"]
    max_epochs = overview.record.spec.training.max_epochs
    star = {"symbol": "star", "size": 9, "color": ORANGE, "line": {"width": 1, "color": BLUE}}
    for label, marker, ends in (
        ("pruned here", {"symbol": "x", "size": 8, "color": GREY}, [_end(a) for a in shown if a.state == "pruned"]),
        ("kept epoch", star, [_kept(a) for a in complete]),
        (
            "stopped early here", {"symbol": "circle-open", "size": 8, "color": BLUE},
            [_end(a) for a in complete if len(a.curve) < max_epochs],
        ),
    ):  # fmt: skip
        if ends:
            figure.add_trace(
                go.Scatter(
                    x=[epoch for epoch, _ in ends], y=[value for _, value in ends], mode="markers", marker=marker,
                    name=label, hoverinfo="skip",
                ),
                row=1, col=1,
            )  # fmt: skip
    figure.update_xaxes(title_text="epoch", title_standoff=4, rangemode="tozero")
    figure.update_yaxes(title_text="accuracy, %", col=1)
    figure.update_layout(legend={"orientation": "h", "y": -0.2})
    _finish(figure, height=420)
    left_out = len(drawn) - len(shown)
    return (
        figure,
        f"The best {len(shown) // 2} trials and as many others; {left_out} more are left out." if left_out else "",
    )


def _some(attempts: Sequence[Attempt]) -> list[Attempt]:
    """All, or the best half of N_CURVES and the other half evenly from the rest."""
    if len(attempts) <= N_CURVES:
        return list(attempts)
    ranked = sorted(attempts, key=lambda a: -(a.value or 0.0) if a.state == "complete" else 1.0)
    best, rest = ranked[: N_CURVES // 2], ranked[N_CURVES // 2 :]
    return best + [rest[round(place)] for place in np.linspace(0, len(rest) - 1, N_CURVES - len(best))]


def _end(attempt: Attempt) -> tuple[int, float]:
    """The last epoch (from 1) and its val_accuracy in percent."""
    epoch = attempt.curve[-1]
    return epoch.epoch + 1, 100 * epoch.val_accuracy


def _kept(attempt: Attempt) -> tuple[int, float]:
    """The epoch (from 1) whose weights were kept, and its val_accuracy in percent."""
    index = attempt.best_epoch if attempt.best_epoch is not None else len(attempt.curve) - 1
    epoch = attempt.curve[min(index, len(attempt.curve) - 1)]
    return epoch.epoch + 1, 100 * epoch.val_accuracy


def parallel_coordinates(overview: Overview) -> go.Figure | None:
    """Parameters and val_accuracy of every COMPLETE cell as one line each; None for fewer than two."""
    complete = [cell for cell in overview.cells if cell.state == "complete" and cell.value is not None]
    if len(complete) < 2:
        return None
    dimensions = []
    for name, values in _values(overview).items():
        if len(values) < 2:
            continue
        places = {_text(value): place for place, value in enumerate(values)}
        shown = list(range(0, len(values), max(1, len(values) // 10)))
        dimensions.append(
            {
                "label": name,
                "values": [places[_text(cell.params[name])] for cell in complete],
                "range": [0, len(values) - 1],
                "tickvals": shown,
                "ticktext": [_text(values[place]) for place in shown],
            }
        )
    scores = [100 * float(cell.value or 0.0) for cell in complete]
    dimensions.append({"label": "val acc, %", "values": scores})
    low, high = _scale(scores)
    shades = [[0, "#9aa0a8"], [1, ORANGE]]  # seen on white and on black, which a map's colours are not as lines
    line = {"color": scores, "colorscale": shades, "cmin": low, "cmax": high, "showscale": False}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelfont={"size": 12}))
    _finish(figure, height=HEIGHT)
    figure.update_layout(margin={"l": 60, "r": 60, "t": 50, "b": 30})
    return figure


def importance(overview: Overview) -> go.Figure | None:
    """Share of each parameter by PED-ANOVA; None where it says nothing."""
    if not overview.importances:
        return None
    ordered = sorted(overview.importances.items(), key=lambda item: item[1])
    names, shares = [name for name, _ in ordered], [100 * share for _, share in ordered]
    figure = go.Figure(go.Bar(x=shares, y=names, orientation="h", marker_color=BLUE, texttemplate="%{x:.0f} %"))
    figure.update_xaxes(title_text="importance, %", range=[0, 105], title_standoff=4)
    _finish(figure, height=110 + 40 * len(ordered))
    return figure


def timeline(overview: Overview) -> go.Figure | None:
    """Which worker trained what, when: a bar a trial, in minutes; gaps are idle. None without a trial."""
    attempts = [attempt for attempt in overview.attempts if attempt.began]
    if not attempts:
        return None
    origin = min(attempt.began for attempt in attempts)
    newest = max(attempt.ended or attempt.began for attempt in attempts)
    workers = sorted({attempt.worker for attempt in attempts})
    names = {worker: f"worker {place}" for place, worker in enumerate(workers, start=1)}
    figure = go.Figure()
    for state, group in itertools.groupby(sorted(attempts, key=lambda a: a.state), key=lambda a: a.state):
        bars = list(group)
        figure.add_trace(
            go.Bar(
                base=[(a.began - origin) / 60 for a in bars],
                x=[((a.ended or newest) - a.began) / 60 for a in bars],
                y=[names[a.worker] for a in bars],
                orientation="h",
                name=state,
                marker={"color": STATE_COLORS[state], "line": {"width": 0.5, "color": "#ffffff"}},
                hovertext=[_bar_text(a, newest) for a in bars],
                hoverinfo="text",
            )
        )
    figure.update_layout(barmode="overlay", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(title_text="minutes since the first trial began", title_standoff=4)
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=list(names.values()))
    _finish(figure, height=130 + 30 * len(workers))
    return figure


def _bar_text(attempt: Attempt, newest: float) -> str:
    seconds = (attempt.ended or newest) - attempt.began
    reason = f" ({attempt.reason})" if attempt.reason and attempt.reason != attempt.state else ""
    point = _label(attempt.params, list(attempt.params))
    return f"trial {attempt.number}: {point}<br>{attempt.state}{reason}, {seconds:.1f} s, {len(attempt.curve)} epochs"


def confusion_matrix(opening: Opening) -> go.Figure:
    """Which class was taken for which on the test images: a row a true class, shares of it in percent."""
    shares = 100 * confusion_shares(opening)
    text = [["" if share == 0 else "<1" if share < 1 else f"{share:.0f}" for share in row] for row in shares]
    figure = go.Figure(
        go.Heatmap(
            x=CLASS_NAMES, y=CLASS_NAMES, z=shares, zmin=0, zmax=100, colorscale="Viridis", text=text, xgap=1, ygap=1,
            texttemplate="%{text}", hovertemplate="%{y} taken for %{x}: %{z:.1f} %<extra></extra>",
            colorbar={"title": "%", "thickness": 12},
        )
    )  # fmt: skip
    figure.update_xaxes(title_text="answer", tickangle=-45, title_standoff=4)
    figure.update_yaxes(title_text="true class", autorange="reversed", title_standoff=4)
    _finish(figure, height=520)
    return figure


def confirmation_figure(confirmation: Confirmation) -> go.Figure:
    """Mean val_accuracy of each confirmed cell with its 95 % interval, and every seed as a dot."""
    figure = go.Figure()
    for candidate in confirmation.candidates:
        name = f"trial {candidate.cell.trial_number}"
        low, high = candidate.val.interval
        is_chosen = candidate is confirmation.chosen
        mean, point = 100 * candidate.val.mean, _label(candidate.cell.params, list(candidate.cell.params))
        figure.add_trace(
            go.Scatter(
                x=[100 * value for value in candidate.val.values], y=[name] * len(candidate.val.values), mode="markers",
                marker={"color": GREY, "size": 6}, hovertemplate="%{x:.2f} %<extra>a seed</extra>", showlegend=False,
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[mean], y=[name], mode="markers", showlegend=False,
                error_x={"type": "data", "array": [100 * high - mean], "arrayminus": [mean - 100 * low]},
                marker={"color": ORANGE if is_chosen else BLUE, "size": 11, "symbol": "diamond"},
                hovertemplate=f"{point}<br>mean %{{x:.2f}} %<extra></extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="val accuracy over fresh seeds, %", title_standoff=4)
    figure.update_yaxes(autorange="reversed")
    _finish(figure, height=120 + 45 * len(confirmation.candidates))
    return figure


def _label(params: Params, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_text(params[name])}" for name in names if name in params)


def _text(value: object) -> str:
    """A value as plotly may show it, which takes some HTML for HTML."""
    if isinstance(value, str):
        return html.escape(value)
    return f"{value:g}" if isinstance(value, float) else canonical_json(value)


def _finish(figure: go.Figure, height: int) -> None:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 70, "r": 20, "t": 40, "b": 55},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#6b7280"},
        hoverlabel={"align": "left"},
    )
    figure.update_annotations(font_size=13)  # titles of subplots
    figure.update_xaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False, automargin=True)
