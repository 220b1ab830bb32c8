"""How much each parameter matters within the grid, by PED-ANOVA."""

import plotly.graph_objects as go

from fmnist_optuna.pages.figures.style import BLUE, finish_figure
from fmnist_optuna.pages.overview import Overview


def draw_importance(overview: Overview) -> go.Figure | None:
    """Draw a bar for each parameter; None where the study has no importances yet."""
    if not overview.importances:
        return None
    ordered = sorted(overview.importances.items(), key=lambda item: item[1])
    names, shares = [name for name, _ in ordered], [100 * share for _, share in ordered]
    figure = go.Figure(go.Bar(x=shares, y=names, orientation="h", marker_color=BLUE, texttemplate="%{x:.0f} %"))
    figure.update_xaxes(title_text="importance, %", range=[0, 105], title_standoff=4)
    finish_figure(figure, height=110 + 40 * len(ordered))
    return figure
