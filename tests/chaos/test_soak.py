"""Five hundred trials through four workers: memory stays flat, and nothing is left behind."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from shell import Shell, Started, wait_until_gone

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

N_CELLS = 500
SOAK = """\
name = "soak"
[data]
source = "synthetic"
[grid]
hidden_size = [8]
dropout_rate = [0.0, 0.1, 0.2, 0.3, 0.4]
learning_rate = {rates}
[training]
max_epochs = 1
"""
LOOK_SECONDS = 1.0
FINISH_SECONDS = 1200.0
GROWTH_BYTES = 15 * 2**20  # what a worker may gain between its first and its last quarter: the heap settles


@dataclass
class Watched:
    """What was seen of a process, look by look.

    Args:
        n_bytes: Its private memory.
        n_files: Its open file descriptors.
    """

    n_bytes: list[int] = field(default_factory=list)
    n_files: list[int] = field(default_factory=list)


def watch(run: Started, n_connections: Callable[[], int]) -> tuple[dict[int, Watched], list[int]]:
    """Look at every process of a command until it ends; also how many connections the server has."""
    seen: dict[int, Watched] = {}
    connections: list[int] = []
    while run.process.poll() is None:
        connections.append(n_connections())
        for process in [psutil.Process(run.pid), *run.descendants()]:
            try:
                n_bytes, n_files = process.memory_full_info().uss, process.num_fds()
            except psutil.Error:
                continue
            watched = seen.setdefault(process.pid, Watched())
            watched.n_bytes.append(n_bytes)
            watched.n_files.append(n_files)
        time.sleep(LOOK_SECONDS)
    return seen, connections


def growth(values: Sequence[int]) -> float:
    """From the median of the second quarter, when everything is imported and warm, to that of the last."""
    quarter = len(values) // 4
    return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])


@pytest.fixture(params=["sqlite", "postgres"])
def soak_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage on either database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    return str(request.getfixturevalue("empty_postgres_url"))


def test_five_hundred_trials_leave_nothing_behind(
    soak_url: str, tmp_path: Path, tally: Callable[..., None], note: Callable[[str], None]
) -> None:
    """Memory and descriptors of every worker flat, connections bounded, no temporary file, no process."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    shell = Shell(tmp_path, {"FMNIST_OPTUNA_STORAGE": soak_url, "TMPDIR": str(temporary)})
    rates = [round(0.0001 * number, 4) for number in range(1, N_CELLS // 5 + 1)]
    shell.write("soak.toml", SOAK.format(rates=rates))
    with shell.start_cold("run", "soak.toml", "--workers", "4") as run:
        seen, connections = watch(run, lambda: count_connections(soak_url))
        answer = run.wait(FINISH_SECONDS)
        assert wait_until_gone([psutil.Process(pid) for pid in seen if psutil.pid_exists(pid)], 10) == []
    assert answer.code == 0, answer.stderr
    workers = [watched for watched in seen.values() if len(watched.n_bytes) > 20]
    assert len(workers) >= 6  # four workers, their server, the supervisor
    growths = [growth(watched.n_bytes) for watched in workers]
    note(f"growth of each process in MiB: {[round(n_bytes / 2**20, 1) for n_bytes in growths]}")
    assert max(growths) < GROWTH_BYTES
    assert [growth(watched.n_files) for watched in workers] == [0.0] * len(workers)
    assert max(connections) <= 2 * 5 + 2
    assert count_connections(soak_url) == 0
    assert list(temporary.iterdir()) == []
    proof = shell("verify", "--json").json
    assert (proof["ok"], proof["results"], proof["duplicates"]) == (True, N_CELLS, 0)
    tally(cells=N_CELLS, lost=proof["missing"], doubled=proof["duplicates"], stuck=proof["surplus_trials"])


def count_connections(url: str) -> int:
    """How many connections our programs have to a server; a file has none."""
    if url.startswith("sqlite"):
        return 0
    import psycopg

    ours = "application_name = 'fmnist-optuna' AND datname = current_database()"
    with psycopg.connect(url) as connection:
        found: Any = connection.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}").fetchone()
    return int(found[0])
