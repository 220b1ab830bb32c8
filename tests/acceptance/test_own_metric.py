"""A study that compares by a metric of the user's own model, through the commands, with weights from its source."""

import json

import optuna
import pytest
from shell import Shell

MODULE = """
import keras
import numpy as np

from fmnist_optuna import Dataset, DatasetInfo

INFO = DatasetInfo("Made-up colours", (8, 8, 3), "float32", (0, 1), ("ruby", "leaf", "sky"))


def draw(n, seed):
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, 3, n)
    images = numbers.uniform(0, 0.9, (n, 8, 8, 3)).astype("float32")
    images[np.arange(n), :, :, labels] += 0.1
    return images, labels


def load():
    images, labels = draw(600, 0)
    return Dataset(INFO, images, labels, *draw(90, 1), train_weights=1.0 + labels)


class MacroF1(keras.metrics.F1Score):
    def update_state(self, y_true, y_pred, sample_weight=None):
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        return super().update_state(keras.ops.one_hot(labels, 3), y_pred, sample_weight)


def build(units: int, rate: float):
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(units, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(3, "softmax")])
    metrics = [MacroF1(average="macro", name="macro_f1"), MacroF1(average=None, name="f1_of_classes")]
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=metrics)
    return model
"""
STUDY = """
name = "by-f1"
data = {source = "user_f1:load", n_validation = 150}
model = {architecture = "user_f1:build"}
grid = {units = [4, 16], rate = [0.01, 0.0001]}
training = {max_epochs = 5}
objective = {metric = "val_macro_f1"}
confirm = {top = 2, seeds = 2}
"""


@pytest.mark.more
def test_a_metric_of_ones_own_goes_all_the_way(shell: Shell) -> None:
    """From `spec check` to the exported model: all of it names the metric, and stock Optuna agrees about the best."""
    shell.write("user_f1.py", MODULE)
    shell.write("f1.toml", STUDY)
    checked = shell("spec", "check", "f1.toml")
    assert checked.code == 0, checked.stderr
    assert "cells are compared by val_macro_f1, the larger the better" in checked.stderr
    trained = shell("run", "f1.toml", "--workers", "2", "--json")
    assert trained.code == 0, trained.stderr
    objective = trained.json["objective"]
    assert (objective["metric"], objective["direction"]) == ("val_macro_f1", "maximize")
    assert 0 < trained.json["test_objective"] < 1
    study = optuna.load_study(study_name="by-f1", storage=f"sqlite:///{shell.database}")
    assert (study.best_value, study.best_trial.number) == (objective["value"], trained.json["trial"])
    assert study.best_trial.user_attrs["val_accuracy"] == trained.json["val_accuracy"]
    assert study.metric_names == ["val_macro_f1"]
    confirmed = shell("confirm", "--json")
    assert confirmed.code == 0, confirmed.stderr
    told = confirmed.json["confirmed"]
    assert told["metric"] == "val_macro_f1"
    assert told["interval"][0] <= told["mean"] <= told["interval"][1]
    assert 0 < told["test_objective_mean"] < 1
    assert told["test_objective_mean"] != told["test_mean"]
    exported = shell("export", "--json")
    assert exported.code == 0, exported.stderr
    manifest = json.loads((shell.folder / "models/by-f1/1/manifest.json").read_text())
    assert manifest["objective"]["metric"] == "val_macro_f1"
    card = (shell.folder / "models/by-f1/1/MODEL_CARD.md").read_text()
    assert "| | macro_f1, the larger the better |" in card
    assert "cells by `val_macro_f1` were trained again" in card
    assert shell("report", "--out", "report.html").code == 0
    assert "validation macro_f1, trial" in (shell.folder / "report.html").read_text()
    assert shell("reproduce", str(trained.json["trial"]), "by-f1", "--json").json["matches"]
    assert shell("verify", "by-f1").code == 0


@pytest.mark.more
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "val_macro_f1",
            "val_auc",
            "what user_f1:build measures (val_accuracy, val_loss, val_macro_f1), but is val_auc",
        ),
        (
            "val_macro_f1",
            "val_f1_of_classes",
            "must be one number, but val_f1_of_classes of user_f1:build has the shape",
        ),
        ("max_epochs = 5", 'class_weight = "balanced"', 'training.class_weight must be "none" where data.source gives'),
    ],
)
def test_what_cannot_be_followed_makes_no_study(shell: Shell, old: str, new: str, words: str) -> None:
    """`spec check`, `run` and `init` refuse it in the same line."""
    shell.write("user_f1.py", MODULE)
    shell.write("f1.toml", STUDY.replace(old, new))
    for command in (("spec", "check"), ("run",), ("init",)):
        answer = shell(*command, "f1.toml")
        assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
        assert words in answer.errors[0]
    assert not (shell.folder / "studies").exists()
