"""Which worker trained what, and when; of a study with rungs, also when each trial was paused there."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.style import ORANGE, STATE_COLORS, describe_point, finish_figure
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.study.climb import Climb

N_TRIALS = 60  # rows at most; those with the fewest epochs have none, and are seen with their workers
N_NAMED = 30  # so many have a label each
GAP = " "  # the empty row between workers and trials
UNITS = {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0}  # of the axis, in seconds
N_UNITS = 2  # the axis has the largest unit of which it is at least so many long


@dataclass(frozen=True)
class Bar:
    """One leg of a trial: from its begin, or from where it went on, to a pause or its end.

    Args:
        attempt: The trial.
        worker: Who trained it meanwhile.
        first: Number of epochs that the trial had when the leg began.
        last: The same when the leg ended.
        began: Seconds since 1970 UTC.
        ended: The same.
    """

    attempt: Attempt
    worker: str
    first: int
    last: int
    began: float
    ended: float


def list_bars(attempt: Attempt, newest: float) -> list[Bar]:
    """The legs of a trial. One that ended with a pause lasted as long as its epochs: when it was paused is not noted.

    Args:
        newest: When anything was last seen of the study, in seconds since 1970 UTC; there a leg in training ends.
    """
    ends = [leg.n_epochs for leg in attempt.legs[1:]]
    bars = []
    for leg, last in zip(attempt.legs, [*ends, len(attempt.epochs)], strict=True):
        trained = sum(epoch.seconds for epoch in attempt.epochs[leg.n_epochs : last])
        bars.append(Bar(attempt, leg.worker, leg.n_epochs, last, leg.began, leg.began + trained))
    if not _is_at_rung(attempt):
        bars[-1] = replace(bars[-1], ended=attempt.ended or max(newest, bars[-1].ended))
    return bars


def draw_timeline(overview: Overview) -> go.Figure | None:
    """Draw a bar for each leg of each trial, on an axis in seconds, minutes or hours. None without a trial.

    A worker has a row, and is idle where it has no bar. In a study with rungs a trial has a row as well, and is paused
    where it has no bar; upright lines say when a rung was decided for the last of its cells.
    """
    attempts = [attempt for attempt in overview.attempts if attempt.began]
    if not attempts:
        return None
    newest = _find_newest(attempts, overview.climb)
    bars = [bar for attempt in attempts for bar in list_bars(attempt, newest)]
    names = {worker: f"worker {place}" for place, worker in enumerate(sorted({bar.worker for bar in bars}), start=1)}
    trials = {} if overview.climb is None else _name_longest(attempts)
    origin = min(bar.began for bar in bars)
    unit = choose_unit(max(bar.ended for bar in bars) - origin)
    figure = _draw_bars(bars, names, trials, (origin, UNITS[unit]))
    figure.update_xaxes(title_text=f"{unit} since the first trial began", title_standoff=4)
    rows = [*names.values(), *([GAP, *trials.values()] if trials else ())]
    named = rows if len(trials) <= N_NAMED else [*names.values()]
    figure.update_yaxes(autorange="reversed", type="category", categoryorder="array", categoryarray=rows)
    figure.update_yaxes(tickvals=named)
    height = 130 + 30 * len(names) if overview.climb is None else 124 + 12 * len(rows)
    finish_figure(figure, height)
    if overview.climb is not None:
        _mark_decisions(figure, overview.climb, (origin, UNITS[unit]))
        figure.update_layout(legend={"y": -60 / height, "yanchor": "top"}, margin={"b": 90})
        figure.update_yaxes(tickfont={"size": 10})  # so that 30 rows have room in a card of the dashboard
    return figure


def _name_longest(attempts: Sequence[Attempt]) -> dict[int, str]:
    """The rows of trials, by trial number: the first of all, or of many those with the most epochs."""
    longest = sorted(attempts, key=lambda attempt: -len(attempt.epochs))[:N_TRIALS]
    return {number: f"trial {number}" for number in sorted(attempt.number for attempt in longest)}


def choose_unit(seconds: float) -> str:
    """One of UNITS for an axis that is so many seconds long."""
    return next((name for name, length in UNITS.items() if seconds >= N_UNITS * length), "seconds")


def _draw_bars(
    bars: Sequence[Bar], workers: Mapping[str, str], trials: Mapping[int, str], scale: tuple[float, float]
) -> go.Figure:
    """Each bar in the row of its worker and, if it has one, that of its trial; trials of a state have a colour.

    Args:
        workers: The row of each worker.
        trials: The row of a trial, by its number.
        scale: Where the axis begins, in seconds since 1970 UTC, and its unit, in seconds.
    """
    (origin, unit), figure = scale, go.Figure()
    drawn = [(bar, workers[bar.worker]) for bar in bars]
    drawn += [(bar, trials[bar.attempt.number]) for bar in bars if bar.attempt.number in trials]
    for state, group in itertools.groupby(sorted(drawn, key=_standing), key=_standing):
        those = list(group)
        figure.add_trace(
            go.Bar(
                base=[(bar.began - origin) / unit for bar, _ in those],
                x=[(bar.ended - bar.began) / unit for bar, _ in those],
                y=[row for _, row in those],
                orientation="h",
                name=state,
                marker={"color": STATE_COLORS[state], "line": {"width": 0.5, "color": "#ffffff"}},
                hovertext=[_describe_bar(bar, workers[bar.worker]) for bar, _ in those],
                hoverinfo="text",
            )
        )
    figure.update_layout(barmode="overlay", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    return figure


def _mark_decisions(figure: go.Figure, climb: Climb, scale: tuple[float, float]) -> None:
    origin, unit = scale
    for step in climb.steps:
        if step.decided_at is not None and step.decided_at > origin:
            figure.add_vline(
                x=(step.decided_at - origin) / unit,
                line={"color": ORANGE, "width": 1, "dash": "dot"},
                annotation={"text": str(step.rung), "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "center"},
            )


def _standing(drawn: tuple[Bar, str]) -> State:
    return drawn[0].attempt.standing


def _is_at_rung(attempt: Attempt) -> bool:
    """Whether its last leg ended with a pause: it is parked, or was cut later."""
    return attempt.rung is not None and attempt.standing in (State.PARKED, State.PRUNED)


def _find_newest(attempts: Sequence[Attempt], climb: Climb | None) -> float:
    decided = [step.decided_at or 0.0 for step in climb.steps] if climb else []
    legs = [leg.began for attempt in attempts for leg in attempt.attributes.legs or ()]
    return max([*(attempt.ended or attempt.began for attempt in attempts), *legs, *decided])


def _describe_bar(bar: Bar, worker: str) -> str:
    """What is shown where the pointer is over a bar.

    Args:
        worker: As the figure names it.
    """
    attempt = bar.attempt
    why = attempt.attributes.reason
    reason = f" ({why})" if why and why != attempt.state else ""
    if _is_at_rung(attempt):
        reason = f" at epoch {attempt.rung}"
    trained = sum(epoch.seconds for epoch in attempt.epochs)
    epochs = f"epochs {bar.first + 1} to {bar.last}" if bar.last > bar.first else "no epoch"
    return (
        f"trial {attempt.number}: {describe_point(attempt.params)}<br>"
        f"{attempt.standing}{reason}, {len(attempt.epochs)} epochs in {trained:.1f} s<br>"
        f"here {epochs}, {worker}, {bar.ended - bar.began:.1f} s"
    )
