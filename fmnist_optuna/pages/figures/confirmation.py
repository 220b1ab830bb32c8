"""What the confirmed cells have over fresh seeds."""

import plotly.graph_objects as go

from fmnist_optuna.pages.figures.style import BLUE, GREY, ORANGE, describe_point, factor_of, finish_figure, title_of
from fmnist_optuna.results.confirmation import Confirmation


def draw_confirmation(confirmation: Confirmation) -> go.Figure:
    """Draw the mean of each confirmed cell with its 95 % interval, and every seed as a dot."""
    figure, metric = go.Figure(), confirmation.metric
    factor, point = factor_of(metric), "%{x:.2f} %" if metric.is_accuracy else "%{x:.4f}"
    for candidate in confirmation.candidates:
        name = f"trial {candidate.original.number}"
        low, high = candidate.val.interval
        is_chosen = candidate is confirmation.chosen
        mean = factor * candidate.val.mean
        figure.add_trace(
            go.Scatter(
                x=[factor * value for value in candidate.val.values], y=[name] * len(candidate.val.values),
                mode="markers", marker={"color": GREY, "size": 6}, hovertemplate=f"{point}<extra>a seed</extra>",
                showlegend=False,
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[mean], y=[name], mode="markers", showlegend=False,
                error_x={"type": "data", "array": [factor * high - mean], "arrayminus": [mean - factor * low]},
                marker={"color": ORANGE if is_chosen else BLUE, "size": 11, "symbol": "diamond"},
                hovertemplate=f"{describe_point(candidate.params)}<br>mean {point}<extra></extra>",
            )
        )  # fmt: skip
    name = "accuracy" if metric.is_accuracy else metric.short_name
    figure.update_xaxes(title_text=title_of(f"val {name} over fresh seeds", metric), title_standoff=4)
    figure.update_yaxes(autorange="reversed")
    finish_figure(figure, height=120 + 45 * len(confirmation.candidates))
    return figure
