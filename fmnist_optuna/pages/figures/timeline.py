"""Which worker trained what, and when; of a study with rungs, how long each trial lived."""

import itertools
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.style import ORANGE, STATE_COLORS, describe_point, finish_figure
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.study.climb import Climb

N_LIVES = 60  # rows at most; of more trials those with the fewest epochs are left out


def draw_timeline(overview: Overview) -> go.Figure | None:
    """Draw a bar for each trial, in minutes. None without a trial.

    Without rungs a worker has a row, and is idle where it has no bar. With them a trial is trained in several legs,
    maybe by several workers, and when each leg was is not recorded: so a trial has a row, its bar is its life with all
    pauses, and upright lines say when rungs were decided.
    """
    attempts = [attempt for attempt in overview.attempts if attempt.began]
    if not attempts:
        return None
    if overview.climb is not None:
        longest = sorted(attempts, key=lambda attempt: -len(attempt.epochs))[:N_LIVES]
        return _draw_lives([attempt for attempt in attempts if attempt in longest], overview.climb)
    workers = sorted({attempt.worker for attempt in attempts})
    names = {worker: f"worker {place}" for place, worker in enumerate(workers, start=1)}
    figure = _draw_bars(attempts, _find_newest(attempts), lambda attempt: names[attempt.worker])
    figure.update_yaxes(categoryarray=list(names.values()))
    finish_figure(figure, height=130 + 30 * len(workers))
    return figure


def _draw_lives(attempts: Sequence[Attempt], climb: Climb) -> go.Figure:
    newest = max([_find_newest(attempts), *(step.decided_at or 0.0 for step in climb.steps)])
    figure = _draw_bars(attempts, newest, lambda attempt: str(attempt.number))
    origin, height = _find_origin(attempts), 160 + 12 * len(attempts)
    for step in climb.steps:
        if step.decided_at is not None and step.decided_at > origin:
            figure.add_vline(
                x=(step.decided_at - origin) / 60,
                line={"color": ORANGE, "width": 1, "dash": "dot"},
                annotation={"text": str(step.rung), "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "center"},
            )
    figure.update_layout(legend={"y": -60 / height, "yanchor": "top"})
    figure.update_yaxes(title_text="trial", type="category", showticklabels=len(attempts) <= N_LIVES // 2)
    figure.update_yaxes(categoryarray=[str(attempt.number) for attempt in attempts])
    finish_figure(figure, height)
    figure.update_layout(margin={"b": 90})
    return figure


def _draw_bars(attempts: Sequence[Attempt], newest: float, row_of: Callable[[Attempt], str]) -> go.Figure:
    """One bar for each trial, in the row that a function names; trials of a state have a colour.

    Args:
        newest: When anything was last seen of the study, in seconds since 1970 UTC; a running trial's bar ends there.
    """
    origin, figure = _find_origin(attempts), go.Figure()
    for state, group in itertools.groupby(sorted(attempts, key=_standing), key=_standing):
        bars = list(group)
        figure.add_trace(
            go.Bar(
                base=[(a.began - origin) / 60 for a in bars],
                x=[((a.ended or newest) - a.began) / 60 for a in bars],
                y=[row_of(a) for a in bars],
                orientation="h",
                name=state,
                marker={"color": STATE_COLORS[state], "line": {"width": 0.5, "color": "#ffffff"}},
                hovertext=[_describe_bar(a, newest) for a in bars],
                hoverinfo="text",
            )
        )
    figure.update_layout(barmode="overlay", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(title_text="minutes since the first trial began", title_standoff=4)
    figure.update_yaxes(autorange="reversed", categoryorder="array")
    return figure


def _standing(attempt: Attempt) -> State:
    return attempt.standing


def _find_origin(attempts: Sequence[Attempt]) -> float:
    return min(attempt.began for attempt in attempts)


def _find_newest(attempts: Sequence[Attempt]) -> float:
    return max(attempt.ended or attempt.began for attempt in attempts)


def _describe_bar(attempt: Attempt, newest: float) -> str:
    """What is shown where the pointer is over a bar."""
    seconds = (attempt.ended or newest) - attempt.began
    why = attempt.attributes.reason
    reason = f" ({why})" if why and why != attempt.state else ""
    if attempt.rung is not None and attempt.standing in (State.PARKED, State.PRUNED):
        reason = f" at epoch {attempt.rung}"
    point, trained = describe_point(attempt.params), sum(epoch.seconds for epoch in attempt.epochs)
    return (
        f"trial {attempt.number}: {point}<br>{attempt.standing}{reason}, {seconds:.1f} s, "
        f"{len(attempt.epochs)} epochs in {trained:.1f} s"
    )
