"""Every complete cell as one line through its parameters and its val_accuracy."""

import plotly.graph_objects as go

from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.style import (
    HEIGHT,
    ORANGE,
    find_color_range,
    finish_figure,
    list_values,
    write_value,
)
from fmnist_optuna.pages.overview import Overview

N_TICKS = 10  # about as many values of a parameter are written at its axis
ABSENT = -1  # place of a parameter that a cell does not have


def draw_parallel_coordinates(overview: Overview) -> go.Figure | None:
    """Draw the lines; None for fewer than two complete cells."""
    complete = [cell for cell in overview.cells if cell.state is State.COMPLETE and cell.val_accuracy is not None]
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
    scores = [100 * float(cell.val_accuracy or 0.0) for cell in complete]
    dimensions.append({"label": f"{overview.record.accuracy_name}, %", "values": scores})
    low, high = find_color_range(scores)
    shades = [[0, "#9aa0a8"], [1, ORANGE]]  # both are seen on white and on black; lines in viridis' colours are not
    line = {"color": scores, "colorscale": shades, "cmin": low, "cmax": high, "showscale": False}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelfont={"size": 12}))
    finish_figure(figure, height=HEIGHT)
    figure.update_layout(margin={"l": 60, "r": 60, "t": 50, "b": 30})
    return figure
