"""The grid as heat maps: the two most important parameters are the axes, and others have facets.

Each combination of the others has a facet of its own as long as these are few; of the rest the best cell is shown.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.style import (
    GREEN,
    PURPLE,
    VERMILION,
    describe_point,
    factor_of,
    find_color_range,
    finish_figure,
    list_values,
    title_of,
    write_value,
)
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.search.cell import ParamValue
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.study.attempts import ORDER
from fmnist_optuna.wording import format_percent

N_FACETS = 12  # nobody looks at more heat maps than that
N_FACETS_ACROSS = 3
N_LETTERED = 400  # in a grid of more cells, the value is not written on each
# Colour and word of a cell without a value.
COLORS = {
    State.PRUNED: "#b9bdc4",
    State.FAILED: VERMILION,
    State.RUNNING: GREEN,
    State.PARKED: PURPLE,
    State.WAITING: "#e4e6ea",
}
WORDS = {
    State.PRUNED: "pruned",
    State.FAILED: "FAILED",
    State.RUNNING: "running",
    State.PARKED: "parked",
    State.WAITING: "·",
}
# Places of the well-known parameters where importances are not known yet: the first is the rows' and the second the
# columns'; the others make facets. Of two axes that importances chose, it is the first that has the rows.
PLACES = {"hidden_size": 0, "dropout_rate": 1, "learning_rate": 3}
PLACE_OF_OTHERS = 2

Rows = Sequence[Sequence[Cell | None]]


@dataclass(frozen=True)
class _Layout:
    """How the parameters of a grid are shown.

    Args:
        rows: Parameter on the vertical axis.
        columns: Parameter on the horizontal axis; the same one where the grid has one parameter only.
        others: Parameters whose combinations have a facet each.
        merged: Parameters that neither axes nor facets tell apart: of their combinations the best cell is shown.
        values: Every value of each parameter, in order.
    """

    rows: str
    columns: str
    others: tuple[str, ...]
    merged: tuple[str, ...]
    values: Mapping[str, Sequence[ParamValue]]

    def label(self, cell: Cell) -> str:
        """The name of the facet that a cell belongs to."""
        return describe_point(cell.params, self.others)

    def labels(self) -> list[str]:
        """The names of all facets, in the order of their parameters' values."""
        combinations = itertools.product(*(self.values[name] for name in self.others))
        points = [dict(zip(self.others, combination, strict=True)) for combination in combinations]
        return [describe_point(point) for point in points]

    def arrange(self, cells: Sequence[Cell], metric: Metric) -> Rows:
        """The cells of a facet by row and column, the best one of a point; None where the grid has no such point."""
        by_point = {
            (write_value(cell.params.get(self.rows)), write_value(cell.params.get(self.columns))): cell
            for cell in sorted(cells, key=lambda cell: _rank(cell, metric), reverse=True)  # so that the best comes last
        }  # fmt: skip
        return [[by_point.get((row, column)) for column in self.ticks(self.columns)] for row in self.ticks(self.rows)]

    def ticks(self, name: str) -> list[str]:
        """The values of a parameter as an axis shows them."""
        return [write_value(value) for value in self.values[name]]


@dataclass(frozen=True)
class _Ink:
    """What all facets of a figure share.

    Args:
        ends: Values at which the colour scale begins and ends.
        is_lettered: Whether each cell has its value, or its state, written on it.
        name: What the value is called.
        metric: That it is of.
    """

    ends: tuple[float, float]
    is_lettered: bool
    name: str
    metric: Metric


def draw_heat_map(overview: Overview) -> tuple[go.Figure, str]:
    """Draw the grid.

    Returns:
        The figure, and a sentence about what it leaves out, if anything.
    """
    layout = _choose_layout(overview)
    facets: dict[str, list[Cell]] = {}
    for cell in overview.cells:
        facets.setdefault(layout.label(cell), []).append(cell)
    metric = overview.record.metric
    arranged = {name: layout.arrange(facets[name], metric) for name in layout.labels() if name in facets}
    shown = list(arranged)
    ink = _choose_ink([cell for rows in arranged.values() for row in rows for cell in row if cell], overview)
    n_across = max(1, min(N_FACETS_ACROSS, len(shown)))
    n_down = max(1, math.ceil(len(shown) / n_across))
    titles = [name.replace(", ", "<br>") for name in shown]
    figure = make_subplots(
        rows=n_down, cols=n_across, subplot_titles=titles or None, horizontal_spacing=0.06, shared_yaxes=True
    )
    scaled = next(filter(lambda name: _has_values(arranged[name]), shown), None)  # Plotly draws none beside no value
    for index, name in enumerate(shown):
        for trace in _draw_facet(layout, arranged[name], ink, has_scale=name == scaled):
            figure.add_trace(trace, row=index // n_across + 1, col=index % n_across + 1)
    figure.update_xaxes(type="category", title_text=layout.columns, title_standoff=4)
    figure.update_yaxes(type="category")
    figure.update_yaxes(title_text=layout.rows, col=1)
    finish_figure(figure, height=90 + n_down * max(170, 34 * len(layout.values[layout.rows]) + 80))
    return figure, _describe_merged(layout.merged)


def _choose_layout(overview: Overview) -> _Layout:
    """The most important parameters are the axes, and the next ones make facets as long as these are few.

    Where importances are not known, the learning rate is among the facets if it can be.
    """
    values = list_values(overview)
    varying = [name for name in values if len(values[name]) > 1] or list(values)
    shared = [name for name in varying if all(name in cell.params for cell in overview.cells)] or varying
    ranked = overview.by_importance(sorted(shared, key=_place))
    rows, *columns = sorted(ranked[:2], key=_place)
    others, n_facets = [], 1
    for name in ranked[2:]:
        n_facets *= len(values[name])
        if n_facets > N_FACETS:
            break
        others.append(name)
    merged = [name for name in varying if name not in (rows, *columns, *others)]
    return _Layout(rows, columns[0] if columns else rows, tuple(others), tuple(merged), values)


def _place(name: str) -> int:
    return PLACES.get(name, PLACE_OF_OTHERS)


def _choose_ink(cells: Sequence[Cell], overview: Overview) -> _Ink:
    """Colours for the cells that are shown."""
    metric = overview.record.metric
    complete = [value for cell in cells if (value := _read_value(cell)) is not None]
    is_lettered = len(cells) <= N_LETTERED
    return _Ink(find_color_range(complete, metric), is_lettered, overview.record.value_name, metric)


def _describe_merged(parameters: Sequence[str]) -> str:
    """What stands below the figure where a square has several cells; "" where each has one."""
    return f"Each square is the best cell over {', '.join(parameters)}; the pointer tells which." if parameters else ""


def _rank(cell: Cell, metric: Metric) -> tuple[int, float]:
    """A place among cells that share a square: the smallest one is that of the cell that is shown."""
    return ORDER.index(cell.state), metric.rank(cell.value)


def _draw_facet(layout: _Layout, cells: Rows, ink: _Ink, has_scale: bool) -> list[go.Heatmap]:
    """One trace of values, and one for each state without a value: a flat colour, with a word on it."""
    common = {
        "x": layout.ticks(layout.columns),
        "y": layout.ticks(layout.rows),
        "hovertext": [[_describe_cell(cell, ink) for cell in row] for row in cells],
        "hoverinfo": "text",
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
    }
    traces = [_draw_values(cells, ink, has_scale, common)]
    for state in COLORS:
        is_in_state = [[cell is not None and cell.state is state for cell in row] for row in cells]
        if any(itertools.chain.from_iterable(is_in_state)):
            traces.append(_draw_state(state, list(zip(is_in_state, cells, strict=True)), ink, common))
    return traces


def _has_values(cells: Rows) -> bool:
    return any(cell is not None and _read_value(cell) is not None for row in cells for cell in row)


def _draw_values(cells: Rows, ink: _Ink, has_scale: bool, common: Mapping[str, object]) -> go.Heatmap:
    low, high = ink.ends
    factor = factor_of(ink.metric)
    found = [[None if cell is None else _read_value(cell) for cell in row] for row in cells]
    values = [[None if value is None else factor * value for value in row] for row in found]
    text = "%{z:.2f}" if ink.metric.is_accuracy else "%{z:.4f}"
    return go.Heatmap(
        z=values, zmin=factor * low, zmax=factor * high, showscale=has_scale,
        colorscale="Viridis" if ink.metric.direction == "maximize" else "Viridis_r",  # the better one is yellow
        colorbar={"title": title_of(ink.name, ink.metric), "thickness": 12},
        texttemplate=text if ink.is_lettered else None,
        **common,
    )  # fmt: skip


def _draw_state(
    state: State,
    rows: Sequence[tuple[Sequence[bool], Sequence[Cell | None]]],
    ink: _Ink,
    common: Mapping[str, object],
) -> go.Heatmap:
    return go.Heatmap(
        z=[[1 if is_here else None for is_here in row] for row, _ in rows],
        text=[[_write_state(cell) if is_here else "" for is_here, cell in zip(*both, strict=True)] for both in rows],
        colorscale=[[0, COLORS[state]], [1, COLORS[state]]], showscale=False,
        texttemplate="%{text}" if ink.is_lettered else None, textfont={"color": "#1b1f24", "size": 10},
        **common,
    )  # fmt: skip


def _write_state(cell: Cell | None) -> str:
    """What is written on a cell without a value: `cut at 4`, `running`; one that waits with its trial goes on."""
    if cell is None:
        return ""
    if cell.state in (State.PRUNED, State.WAITING) and cell.cut_at is not None:
        return f"cut at {cell.cut_at}"
    if cell.state is State.WAITING and cell.trial_id is not None:
        return "goes on"
    return WORDS[cell.state]


def _read_value(cell: Cell) -> float | None:
    """The value of a complete cell; None for any other."""
    return cell.value if cell.state is State.COMPLETE else None


def _describe_cell(cell: Cell | None, ink: _Ink) -> str:
    """What is shown where the pointer is over a cell."""
    if cell is None:
        return "no cell"
    value = "" if cell.value is None else f"<br>{ink.name} {ink.metric.format(cell.value)}"
    if not ink.metric.is_accuracy and cell.value is not None:
        value += f"<br>accuracy {format_percent(cell.val_accuracy)}"
    trial = "" if cell.trial_number is None else f"<br>trial {cell.trial_number}"
    cut = cell.state is State.PRUNED and cell.cut_at is not None
    state = f"cut at epoch {cell.cut_at}" if cut else cell.state
    where = f" at epoch {cell.rung}" if cell.state is State.PARKED else ""
    return f"{describe_point(cell.params)}<br>{state}{where}{trial}{value}"
