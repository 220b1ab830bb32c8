"""The look that all figures share: colours, size and background, and how a parameter's value is written.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart (the blue is a little lighter
here, so that it is seen on black), and viridis for values. Backgrounds are transparent, because a page may be light or
dark; whatever is not a datum takes the page's own colour.
"""

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np
import plotly.graph_objects as go

from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.search.cell import Params, ParamValue, canonical_json
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric

BLUE, ORANGE, GREEN, VERMILION, GREY = "#2f8fcf", "#E69F00", "#009E73", "#D55E00", "#8a8f98"
PURPLE = "#CC79A7"
FAINT = "rgba(128,128,128,0.55)"  # of lines that mark a rung
STATE_COLORS = {
    State.COMPLETE: BLUE,
    State.PRUNED: GREY,
    State.FAILED: VERMILION,
    State.RUNNING: GREEN,
    State.PARKED: PURPLE,
    State.WAITING: "#c9ccd1",
}
HEIGHT = 360  # pixels of a figure, unless its content asks for more


def finish_figure(figure: go.Figure, height: int) -> None:
    """Give a figure the common look.

    Args:
        height: In pixels.
    """
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


def factor_of(metric: Metric) -> int:
    """What a value is drawn times: an accuracy in percent."""
    return 100 if metric.is_accuracy else 1


def title_of(name: str, metric: Metric) -> str:
    """What stands at an axis of such values: their name, with its unit."""
    return f"{name}, %" if metric.is_accuracy else name


def find_color_range(values: Sequence[float], metric: Metric = VAL_ACCURACY) -> tuple[float, float]:
    """Ends of a colour scale for values; one far worse than the others (Tukey's fence) does not make them look alike.

    Args:
        metric: That they are of.

    Returns:
        The smaller value first, whichever is the better one.
    """
    if not values:
        return 0.0, 1.0
    scores = [metric.score(value) for value in values]
    lower, upper = (float(quartile) for quartile in np.quantile(scores, (0.25, 0.75)))
    # Where half are equal there is no fence: it would make all others look like them.
    fence = lower - 1.5 * (upper - lower) if upper > lower else -math.inf
    low, high = sorted(map(metric.value, (max(min(scores), fence), max(scores))))
    return low, high


def list_values(overview: Overview) -> dict[str, list[ParamValue]]:
    """Every value that a cell has of each parameter, in order; numbers come before strings."""
    found: dict[str, list[ParamValue]] = {}
    names = dict.fromkeys(name for cell in overview.cells for name in cell.params) or overview.record.spec.axes
    for name in names:
        values = {cell.params[name] for cell in overview.cells if name in cell.params}
        found[name] = sorted(values, key=lambda value: (isinstance(value, str), value))
    return found


def describe_point(params: Params, names: Iterable[str] | None = None) -> str:
    """Parameters in one line: `hidden_size 128, dropout_rate 0.2`.

    Args:
        names: Of the parameters to write; None for all.
    """
    names = params if names is None else names
    return ", ".join(f"{name} {write_value(params[name])}" for name in names if name in params)


def describe_left_out(what: str, names: Sequence[str]) -> str:
    """What stands below a figure that has not all parameters; "" where it has.

    Args:
        what: The others have: "an axis".
        names: Of the parameters without one.
    """
    return f"Without {what}, as less important: {', '.join(names)}." if names else ""


def write_value(value: object) -> str:
    """A parameter's value as plotly may show it, which would take some strings for HTML."""
    if isinstance(value, str):
        return html.escape(value)
    return f"{value:g}" if isinstance(value, float) else canonical_json(value)
