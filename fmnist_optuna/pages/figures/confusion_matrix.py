"""Which class was taken for which on the test images."""

import html

import plotly.graph_objects as go

from fmnist_optuna.pages.figures.style import finish_figure
from fmnist_optuna.results.evaluation import Evaluation
from fmnist_optuna.wording import format_whole_percent

MOST_LETTERED = 30  # classes; with more there is no room for numbers


def draw_confusion_matrix(evaluation: Evaluation) -> go.Figure:
    """Draw a row for each true class, with the share in percent of its images that got each answer."""
    shares = evaluation.confusion_shares()
    is_lettered = len(shares) <= MOST_LETTERED
    text = [list(map(format_whole_percent, row)) for row in shares]
    percents = [[100 * share for share in row] for row in shares]
    labels = [html.escape(result.label) for result in evaluation.classes]  # plotly takes some HTML for HTML
    figure = go.Figure(
        go.Heatmap(
            x=labels, y=labels, z=percents, zmin=0, zmax=100, colorscale="Viridis", text=text, xgap=1, ygap=1,
            texttemplate="%{text}" if is_lettered else None,
            hovertemplate="%{y} taken for %{x}: %{z:.1f} %<extra></extra>",
            colorbar={"title": "%", "thickness": 12},
        )
    )  # fmt: skip
    # By their type plotly would take names such as "7" for numbers and label every other one.
    axis = {"type": "category", "dtick": 1 if is_lettered else None, "title_standoff": 4}
    figure.update_xaxes(title_text="answer", tickangle=-45, **axis)
    figure.update_yaxes(title_text="true class", autorange="reversed", **axis)
    finish_figure(figure, height=520)
    return figure
