"""Standard output for people: the console, and the small parts that tables and lines are made of.

Everything fits 80 columns.
"""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fmnist_optuna.wording import format_params

if TYPE_CHECKING:
    from fmnist_optuna.search.cell import Params
    from fmnist_optuna.study.records import StudyRecord

BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 20  # characters
EIGHTHS = " ▏▎▍▌▋▊▉"
KEPT = "\0"  # in the place of a space at which no line is broken


class _Out(Console):
    def on_broken_pipe(self) -> None:
        """Leave `... | head` to the command's own end; rich would exit with 1."""
        raise BrokenPipeError


out = _Out(highlight=False, soft_wrap=False, emoji=False, markup=False)


def answer_on_stderr() -> None:
    """Let answers for people go to stderr from now on: something else has stdout."""
    out.stderr = True


def describe_study(record: "StudyRecord") -> str:
    """The study's name, with what must be known of its numbers: that they are of drawn images, or of images seen."""
    seen = f"validation {record.info.noun}s trained on" if record.is_on_all_data else ""
    notes = [note for note in (record.info.warning if record.info.is_demo else "", seen) if note]
    return f"{record.name} ({'; '.join(notes)})" if notes else record.name


def describe_teacher(record: "StudyRecord", params: "Params") -> list[str]:
    """The line that qualifies the numbers of a cell which learned from another study; none of one without a teacher."""
    teacher = record.teacher_of(params)
    return [] if teacher is None else [f"  learned from {teacher.describe()}"]


def print_params(params: Mapping[str, object], more: str = "") -> None:
    """Parameters below a headline, in as many lines as they take; a name and its value stand together.

    Args:
        more: What follows them.
    """
    pairs = [format_params({name: value}).replace(" ", KEPT) for name, value in params.items()]
    lines = textwrap.wrap(
        ", ".join(pairs) + more, out.width, initial_indent="  ", subsequent_indent="  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    for line in lines:
        out.print(line.replace(KEPT, " "), soft_wrap=True)


def header_lines(column: str) -> list[str]:
    """A header with a line for each word; one of a single letter stands beside the next: `n hidden`, `layers`."""
    return re.sub(r"(^|_)([^_])_(?=[^_])", r"\1\2 ", column).split("_")


def make_table(*columns: str, right: Sequence[str] = (), gap: int = 2) -> Table:
    """An empty table without lines.

    Args:
        columns: Their headers; a long parameter's name stands in several lines, so that the table fits 80 columns.
        right: Headers of the columns that are aligned to the right.
        gap: Spaces between two columns.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            "\n".join(header_lines(column)), justify="right" if column in right else "left", overflow="fold"
        )
    return table


def sparkline(values: Sequence[float]) -> str:
    """The last values as a small curve between their smallest and largest."""
    shown = [value for value in values[-SPARKLINE_WIDTH:] if not math.isnan(value)]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1))] for value in shown)


def bar(value: float | None, low: float, high: float, width: int) -> str:
    """A bar of up to `width` characters, empty at `low` and full at `high`; never empty for a value in between."""
    if value is None or math.isnan(value):
        return ""
    span = (high - low) or 1.0
    eighths = max(1, round(8 * width * min(1.0, max(0.0, (value - low) / span))))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def find_bar_ends(values: Iterable[float | None]) -> tuple[float, float]:
    """The values at which bars are empty and full; one far below the middle does not make all the others look alike."""
    there = sorted(value for value in values if value is not None and not math.isnan(value))
    if not there:
        return 0.0, 1.0
    low = max(there[0], there[-1] - 3 * (there[-1] - there[len(there) // 2]))
    return min(low, there[-1] - 1e-4), there[-1]
