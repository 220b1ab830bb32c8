"""Kills, stalls and outages: what all chaos tests share, and the table of what was done to how many cells."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutations
import pytest

COLUMNS = ("cells", "kills", "stalls", "outages", "lost", "doubled", "stuck")

mutations.apply_from_environment()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Postgres the artifacts go below the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Notes what a test did, for the table at the end: `tally(kills=3, cells=10, ...)`."""

    def note(**counts: int) -> None:
        assert set(counts) <= set(COLUMNS)
        record_property("chaos", counts)

    return note


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Notes a line for below the table."""
    return lambda line: record_property("note", line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One row a test file and database: what was done, and what was lost, doubled or stuck; then the notes."""
    rows: dict[str, Counter[str]] = {}
    notes: list[str] = []
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "chaos":
                rows.setdefault(_row(report.nodeid), Counter()).update(value)
            elif name == "note":
                notes.append(f"{_row(report.nodeid)}: {value}")
    if not rows and not notes:
        return
    terminalreporter.section("chaos")
    width = max(map(len, rows), default=0)
    if rows:
        terminalreporter.write_line(" ".join([" " * width, *(f"{column:>8}" for column in COLUMNS)]))
    for name, counts in sorted(rows.items()):
        terminalreporter.write_line(" ".join([f"{name:{width}}", *(f"{counts[column]:>8,}" for column in COLUMNS)]))
    for line in notes:
        terminalreporter.write_line(line)


def _row(nodeid: str) -> str:
    file, _, test = nodeid.partition("::")
    database = next((f", {name}" for name in ("sqlite", "postgres") if name in test), "")
    return f"{file.rpartition('/test_')[2].removesuffix('.py')}{database}"
