"""`[training] threads`: how many each worker has, how many workers there are then, and that the numbers come again."""

import json

import pytest
from shell import Shell

from fmnist_optuna.processes.cores import usable_cores

THREADS = max(2, usable_cores())
STUDY = f"""\
name = "threads"
[data]
source = "synthetic"
n_validation = 200
[model]
architecture = "conv"
width_1 = 4
width_2 = 8
width_3 = 8
[grid]
learning_rate = [0.01, 0.001]
[training]
batch_size = 500
max_epochs = 2
threads = {THREADS}
"""


@pytest.mark.more
def test_threads_are_given_recorded_and_reproduced(shell: Shell) -> None:
    """As many threads as cores: one worker trains all cells, the trials say so, and `reproduce` has as many."""
    shell.write("threads.toml", STUDY)
    answer = shell("run", "threads.toml")
    assert answer.code == 0, answer.stderr
    query = "SELECT value_json FROM trial_user_attributes WHERE key = '{}'"
    environments = [json.loads(value) for (value,) in shell.query(query.format("environment"))]
    assert [(each["threads"], each["tf_threads"]) for each in environments] == [(THREADS, f"{THREADS} and 1")] * 2
    assert len(shell.query("SELECT DISTINCT value_json FROM trial_user_attributes WHERE key = 'worker'")) == 1
    again = shell("reproduce", "0", "--json")
    assert (again.code, again.json["matches"], again.json["environment_differences"]) == (0, True, [])
    shell.write("other.toml", STUDY.replace(f"threads = {THREADS}", f"threads = {THREADS + 1}"))
    refused = shell("run", "other.toml")
    assert refused.code == 2
    assert f"training.threads: the study has {THREADS}, this run {THREADS + 1}" in refused.stderr
