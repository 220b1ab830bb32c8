"""A study whose points are trained over several seeds, through the commands."""

import json
import statistics

import pytest
from shell import TWO_POINTS, Shell, values_by_size

STUDY = f"""\
name = "again"
[data]
source = "synthetic"
[search]
repeats = 2
{TWO_POINTS}[confirm]
top = 2
seeds = 2
"""


@pytest.mark.more
def test_repeats_are_trained_ranked_and_confirmed(shell: Shell) -> None:
    """Each is a trial; the mean decides, the first repeat answers, and seeds of a confirmation are others."""
    shell.write("again.toml", STUDY)
    checked = shell("spec", "check", "again.toml")
    assert "4 cells of dense, 2 repeats of each point" in checked.stdout
    trained = shell("run", "again.toml", "--workers", "2", "--json")
    assert trained.code == 0, trained.stderr
    proof = shell("verify", "again", "--json").json
    assert (proof["ok"], proof["cells"], proof["results"]) == (True, 4, 4)
    trials = shell("trials", "again", "--json").json["trials"]
    values = values_by_size(trials, "training_seed")
    numbers = {(trial["params"]["hidden_size"], trial["params"]["training_seed"]): trial["trial"] for trial in trials}
    best = max(values, key=lambda size: statistics.fmean(values[size].values()))
    assert values[best][1] != values[best][2]
    answer = trained.json
    assert answer["params"] == {"hidden_size": best, "learning_rate": 0.001, "dropout_rate": 0.25}
    assert (answer["trial"], answer["val_accuracy"]) == (numbers[best, 1], values[best][1])
    assert answer["repeats"]["values"] == [values[best][1], values[best][2]]
    assert shell("status", "again", "--json").json["best"]["val_accuracy"] == answer["repeats"]["mean"]
    confirmed = shell("confirm", "again", "--json")
    assert confirmed.code == 0, confirmed.stderr
    seeds = {trial["params"]["training_seed"] for trial in shell("trials", "again/confirm", "--json").json["trials"]}
    assert seeds == {3, 4}
    assert all("training_seed" not in each["params"] for each in confirmed.json["candidates"])
    assert "mean of repeats" in shell("best", "again").stdout
    exported = shell("export", "again", "--json")
    assert exported.code == 0, exported.stderr
    folder = shell.folder / "models" / "again" / "1"
    assert json.loads((folder / "manifest.json").read_text())["repeats"] == answer["repeats"]
    assert "| validation, mean of 2 repeats | " in (folder / "MODEL_CARD.md").read_text()
    assert shell("report", "again").code == 0
