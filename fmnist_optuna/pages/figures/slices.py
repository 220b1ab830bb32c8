"""Where the cells of a search lie that is no grid: their values over each parameter by itself."""

import math

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.style import (
    BLUE,
    GREY,
    describe_left_out,
    describe_point,
    factor_of,
    find_color_range,
    finish_figure,
    list_values,
    title_of,
    write_value,
)
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.search.metric import Metric

N_ACROSS = 3
N_SLICES = 12  # nobody looks at more of them
ROW_HEIGHT = 220  # pixels
COLORS = {State.COMPLETE: BLUE, State.PRUNED: GREY}


def draw_slices(overview: Overview) -> tuple[go.Figure | None, str]:
    """Draw a point for each cell with a value, once for each parameter that has several.

    Returns:
        The figure, with the most important parameter first, None without a point; and a sentence about the parameters
        that it leaves out, if any.
    """
    cells = [cell for cell in overview.cells if cell.state in COLORS and cell.value is not None]
    names = [name for name, values in list_values(overview).items() if len(values) > 1]
    if not cells or not names:
        return None, ""
    names = overview.by_importance(names)
    names, left_out = names[:N_SLICES], names[N_SLICES:]
    metric = overview.record.metric
    n_down = math.ceil(len(names) / N_ACROSS)
    figure = make_subplots(rows=n_down, cols=min(N_ACROSS, len(names)), shared_yaxes=True, horizontal_spacing=0.05)
    for place, name in enumerate(names):
        row, column = place // N_ACROSS + 1, place % N_ACROSS + 1
        for state in COLORS:
            shown = [cell for cell in cells if cell.state is state and name in cell.params]
            figure.add_trace(_draw_points(name, shown, state, metric, has_legend=place == 0), row=row, col=column)
        figure.update_xaxes(title_text=name, title_standoff=4, **_axis(overview, name), row=row, col=column)
    low, high = find_color_range([factor_of(metric) * float(cell.value or 0.0) for cell in cells], metric)
    room = 0.05 * (high - low) or 0.01 * factor_of(metric)
    figure.update_yaxes(range=[low - room, high + room])
    figure.update_yaxes(title_text=title_of(overview.record.value_name, metric), col=1)
    finish_figure(figure, height=90 + n_down * ROW_HEIGHT)
    return figure, describe_left_out("a picture", left_out)


def _draw_points(name: str, cells: list[Cell], state: State, metric: Metric, has_legend: bool) -> go.Scatter:
    values = [cell.params[name] for cell in cells]
    return go.Scatter(
        x=[write_value(value) if isinstance(value, str | bool) else value for value in values],
        y=[factor_of(metric) * float(cell.value or 0.0) for cell in cells],
        mode="markers", marker={"color": COLORS[state], "size": 7, "opacity": 0.75}, name=state.value,
        legendgroup=state.value, showlegend=has_legend and bool(cells), hoverinfo="text",
        hovertext=[f"{describe_point(cell.params)}<br>{metric.format(cell.value)}" for cell in cells],
    )  # fmt: skip


def _axis(overview: Overview, name: str) -> dict[str, object]:
    """How the axis of a parameter is divided; choices are in the order of the study file."""
    dimension = overview.record.spec.dimensions.get(name)
    if dimension is None:
        return {}
    if dimension.choices:
        places = [write_value(value) for value in dimension.choices]
        return {"type": "category", "categoryorder": "array", "categoryarray": places}
    return {"type": "log" if dimension.log else "linear"}
