"""A study on colour images of the user's own, through the commands: from the file to what the exported model says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import Shell

MODULE = """
import keras
import numpy as np

from fmnist_optuna import Dataset, DatasetInfo

INFO = DatasetInfo(
    name="Made-up colours",
    image_shape=(12, 10, 3),
    dtype="float32",
    value_range=(0, 1),
    class_names=("ruby", "leaf", "sky"),
    licence="CC0",
)


def draw(n, seed):
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, 3, n)
    images = numbers.uniform(0, 0.4, (n, 12, 10, 3)).astype("float32")
    images[np.arange(n), :, :, labels] += 0.6
    return images, labels


def load():
    return Dataset(INFO, *draw(300, 0), *draw(60, 1))


def unseeded():
    return Dataset(INFO, *draw(300, None), *draw(60, 1))


def build(filters: int, about: DatasetInfo):
    layers = [keras.Input(about.image_shape), keras.layers.Conv2D(filters, 3, activation="relu")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(about.n_classes, "softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    return model
"""
STUDY = """
name = "colours"
data = {source = "user_colours:load", n_validation = 60}
model = {architecture = "user_colours:build"}
grid = {filters = [4, 8]}
training = {max_epochs = 5}
pruner = {name = "none"}
"""


@pytest.fixture
def own(shell: Shell) -> Shell:
    """A folder with the module and the study file."""
    shell.write("user_colours.py", MODULE)
    shell.write("colours.toml", STUDY)
    return shell


@pytest.mark.more
def test_colour_images_go_all_the_way(own: Shell) -> None:
    """Checked, trained, exported, shown pictures of another size, and reported; other data is refused afterwards."""
    checked = own("spec", "check", "colours.toml")
    assert (checked.code, checked.stdout) == (0, "colours.toml: ok, study colours, 2 cells of user_colours:build\n")
    trained = own("run", "colours.toml", "--workers", "2", "--json")
    assert trained.code == 0, trained.stderr
    assert trained.json["test_accuracy"] == 1.0
    assert [result["label"] for result in trained.json["classes"]] == ["ruby", "leaf", "sky"]
    exported = own("export", "--json")
    assert exported.code == 0, exported.stderr
    assert exported.json["dataset"]["image_shape"] == [12, 10, 3]
    blue = np.zeros((40, 60, 3), np.uint8)
    blue[..., 2] = 255
    Image.fromarray(blue).save(own.folder / "blue.png")
    red = np.full((2, 12, 10, 3), 0.2, np.float32)
    red[..., 0] = 0.8
    np.save(own.folder / "red.npy", red)
    predicted = own("predict", "models/colours", "blue.png", "red.npy", "--json")
    assert predicted.code == 0, predicted.stderr
    assert [(image["label"], image["inverted"]) for image in predicted.json["images"]] == [
        ("sky", False),
        ("ruby", False),
        ("ruby", False),
    ]
    assert own("report", "--out", "report.html").code == 0
    assert "Data: Made-up colours." in (own.folder / "report.html").read_text()
    assert own("status", "--json").json["data"]["source"] == "user_colours:load"
    own.write("user_colours.py", MODULE.replace('"ruby"', '"garnet"'))
    for typed, words in (
        (("run", "colours.toml"), 'gives class_names: the study has ["ruby","leaf","sky"], this run ["garnet",'),
        (("reproduce", "0"), "user_colours:load gives other images, labels or info, fingerprint"),
    ):
        refused = own(*typed)
        assert (refused.code, len(refused.errors)) == (6, 1), refused.stderr
        assert words in refused.errors[0]


@pytest.mark.more
def test_a_function_that_draws_anew_makes_no_study(own: Shell) -> None:
    """Nobody could go on with it: refused before a storage is there, as is a split without enough images."""
    own.write("colours.toml", STUDY.replace("colours:load", "colours:unseeded"))
    for command in (("spec", "check"), ("run",)):
        answer = own(*command, "colours.toml")
        assert (answer.code, len(answer.errors)) == (4, 1), answer.stderr
        assert "data.source must give the same data each time, but user_colours:unseeded gave other" in answer.stderr
    own.write("colours.toml", STUDY.replace("n_validation = 60", "n_validation = 298"))
    answer = own("spec", "check", "colours.toml")
    assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
    assert "data.n_validation must be 3 to 297 for 300 training images of 3 classes, but got 298" in answer.stderr
    assert not (own.folder / "studies").exists()


def test_a_built_in_split_is_checked_early(shell: Shell) -> None:
    """Fashion-MNIST need not be there for it."""
    shell.write("few.toml", "data = {n_validation = 9}\n")
    answer = shell("spec", "check", "few.toml")
    assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
    assert "data.n_validation must be 10 to 59,990 for 60,000 training images of 10 classes, but got 9" in answer.stderr


def test_an_older_export_still_says_what_it_knows(tmp_path: Path) -> None:
    """A manifest without a data set is that of Fashion-MNIST; one that was altered is refused."""
    from fmnist_optuna.errors import DataError
    from fmnist_optuna.export.prediction import ExportedModel

    (tmp_path / "saved_model.pb").touch()
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"labels": list("abcdefghij"), "synthetic": False}))
    model = ExportedModel(tmp_path)
    assert (model.info, model.labels) == (None, tuple("abcdefghij"))
    manifest.write_text(json.dumps({"dataset": {"name": "x"}}))
    with pytest.raises(DataError, match=r"has a manifest.json that was altered: A DatasetInfo must be kept as a table"):
        ExportedModel(tmp_path)
