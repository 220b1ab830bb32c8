"""The programs in benchmarks/ that measure the ledger still run: what they reach into is renamed now and then."""

import json
import subprocess
import sys
from pathlib import Path

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
