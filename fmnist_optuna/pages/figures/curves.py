"""The learning curves of all trials: what the study compares by, and accuracy, by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.style import (
    BLUE,
    FAINT,
    GREY,
    ORANGE,
    PURPLE,
    STATE_COLORS,
    describe_point,
    factor_of,
    finish_figure,
)
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.search.metric import Epoch, Metric
from fmnist_optuna.study.attempts import sort_attempts
from fmnist_optuna.study.records import StudyRecord

N_CURVES = 60  # at most; of more trials some are left out
LEFT, RIGHT = 1, 2  # columns of the figure

STAR = {"symbol": "star", "size": 9, "color": ORANGE, "line": {"width": 1, "color": BLUE}}
CROSS = {"symbol": "x", "size": 8, "color": GREY}
RING = {"symbol": "circle-open", "size": 8, "color": BLUE}
SQUARE = {"symbol": "square", "size": 7, "color": PURPLE}


def draw_curves(overview: Overview) -> tuple[go.Figure, str]:
    """Draw one line for each trial; crosses end those that were pruned or cut at a rung, stars mark kept epochs.

    On the left is what the study compares by, on validation images; on the right the accuracy on training images, or,
    where the study compares by another metric, that on validation images.

    Rungs are thin upright lines, at which squares mark the trials that are parked.

    Returns:
        The figure, and a sentence about the trials that it leaves out, if any.
    """
    drawn = [attempt for attempt in overview.attempts if attempt.epochs and attempt.state is not State.FAILED]
    shown = _choose(drawn, overview.record.metric)
    panels = _Panels.of(overview.record)
    figure = make_subplots(rows=1, cols=2, subplot_titles=panels.titles, shared_yaxes=panels.metric.is_accuracy)
    winner = None if overview.winner is None else overview.winner.own_trial
    for attempt in sorted(shown, key=lambda attempt: attempt.number == winner):  # the winner's line lies above all
        _draw_trial(figure, attempt, panels, is_winner=attempt.number == winner)
    _draw_marks(figure, shown, panels, overview.record.spec.training.max_epochs)
    for step in () if overview.climb is None else overview.climb.steps:
        figure.add_vline(x=step.rung, line={"color": FAINT, "width": 1, "dash": "dot"}, layer="below")
    figure.update_xaxes(title_text="epoch", title_standoff=4, rangemode="tozero")
    figure.update_yaxes(title_text=panels.unit, col=1)
    figure.update_layout(legend={"orientation": "h", "y": -0.2})
    finish_figure(figure, height=420)
    left_out = len(drawn) - len(shown)
    return (
        figure,
        f"The best {len(shown) // 2} trials and as many others; {left_out} more are left out." if left_out else "",
    )


@dataclass(frozen=True)
class _Panels:
    """What the two halves of the figure show.

    Args:
        metric: That the study compares by.
        titles: Of both.
        unit: Of the left one.
    """

    metric: Metric
    titles: tuple[str, str]
    unit: str

    @classmethod
    def of(cls, record: StudyRecord) -> "_Panels":
        """Those of a study."""
        images = "validation, trained on" if record.is_on_all_data else "validation"
        if record.metric.is_accuracy:
            return cls(record.metric, (images, "training (with dropout)"), "accuracy, %")
        name = record.metric.name_in_logs
        return cls(record.metric, (f"{images}: {name}", f"{images}: accuracy, %"), name)

    def left(self, epoch: Epoch) -> float:
        """What is drawn of an epoch on the left: the value, an accuracy in percent."""
        return factor_of(self.metric) * self.metric.value_of(epoch)

    def right(self, epoch: Epoch) -> float:
        """What is drawn of an epoch on the right, in percent."""
        return 100 * (epoch.train_accuracy if self.metric.is_accuracy else epoch.val_accuracy)

    def hover(self, column: int) -> str:
        """How a point is written."""
        return "%{y:.2f} %" if self.metric.is_accuracy or column == RIGHT else "%{y:.4f}"


def _choose(attempts: Sequence[Attempt], metric: Metric) -> list[Attempt]:
    """All, or the best half of N_CURVES and the other half evenly from the rest."""
    if len(attempts) <= N_CURVES:
        return list(attempts)
    ranked = sort_attempts(attempts, metric)
    best, rest = ranked[: N_CURVES // 2], ranked[N_CURVES // 2 :]
    return best + [rest[round(place)] for place in np.linspace(0, len(rest) - 1, N_CURVES - len(best))]


def _draw_trial(figure: go.Figure, attempt: Attempt, panels: _Panels, is_winner: bool) -> None:
    """One line in each half of the figure."""
    name = f"trial {attempt.number}: {describe_point(attempt.params)}"
    mode = "lines" if len(attempt.epochs) > 1 else "markers"  # a line of one point is not seen
    line = {"color": ORANGE if is_winner else STATE_COLORS[attempt.standing], "width": 3 if is_winner else 1}
    for column, values in (
        (LEFT, [panels.left(epoch) for epoch in attempt.epochs]),
        (RIGHT, [panels.right(epoch) for epoch in attempt.epochs]),
    ):
        figure.add_trace(
            go.Scatter(
                x=[epoch.epoch + 1 for epoch in attempt.epochs], y=values, mode=mode, line=line,
                opacity=1.0 if is_winner else 0.6,
                hovertemplate=f"{name}<br>epoch %{{x}}: {panels.hover(column)}<extra></extra>",
                name="the winner", showlegend=is_winner and column == LEFT,
            ),
            row=1, col=column,
        )  # fmt: skip


def _draw_marks(figure: go.Figure, attempts: Sequence[Attempt], panels: _Panels, max_epochs: int) -> None:
    """Mark the ends of the lines, and the epochs whose weights were kept."""
    complete = [attempt for attempt in attempts if attempt.state is State.COMPLETE]
    pruned = [attempt for attempt in attempts if attempt.state is State.PRUNED]
    for label, marker, points in (
        ("cut here", CROSS, [_find_end(a) for a in pruned if a.rung is not None]),
        ("pruned here", CROSS, [_find_end(a) for a in pruned if a.rung is None]),
        ("parked here", SQUARE, [_find_end(a) for a in attempts if a.standing is State.PARKED]),
        ("kept epoch", STAR, [_find_kept(a) for a in complete]),
        ("stopped early here", RING, [_find_end(a) for a in complete if len(a.epochs) < max_epochs]),
    ):
        if points:
            figure.add_trace(
                go.Scatter(
                    x=[each.epoch + 1 for each in points], y=[panels.left(each) for each in points], mode="markers",
                    marker=marker, name=label, hoverinfo="skip",
                ),
                row=1, col=LEFT,
            )  # fmt: skip


def _find_end(attempt: Attempt) -> Epoch:
    """The last epoch."""
    return attempt.epochs[-1]


def _find_kept(attempt: Attempt) -> Epoch:
    """The epoch whose weights were kept."""
    last = len(attempt.epochs) - 1
    kept = attempt.attributes.best_epoch
    return attempt.epochs[last if kept is None else min(kept, last)]
