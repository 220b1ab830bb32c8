"""Every complete cell as one line through its parameters and its value."""

import plotly.graph_objects as go

from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.style import (
    HEIGHT,
    ORANGE,
    factor_of,
    find_color_range,
    finish_figure,
    list_values,
    title_of,
    write_value,
)
from fmnist_optuna.pages.overview import Overview

N_TICKS = 10  # about as many values of a parameter are written at its axis
ABSENT = -1  # place of a parameter that a cell does not have


def draw_parallel_coordinates(overview: Overview) -> go.Figure | None:
    """Draw the lines; None for fewer than two complete cells."""
    complete = [cell for cell in overview.cells if cell.state is State.COMPLETE and cell.value is not None]
    if len(complete) < 2:
        return None
    dimensions: list[dict[str, object]] = []
    for name, values in list_values(overview).items():
        if len(values) < 2:
            continue
        places = {write_value(value): place for place, value in enumerate(values)}
        shown = list(range(0, len(values), max(1, len(values) // N_TICKS)))
        found = [places[write_value(cell.params[name])] if name in cell.params else ABSENT for cell in complete]
        shown = [ABSENT, *shown] if ABSENT in found else shown
        dimensions.append(
            {
                "label": name,
                "values": found,
                "range": [min(0, *found), len(values) - 1],
                "tickvals": shown,
                "ticktext": ["none" if place == ABSENT else write_value(values[place]) for place in shown],
            }
        )
    metric, name = overview.record.metric, overview.record.value_name
    scores = [factor_of(metric) * (cell.value or 0.0) for cell in complete]
    dimensions.append({"label": title_of(name, metric), "values": scores})
    low, high = find_color_range(scores, metric)
    worst, best = (0, 1) if metric.direction == "maximize" else (1, 0)  # of the scale
    # Both are seen on white and on black; lines in viridis' colours are not.
    shades = sorted([[worst, "#9aa0a8"], [best, ORANGE]])
    line = {"color": scores, "colorscale": shades, "cmin": low, "cmax": high, "showscale": False}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelfont={"size": 12}))
    finish_figure(figure, height=HEIGHT)
    figure.update_layout(margin={"l": 60, "r": 60, "t": 50, "b": 30})
    return figure
