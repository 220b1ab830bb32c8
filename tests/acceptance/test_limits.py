"""`--trial-timeout` and `--memory-limit`: an attempt that breaks a limit is to blame itself."""

import pytest
from shell import Shell

ENDLESS = """
name = "endless"
[data]
source = "synthetic"
[grid]
hidden_size = [16]
dropout_rate = [0.2]
learning_rate = [0.01]
[training]
max_epochs = 30000
patience = 30000
"""


@pytest.mark.slow
def test_a_cell_fails_after_three_attempts_beyond_the_time_limit(shell: Shell) -> None:
    """Two workers, so that another could take the killed one for lost: all three say the limit, and the run exits 6."""
    answer = shell("run", shell.write("endless.toml", ENDLESS), "--workers", "2", "--trial-timeout", "2s")
    assert answer.code == 6
    assert "failed: hidden_size 16, dropout_rate 0.2, learning_rate 0.01: trial time limit of 2 s exceeded" in (
        answer.stderr
    )
    attempts = shell("trials", "--json").json["trials"]
    assert [(attempt["state"], attempt["reason"], attempt["error"]) for attempt in attempts] == [
        ("FAIL", "limit", "trial time limit of 2 s exceeded")
    ] * 3


@pytest.mark.slow
def test_a_worker_beyond_the_memory_limit_is_killed_and_the_study_can_go_on(shell: Shell) -> None:
    """Below what TensorFlow needs no attempt can live: the run gives up, and every reason names the limit."""
    answer = shell("run", shell.write("endless.toml", ENDLESS), "--workers", "1", "--memory-limit", "200m")
    assert answer.code in (1, 6)  # by how far the attempts came: no worker finishes a cell, or the cell fails first
    assert "memory limit of 200 MiB exceeded with" in answer.stderr
    assert shell("status", "--json").json["cells"]["running"] == 0
