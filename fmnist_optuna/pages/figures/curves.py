"""The learning curves of all trials: accuracy by epoch on the validation and on the training images."""

from collections.abc import Sequence

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
    finish_figure,
)
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.study.attempts import rank_attempt

N_CURVES = 60  # at most; of more trials some are left out
VALIDATION, TRAINING = 1, 2  # columns of the figure

STAR = {"symbol": "star", "size": 9, "color": ORANGE, "line": {"width": 1, "color": BLUE}}
CROSS = {"symbol": "x", "size": 8, "color": GREY}
RING = {"symbol": "circle-open", "size": 8, "color": BLUE}
SQUARE = {"symbol": "square", "size": 7, "color": PURPLE}


def draw_curves(overview: Overview) -> tuple[go.Figure, str]:
    """Draw one line for each trial; crosses end those that were pruned or cut at a rung, stars mark kept epochs.

    Rungs are thin upright lines, at which squares mark the trials that are parked.

    Returns:
        The figure, and a sentence about the trials that it leaves out, if any.
    """
    drawn = [attempt for attempt in overview.attempts if attempt.epochs and attempt.state is not State.FAILED]
    shown = _choose(drawn)
    validation = "validation, trained on" if overview.record.is_on_all_data else "validation"
    titles = (validation, "training (with dropout)")
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, shared_yaxes=True)
    winner = None if overview.winner is None else overview.winner.trial
    for attempt in sorted(shown, key=lambda attempt: attempt.number == winner):  # the winner's line lies above all
        _draw_trial(figure, attempt, is_winner=attempt.number == winner)
    _draw_marks(figure, shown, overview.record.spec.training.max_epochs)
    for step in () if overview.climb is None else overview.climb.steps:
        figure.add_vline(x=step.rung, line={"color": FAINT, "width": 1, "dash": "dot"}, layer="below")
    figure.update_xaxes(title_text="epoch", title_standoff=4, rangemode="tozero")
    figure.update_yaxes(title_text="accuracy, %", col=1)
    figure.update_layout(legend={"orientation": "h", "y": -0.2})
    finish_figure(figure, height=420)
    left_out = len(drawn) - len(shown)
    return (
        figure,
        f"The best {len(shown) // 2} trials and as many others; {left_out} more are left out." if left_out else "",
    )


def _choose(attempts: Sequence[Attempt]) -> list[Attempt]:
    """All, or the best half of N_CURVES and the other half evenly from the rest."""
    if len(attempts) <= N_CURVES:
        return list(attempts)
    ranked = sorted(attempts, key=rank_attempt)
    best, rest = ranked[: N_CURVES // 2], ranked[N_CURVES // 2 :]
    return best + [rest[round(place)] for place in np.linspace(0, len(rest) - 1, N_CURVES - len(best))]


def _draw_trial(figure: go.Figure, attempt: Attempt, is_winner: bool) -> None:
    """One line in each half of the figure."""
    name = f"trial {attempt.number}: {describe_point(attempt.params)}"
    line = {"color": ORANGE if is_winner else STATE_COLORS[attempt.standing], "width": 3 if is_winner else 1}
    for column, values in (
        (VALIDATION, [100 * epoch.val_accuracy for epoch in attempt.epochs]),
        (TRAINING, [100 * epoch.train_accuracy for epoch in attempt.epochs]),
    ):
        figure.add_trace(
            go.Scatter(
                x=[epoch.epoch + 1 for epoch in attempt.epochs], y=values, mode="lines", line=line,
                opacity=1.0 if is_winner else 0.6, hovertemplate=f"{name}<br>epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
                name="the winner", showlegend=is_winner and column == VALIDATION,
            ),
            row=1, col=column,
        )  # fmt: skip


def _draw_marks(figure: go.Figure, attempts: Sequence[Attempt], max_epochs: int) -> None:
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
                    x=[epoch for epoch, _ in points], y=[value for _, value in points], mode="markers", marker=marker,
                    name=label, hoverinfo="skip",
                ),
                row=1, col=VALIDATION,
            )  # fmt: skip


def _find_end(attempt: Attempt) -> tuple[int, float]:
    """The last epoch (from 1) and its val_accuracy in percent."""
    return _find_point(attempt, len(attempt.epochs) - 1)


def _find_kept(attempt: Attempt) -> tuple[int, float]:
    """The epoch (from 1) whose weights were kept, and its val_accuracy in percent."""
    last = len(attempt.epochs) - 1
    kept = attempt.attributes.best_epoch
    return _find_point(attempt, last if kept is None else min(kept, last))


def _find_point(attempt: Attempt, index: int) -> tuple[int, float]:
    epoch = attempt.epochs[index]
    return epoch.epoch + 1, 100 * epoch.val_accuracy
