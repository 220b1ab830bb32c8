"""Every complete cell as one line through its parameters and its value."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.style import (
    HEIGHT,
    ORANGE,
    describe_left_out,
    factor_of,
    find_color_range,
    finish_figure,
    list_values,
    title_of,
    write_value,
)
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.search.cell import ParamValue
from fmnist_optuna.wording import shorten

N_AXES = 7  # beside that of the value: what is written at more of them overlaps
N_TICKS = 10  # about as many values of a parameter are written at its axis
FOUR_DIGITS = ".4~g"  # of a value
LONGEST_TICK, TICK_WIDTH = 36, 6  # characters, and pixels of one
ABSENT = -1  # place of a parameter that a cell does not have


def draw_parallel_coordinates(overview: Overview) -> tuple[go.Figure | None, str]:
    """Draw the lines.

    Returns:
        The figure, None for fewer than two complete cells; and a sentence about the parameters that it leaves out as
        less important, if any.
    """
    complete = [cell for cell in overview.cells if cell.state is State.COMPLETE and cell.value is not None]
    if len(complete) < 2:
        return None, ""
    varying = {name: values for name, values in list_values(overview).items() if len(values) > 1}
    ranked = overview.by_importance(varying)
    shown, left_out = ranked[:N_AXES], ranked[N_AXES:]
    dimensions = [_make_axis(name, values, complete) for name, values in varying.items() if name in shown]
    metric, name = overview.record.metric, overview.record.value_name
    scores = [factor_of(metric) * (cell.value or 0.0) for cell in complete]
    dimensions.append({"label": title_of(name, metric), "values": scores, "tickformat": FOUR_DIGITS})
    if len(set(scores)) == 1:  # Plotly's range about a single value goes beyond 100 %
        dimensions[-1]["tickvals"] = scores[:1]
    low, high = find_color_range(scores, metric)
    worst, best = (0, 1) if metric.direction == "maximize" else (1, 0)  # of the scale
    # Both are seen on white and on black; lines in viridis' colours are not.
    shades = sorted([[worst, "#9aa0a8"], [best, ORANGE]])
    line = {"color": scores, "colorscale": shades, "cmin": low, "cmax": high, "showscale": False}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelfont={"size": 12}))
    finish_figure(figure, height=HEIGHT)
    longest = max((len(text) for text in dimensions[0].get("ticktext", ())), default=0)  # stands left of its axis
    figure.update_layout(margin={"l": max(80, 20 + TICK_WIDTH * longest), "r": 60, "t": 50, "b": 30})
    return figure, describe_left_out("an axis", left_out)


def _make_axis(name: str, values: Sequence[ParamValue], cells: Sequence[Cell]) -> dict[str, Any]:
    """The axis of a parameter, on which its values stand at equal distances.

    Args:
        values: Every one that a cell has, in order.
        cells: Those with a line.
    """
    places = {write_value(value): place for place, value in enumerate(values)}
    ticks = list(range(0, len(values), max(1, len(values) // N_TICKS)))
    found = [places[write_value(cell.params[name])] if name in cell.params else ABSENT for cell in cells]
    ticks = [ABSENT, *ticks] if ABSENT in found else ticks
    return {
        "label": name,
        "values": found,
        "range": [min(0, *found), len(values) - 1],
        "tickvals": ticks,
        "ticktext": ["none" if place == ABSENT else _write_tick(values[place]) for place in ticks],
    }


def _write_tick(value: ParamValue) -> str:
    """A value at its axis, where plotly takes nothing for HTML, unlike in its other figures."""
    return shorten(value, LONGEST_TICK) if isinstance(value, str) else write_value(value)
