"""The learning curve of one trial as an SVG picture, which a note can show."""

import math
from collections.abc import Sequence

from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.pages.figures.style import BLUE, GREY, ORANGE

WIDTH, HEIGHT, MARGIN = 640, 360, 48  # pixels


def draw_learning_curve(attempt: Attempt) -> str:
    """Accuracy by epoch, training and validation, with the kept epoch marked: an SVG picture."""
    series = (
        ("training (with dropout)", GREY, [epoch.train_accuracy for epoch in attempt.epochs]),
        ("validation", BLUE, [epoch.val_accuracy for epoch in attempt.epochs]),
    )
    low, high = _find_ends([value for _, _, values in series for value in values if math.isfinite(value)])
    span, last = high - low, max(1, len(attempt.epochs) - 1)

    def x(index: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * index / last

    def y(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / span

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="24">trial {attempt.number}: accuracy by epoch</text>',
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 12}" text-anchor="end">epoch {len(attempt.epochs)}</text>',
    ]
    for step in range(round(20 * span) + 1):
        value = low + step / 20
        parts.append(f'<path d="M{MARGIN} {y(value):.1f}H{WIDTH - MARGIN}" stroke="#dddddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y(value) + 5:.1f}" text-anchor="end">{100 * value:.0f}</text>')
    if attempt.attributes.best_epoch is not None:
        place = x(attempt.attributes.best_epoch)
        parts.append(f'<path d="M{place:.1f} {MARGIN}V{HEIGHT - MARGIN}" stroke="{ORANGE}" stroke-width="2"/>')
        side, anchor = (6, "start") if place == MARGIN else (-6, "end")  # beside the line, not on the numbers
        parts.append(f'<text x="{place + side:.1f}" y="{HEIGHT - MARGIN - 8}" text-anchor="{anchor}">kept</text>')
    for place, (label, color, values) in enumerate(series):
        points = [(x(index), y(value)) for index, value in enumerate(values) if math.isfinite(value)]
        parts.append(_draw_line(points, color))
        parts.append(f'<text x="{MARGIN + 220 * place}" y="{HEIGHT - 12}" fill="{color}">{label}</text>')
    return "\n".join([*parts, "</svg>"])


def _find_ends(values: Sequence[float]) -> tuple[float, float]:
    """Where the axis of values from 0 to 1 begins and ends: at the next 5 %, and never at the same place."""
    if not values:
        return 0.0, 1.0
    low, high = math.floor(20 * min(values)) / 20, math.ceil(20 * max(values)) / 20
    return (low, high) if low < high else (low - 0.05, high) if low > 0 else (low, high + 0.05)


def _draw_line(points: Sequence[tuple[float, float]], color: str) -> str:
    """A line through points, in pixels; a single one is a dot, as its line would not be seen."""
    if len(points) == 1:
        ((x, y),) = points
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>'
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2.5"/>'
