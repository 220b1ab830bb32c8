"""The programs in benchmarks/ that measure the ledger still run: what they reach into is renamed now and then."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import find_binaries

pytestmark = pytest.mark.more

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_bookkeeping_is_measured(tmp_path: Path) -> None:
    """Two workers finish cells, each exactly once, and every operation has its clock."""
    answer = tmp_path / "answer.json"
    arguments = ("--database", "sqlite", "--workers", "2", "--cells", "100", "--trials", "10", "--json", str(answer))
    subprocess.run([sys.executable, BENCHMARKS / "ledger.py", *arguments], check=True, capture_output=True)
    (row,) = json.loads(answer.read_text())["ours"]
    assert row["ok"]
    assert row["trials"] >= 10
    measured = {operation for operation, (wall, _) in row["operations_ms_wall_cpu"].items() if wall}
    assert measured >= {"claim", "bind", "finish", "epoch", "create", "tell", "report"}


@pytest.mark.parametrize("stock", [(), ("--stock",)], ids=["ours", "stock"])
def test_hundreds_of_workers_are_measured(postgres_url: str, stock: tuple[str, ...]) -> None:
    """Two of them, on a Postgres of their own: each cell has one result, and a claim has its clock."""
    arguments = ("busy", "--workers", "2", "--trials", "6", "--round-trip-ms", "2", *stock)
    command = [sys.executable, str(BENCHMARKS / "hundreds.py"), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    line = json.loads(done.stdout)
    assert line["results"] == line["trials"] >= 6
    assert (line["duplicates"], line["surplus"], line["problems"], line["errors"]) == (0, 0, [], [])
    assert line["claim_ms"]["p50"] >= 6.0  # three round trips


def test_claims_of_the_database_alone_are_measured(postgres_url: str) -> None:
    """By pgbench, if the server came with it: every trial is bound to a cell, and has its rank as its number."""
    if not (find_binaries(None) / "pgbench").exists():
        pytest.skip("there is no pgbench beside this server")
    command = [sys.executable, str(BENCHMARKS / "alone.py"), "--seconds", "2", "--runs", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    line = json.loads(done.stdout)
    assert line["claims"] > 0
    assert (line["failed"], line["of_wrong_rank"]) == (0, 0)
