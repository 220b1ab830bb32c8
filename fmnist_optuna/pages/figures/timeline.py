"""Which worker trained what, and when."""

import itertools

import plotly.graph_objects as go

from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.pages.figures.style import STATE_COLORS, describe_point, finish_figure
from fmnist_optuna.pages.overview import Overview


def draw_timeline(overview: Overview) -> go.Figure | None:
    """Draw a bar for each trial, in minutes; a worker is idle where it has none. None without a trial."""
    attempts = [attempt for attempt in overview.attempts if attempt.began]
    if not attempts:
        return None
    origin = min(attempt.began for attempt in attempts)
    newest = max(attempt.ended or attempt.began for attempt in attempts)
    workers = sorted({attempt.worker for attempt in attempts})
    names = {worker: f"worker {place}" for place, worker in enumerate(workers, start=1)}
    figure = go.Figure()
    for state, group in itertools.groupby(sorted(attempts, key=lambda a: a.state), key=lambda a: a.state):
        bars = list(group)
        figure.add_trace(
            go.Bar(
                base=[(a.began - origin) / 60 for a in bars],
                x=[((a.ended or newest) - a.began) / 60 for a in bars],
                y=[names[a.worker] for a in bars],
                orientation="h",
                name=state,
                marker={"color": STATE_COLORS[state], "line": {"width": 0.5, "color": "#ffffff"}},
                hovertext=[_describe_bar(a, newest) for a in bars],
                hoverinfo="text",
            )
        )
    figure.update_layout(barmode="overlay", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(title_text="minutes since the first trial began", title_standoff=4)
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=list(names.values()))
    finish_figure(figure, height=130 + 30 * len(workers))
    return figure


def _describe_bar(attempt: Attempt, newest: float) -> str:
    """What is shown where the pointer is over a bar.

    Args:
        newest: When anything was last seen of the study, in seconds since 1970 UTC; a running trial's bar ends there.
    """
    seconds = (attempt.ended or newest) - attempt.began
    why = attempt.attributes.reason
    reason = f" ({why})" if why and why != attempt.state else ""
    point = describe_point(attempt.params)
    return f"trial {attempt.number}: {point}<br>{attempt.state}{reason}, {seconds:.1f} s, {len(attempt.epochs)} epochs"
