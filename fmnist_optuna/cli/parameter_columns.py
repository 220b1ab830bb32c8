"""Tables of trials with a column for each parameter, and which parameters go without one where not all fit.

Owns the choice: bars go first, then parameters that every row has alike, then the least important ones. Knows no study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table

from fmnist_optuna.cli.console import header_lines, make_table, out
from fmnist_optuna.wording import count, format_params, format_value

NARROWEST_TEXT = 16  # characters that a column of running text may be wrapped to: "cut at epoch 128" stays whole

Rows = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Column:
    """A column that is always there.

    Args:
        header: Its words, parted by underscores, stand below each other.
        cells: One text for each row.
        is_right: Whether it is aligned to the right, as numbers are.
        is_text: Whether it may be wrapped, as it holds no number.
        is_picture: Whether it only draws what another column says: it goes before any parameter does.
    """

    header: str
    cells: Sequence[str]
    is_right: bool = True
    is_text: bool = False
    is_picture: bool = False

    @property
    def width(self) -> int:
        """Characters that it takes, or needs at least if it may be wrapped."""
        widest = max(map(cell_len, (*header_lines(self.header), *self.cells)))
        return min(widest, max(NARROWEST_TEXT, cell_len(self.header))) if self.is_text else widest


@dataclass(frozen=True)
class ParameterOrder:
    """Which parameters keep their columns longest.

    Args:
        names: Of the study's parameters, in the order of its file: the last ones go first.
        find_importances: The share of parameters, by which they are ordered before; asked only where not all columns
            fit, as it takes time. None where it is not to be known.
        is_wide: Whether all have a column, however wide the table becomes.
    """

    names: Sequence[str]
    find_importances: Callable[[], Mapping[str, float]] | None = None
    is_wide: bool = False

    def sort(self, names: Sequence[str]) -> list[str]:
        """Parameters, the most important one first; those of which nothing is known come in the file's order."""
        shares = {} if self.find_importances is None else self.find_importances()
        places = {name: place for place, name in enumerate(self.names)}
        return sorted(names, key=lambda name: (-shares.get(name, 0.0), places.get(name, len(places))))


@dataclass(frozen=True)
class Choice:
    """Which parameters have a column.

    Args:
        names: Those that have one, from left to right.
        same: Those without, as every row has the same value.
        left_out: The others without, the most important one first.
    """

    names: Sequence[str]
    same: Mapping[str, object]
    left_out: Sequence[str] = ()

    def describe_same(self) -> str:
        """The parameters that every row has alike, in one line; "" for none."""
        return f"The same in every row: {format_params(self.same)}" if self.same else ""

    def describe(self) -> list[str]:
        """The lines that stand above the table: what it leaves out, and how that is seen."""
        lines = [self.describe_same()] if self.same else []
        if self.left_out:
            further = count(len(self.left_out), "more parameter")
            lines.append(f"{further}: {', '.join(self.left_out)}; `--wide` shows all")
        return lines


def choose_columns(rows: Rows, order: ParameterOrder, room: int, gap: int) -> Choice:
    """Choose the parameters that have a column.

    Args:
        rows: The parameters of each row.
        room: Characters that their columns may take together, with the spaces before them.
        gap: Spaces between two columns.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    widths = {name: gap + _parameter_column(name, rows).width for name in names}
    if order.is_wide or sum(widths.values()) <= room:
        return Choice(names, {})
    values = {name: {repr(row[name]) if name in row else None for row in rows} for name in names}
    same = {name: rows[0][name] for name in names if len(values[name]) == 1}
    varying = [name for name in names if name not in same]
    if sum(widths[name] for name in varying) <= room:
        return Choice(varying, same)
    ranked = order.sort(varying)
    kept: set[str] = set()
    left = room
    for name in ranked:
        if widths[name] > room:  # which would keep all others from having a column
            continue
        left -= widths[name]
        if left < 0:
            break
        kept.add(name)
    return Choice([name for name in varying if name in kept], same, [name for name in ranked if name not in kept])


def _parameter_column(name: str, rows: Rows) -> Column:
    return Column(name, [format_value(row[name]) if name in row else "" for row in rows])


def table_width(columns: Sequence[Column], gap: int = 2) -> int:
    """Characters that a table of some columns takes."""
    return sum(column.width for column in columns) + gap * (len(columns) - 1)


def make_trials_table(
    before: Sequence[Column], rows: Rows, after: Sequence[Column], order: ParameterOrder, gap: int = 2
) -> tuple[Table, Choice]:
    """A table with the parameters between other columns, as wide as the terminal, or 80 characters where there is none.

    Args:
        before: Columns to the left of the parameters; at least one.
        rows: The parameters of each row.
        after: Columns to the right of them.
        gap: Spaces between two columns; one where not all fit.

    Returns:
        The table, and which parameters have a column.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    everything = [*before, *(_parameter_column(name, rows) for name in names), *after]
    if not order.is_wide and table_width(everything, gap) > out.width:
        gap, after = 1, [column for column in after if not column.is_picture]
    choice = choose_columns(rows, order, out.width - table_width([*before, *after], gap), gap)
    parameters = [_parameter_column(name, rows) for name in choice.names]
    columns = [*before, *parameters, *after]
    right = [column.header for column in columns if column.is_right]
    table = make_table(*(column.header for column in columns), right=right, gap=gap)
    for column, shown in zip(columns, table.columns, strict=True):
        shown.no_wrap = not column.is_text  # so that running text alone is wrapped where it is too long
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table, choice


def print_trials_table(table: Table, choice: Choice, order: ParameterOrder) -> None:
    """Print a table below what it leaves out; a wide one with as many characters to the line as it takes."""
    for line in choice.describe():
        out.print(line)
    if order.is_wide:
        unlimited = out.options.update(max_width=1_000_000)
        table.width = max(out.width, out.measure(table, options=unlimited).maximum)
        for column in table.columns:
            column.no_wrap = True
    out.print(table, crop=not order.is_wide)
