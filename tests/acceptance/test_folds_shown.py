"""A study with folds through the commands: its winner is trained on all training images before the test is opened."""

import json
import statistics

import pytest
from shell import TWO_POINTS, Shell, values_by_size

STUDY = f"""\
name = "folded"
[data]
source = "synthetic"
folds = 2
{TWO_POINTS}"""


@pytest.mark.more
def test_folds_are_trained_and_the_winner_on_all_images(shell: Shell) -> None:
    """Each fold is a trial; the best mean is trained once more, tested once, exported, reproduced; nothing twice."""
    shell.write("folded.toml", STUDY)
    checked = shell("spec", "check", "folded.toml")
    assert "4 cells of dense, 2 folds of each" in checked.stdout
    assert "Note: no cell is cut, as the mean of a point needs all its folds." in checked.stderr
    trained = shell("run", "folded.toml", "--workers", "2", "--json")
    assert trained.code == 0, trained.stderr
    values = values_by_size(shell("trials", "folded", "--json").json["trials"], "validation_fold")
    best = max(values, key=lambda size: statistics.fmean(values[size].values()))
    answer = trained.json
    assert answer["params"] == {"hidden_size": best, "learning_rate": 0.001, "dropout_rate": 0.25}
    assert answer["val_accuracy"] == answer["folds"]["mean"]
    assert answer["folds"]["values"] == [values[best][1], values[best][2]]
    assert answer["folds"]["trained"] == {"study": "folded/all-data", "trial": 0, "epochs": answer["epochs"]}
    assert answer["test_accuracy"] is not None
    for study, n_cells in (("folded", 4), ("folded/all-data", 1)):
        proof = shell("verify", study, "--json").json
        assert (proof["ok"], proof["cells"], proof["results"]) == (True, n_cells, n_cells)
    assert shell.query("SELECT purpose FROM fmnist_openings") == [("winner",)]
    again = shell("run", "folded.toml", "--json")
    assert (again.code, again.json) == (0, answer)
    told = shell("best", "folded").stdout
    assert "trial 0 of folded/all-data" in told
    assert "on all training images" in told
    refused = shell("confirm", "folded")
    assert (refused.code, "must be one without folds to be confirmed" in refused.stderr) == (2, True)
    exported = shell("export", "folded", "--json")
    assert exported.code == 0, exported.stderr
    folder = shell.folder / "models" / "folded" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["folds"], manifest["trial_study"]) == (answer["folds"], "folded/all-data")
    assert (manifest["val_accuracy"], manifest["trained_on_validation"]) == (None, True)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| validation, mean of 2 folds | " in card
    assert "a number that the folds had fixed" in card
    assert shell("report", "folded").code == 0
    for trial_of in (("1", "folded"), ("0", "folded/all-data")):
        assert shell("reproduce", *trial_of).code == 0
    assert shell.query("SELECT purpose FROM fmnist_openings") == [("winner",)]
