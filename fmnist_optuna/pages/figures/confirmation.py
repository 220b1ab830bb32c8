"""The accuracies of the confirmed cells over fresh seeds."""

import plotly.graph_objects as go

from fmnist_optuna.pages.figures.style import BLUE, GREY, ORANGE, describe_point, finish_figure
from fmnist_optuna.results.confirmation import Confirmation


def draw_confirmation(confirmation: Confirmation) -> go.Figure:
    """Draw the mean val_accuracy of each confirmed cell with its 95 % interval, and every seed as a dot."""
    figure = go.Figure()
    for candidate in confirmation.candidates:
        name = f"trial {candidate.original.number}"
        low, high = candidate.val.interval
        is_chosen = candidate is confirmation.chosen
        mean = 100 * candidate.val.mean
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
                hovertemplate=f"{describe_point(candidate.original.params)}<br>mean %{{x:.2f}} %<extra></extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="val accuracy over fresh seeds, %", title_standoff=4)
    figure.update_yaxes(autorange="reversed")
    finish_figure(figure, height=120 + 45 * len(confirmation.candidates))
    return figure
