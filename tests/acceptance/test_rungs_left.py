"""A study of which only parked cells are left: whoever runs it next decides the rung and ends it."""

import signal
import sqlite3
from pathlib import Path

import pytest
from shell import PACE, SMALL, Shell

pytestmark = pytest.mark.more

PARKED = SMALL.replace("max_epochs = 2", 'max_epochs = 2\ncallbacks = ["pace:make"]').replace(
    'name = "none"', 'name = "ladder"\nfirst_rung = 1'
)
FAIL_THE_OTHER = "UPDATE fmnist_cells SET state = 'failed', token = NULL, trial_id = NULL WHERE state != 'parked'"


def test_a_study_of_parked_cells_alone_is_ended(tmp_path: Path) -> None:
    """The run is killed when one cell is parked, and the other fails for good: nobody is left to come to the rung."""
    shell = Shell(tmp_path)
    shell.write("study.toml", PARKED)
    shell.write("pace.py", PACE)
    shell.write("pace", "1.0")
    with shell.start("run", "study.toml", "--workers", "1") as run:
        shell.wait_for("SELECT * FROM fmnist_cells WHERE state = 'parked'")
        run.signal_group(signal.SIGKILL)
    (tmp_path / "pace").unlink()
    connection = sqlite3.connect(shell.database)
    connection.execute(FAIL_THE_OTHER)
    connection.commit()
    connection.close()
    again = shell("run", "study.toml", "--workers", "1")
    assert again.code == 6, again.stderr  # a cell has failed
    assert shell("status", "--json").json["cells"]["complete"] == 1
    assert list((tmp_path / "studies" / "artifacts").glob("checkpoints")) == []
