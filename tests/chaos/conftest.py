"""Kills, stalls and outages: what all chaos tests share, and the table of what was done to how many cells."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mutations
import pytest
from commands import Site, make_site
from postgres_server import NoServerError, PostgresServer, running_server

COLUMNS = ("cells", "kills", "stalls", "outages", "lost", "doubled", "stuck")

mutations.apply_from_environment()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Postgres the artifacts go below the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of the module's own, to be stopped and started; it keeps what it has committed."""
    request.getfixturevalue("postgres_server")  # says what it means that there is none
    try:
        with running_server(options=()) as started:
            yield started
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def new_site(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Site]:
    """Makes the folder and the database of a study with real trials: `new_site("sqlite", n_cells=4, lease=6)`."""

    def new(database: str, n_cells: int, lease: float = 60.0, **more: Any) -> Site:
        url = request.getfixturevalue("server").url if database == "postgres" else None
        return make_site(tmp_path / "site", url, n_cells, lease, **more)

    return new


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
