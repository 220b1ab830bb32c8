"""Tables of the benchmarks, in Markdown that is also readable as it stands."""

from collections.abc import Mapping, Sequence
from typing import Any


def print_machine(machine: Mapping[str, str]) -> None:
    print(", ".join(f"{name} {value}" for name, value in machine.items()))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Text to the left, numbers to the right."""
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    is_text = [value[:1].isalpha() for value in texts[0]]
    print(f"\n{title}\n")
    print_row(head, widths, is_text)
    rules = ["-" * width if left else "-" * (width - 1) + ":" for width, left in zip(widths, is_text, strict=True)]
    print_row(rules, widths, is_text)
    for row in texts:
        print_row(row, widths, is_text)


def print_row(values: Sequence[str], widths: Sequence[int], is_text: Sequence[bool]) -> None:
    padded = [
        value.ljust(width) if left else value.rjust(width)
        for value, width, left in zip(values, widths, is_text, strict=True)
    ]
    print(f"| {' | '.join(padded)} |")


def yes_or_no(value: bool) -> str:
    return "yes" if value else "NO"
