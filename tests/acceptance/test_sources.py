"""Data of one's own in files, through the commands: from what is on disk to what the exported model says."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shell import Shell

from fmnist_optuna.data.fashion_mnist import find_data_dir
from fmnist_optuna.settings import DATA

N_COLUMNS, N_CLASSES = 7, 300
STUDY = """
name = "{name}"
[data]
source = "{source}"
n_validation = {n_validation}
[grid]
hidden_size = [16, 24]
dropout_rate = [0.0]
learning_rate = [0.01]
[training]
max_epochs = {n_epochs}
[pruner]
name = "none"
"""


def write_study(shell: Shell, name: str, source: str, n_validation: int, n_epochs: int = 3) -> Path:
    return shell.write(
        f"{name}.toml", STUDY.format(name=name, source=source, n_validation=n_validation, n_epochs=n_epochs)
    )


def draw_rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 300 classes, each about a place of its own, in units of very different size."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES
    places = np.random.default_rng(0).normal(0, 3, (N_CLASSES, N_COLUMNS))
    rows = (places[labels] + random.normal(0, 1, (n, N_COLUMNS))) * 10.0 ** np.arange(-3, 4)
    return rows, np.array([f"kind {label:03}" for label in labels])


@pytest.mark.more
def test_rows_of_many_classes_go_all_the_way(shell: Shell) -> None:
    """No matrix and no pictures, but tables of the worst; labels are texts; a table is predicted, and learnt from."""
    (rows, labels), (tests, truth) = draw_rows(3_000, 1), draw_rows(600, 2)
    tests[:6] = rows[:6]
    np.savez(shell.folder / "rows.npz", x_train=rows, y_train=labels, x_test=tests, y_test=truth)
    write_study(shell, "rows", "npz:rows.npz", 600, n_epochs=8)
    trained = shell("run", "rows.toml", "--workers", "2", "--json")
    assert trained.code == 0, trained.stderr
    assert "6 of 600 test rows are among those to train or validate on, bit for bit" in trained.stderr
    accuracy = trained.json["test_accuracy"]
    exported = shell("export", "--json")
    assert exported.code == 0, exported.stderr
    assert exported.json["dataset"]["image_shape"] == [N_COLUMNS]
    files = {path.name for path in (shell.folder / exported.json["folder"]).iterdir()}
    assert ("MODEL_CARD.md" in files, "confusion_matrix.png" in files) == (True, False)
    card = next(shell.folder.rglob("MODEL_CARD.md")).read_text()
    for words in (
        "A classifier of rows of 7 numbers into 300 classes",
        "| 600 test rows | ",
        "The commonest confusions:",
        "| class | taken for | rows | of its rows |",
        "The 20 of 300 class",
        "| class | rows | recall | precision |",
    ):
        assert words in card
    assert "images" not in card
    said = shell("best").stdout
    assert ("600 rows" in said, "images" in said) == (True, False)
    np.savetxt(shell.folder / "new.csv", tests, delimiter=",", header=",".join("abcdefg"), comments="")
    predicted = shell("predict", "models/rows", "new.csv", "--json")
    assert predicted.code == 0, predicted.stderr
    found = [image["label"] for image in predicted.json["images"]]
    assert np.mean(np.array(found) == truth) == pytest.approx(accuracy)
    assert shell("report", "--out", "report.html").code == 0
    page = (shell.folder / "report.html").read_text()
    assert ("The commonest confusions:" in page, 'id="confusion"' in page, "surest mistakes" in page) == (
        True,
        False,
        False,
    )
    study = (shell.folder / "rows.toml").read_text().replace('name = "rows"', 'name = "student"')
    shell.write("student.toml", study.replace("max_epochs = 8", 'max_epochs = 1\nteacher = "rows"'))
    assert shell("run", "student.toml", "--workers", "2").code == 0
    refused = shell("predict", "models/rows", "report.html")
    assert (refused.code, "must hold rows of 7 numbers, as .csv or .npy" in refused.stderr) == (4, True)


def write_pictures(folder: Path, n_each: int = 30) -> None:
    """Noise in colour that is bright on its left or on its right."""
    random = np.random.default_rng(0)
    for name, side in (("left", slice(0, 5)), ("right", slice(5, 10))):
        (folder / name).mkdir(parents=True)
        for number in range(n_each):
            pixels = random.integers(0, 60, (12, 10, 3), dtype=np.uint8)
            pixels[:, side] += 150
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.mark.more
def test_pictures_may_lie_elsewhere_on_another_machine(shell: Shell) -> None:
    """A worker is told by --data-dir in which folder; photographs are fitted; other data is refused."""
    write_pictures(shell.folder / "here" / "pets")
    study = write_study(shell, "pets", "folder:pets", 10, n_epochs=20)
    study.rename(shell.folder / "here" / "pets.toml")  # a relative place begins beside the study file
    begun = shell("init", "here/pets.toml", "--json")
    assert begun.code == 0, begun.stderr
    lost = shell("worker", "pets")
    assert (lost.code, "say in which folder it is (--data-dir DIR)" in lost.stderr) == (4, True), lost.stderr
    (shell.folder / "mnt").mkdir()
    (shell.folder / "here" / "pets").rename(shell.folder / "mnt" / "pets")
    worked = shell("worker", "pets", "--data-dir", "mnt")
    assert worked.code == 0, worked.stderr
    ended = shell("run", "here/pets.toml", "--data-dir", "mnt", "--json")
    assert ended.code == 0, ended.stderr
    assert ended.json["test_accuracy"] == 1.0
    assert shell("export", "--data-dir", "mnt").code == 0
    photograph = np.zeros((240, 200), np.uint8)  # grey, and twenty times as large
    photograph[:, 100:] = 200
    Image.fromarray(photograph).save(shell.folder / "photo.jpg")
    predicted = shell("predict", "models/pets", "photo.jpg", "--json")
    assert [image["label"] for image in predicted.json["images"]] == ["right"]
    write_pictures(shell.folder / "other" / "pets", n_each=31)
    refused = shell("run", "here/pets.toml", "--data-dir", "other")
    assert (refused.code, len(refused.errors)) == (6, 1), refused.stderr
    assert "data" in refused.errors[0]


@pytest.mark.more
def test_fashion_mnist_in_other_ways_is_the_same_study(shell: Shell) -> None:
    """Its four files by `idx:` and the cache of Keras by `keras:`: the same curves and weights, bit for bit."""
    folder = find_data_dir(Path(os.environ[DATA])) if DATA in os.environ else None
    if folder is None:
        pytest.skip(f"{DATA} must name the folder of Fashion-MNIST for this test.")
    cache = shell.folder / "keras" / "datasets"
    cache.mkdir(parents=True)
    (cache / "fashion-mnist").symlink_to(folder)
    there = shell.with_variables(KERAS_HOME=str(shell.folder / "keras"))
    told: dict[str, Any] = {}
    for name, source, more in (
        ("usual", "fashion-mnist", ("--data-dir", str(folder))),
        ("files", f"idx:{folder}", ()),
        ("cached", "keras:fashion_mnist", ()),
    ):
        write_study(shell, name, source, 12_000, n_epochs=1)
        trained = there("run", f"{name}.toml", "--workers", "2", "--json", *more)
        assert trained.code == 0, trained.stderr
        status = there("status", name, "--json").json
        trials = there("trials", name, "--json").json["trials"]
        told[name] = (
            sorted((trial["cell"], trial["val_accuracy"]) for trial in trials),
            trained.json["test_accuracy"],
            find_weights(there, name),
        )
        told[f"print {name}"] = status["data"]["fingerprint"]
    assert told["usual"] == told["files"] == told["cached"]
    assert told["print usual"] == told["print cached"] != told["print files"]


def find_weights(shell: Shell, name: str) -> list[Any]:
    """Hashes of the weights of a study's trials."""
    query = (
        "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) JOIN studies USING (study_id) "
        f"WHERE study_name = '{name}' AND key = 'weights_sha256' ORDER BY value_json"
    )
    return shell.query(query)


@pytest.mark.more
def test_a_data_set_is_described(shell: Shell) -> None:
    """Before there is a study file: shapes, classes, counts, range, repeated images, a sheet of pictures."""
    images = np.random.default_rng(0).integers(0, 200, (60, 9, 8), dtype=np.uint8)
    images[50] = images[0]
    images[0, 0, 0], images[50, 0, 0] = 200, 200
    labels = np.array(["left", "right"] * 30)
    np.savez(shell.folder / "a.npz", x_train=images[:50], y_train=labels[:50], x_test=images[50:], y_test=labels[50:])
    answer = shell("data", "describe", "--data", "npz:a.npz", "--sheet", "sheet.png", "--json")
    assert answer.code == 0, answer.stderr
    told = answer.json
    assert told["dataset"]["image_shape"] == [9, 8]
    assert told["images"] == {"train": 40, "validation": 10, "test": 10}
    assert told["classes"][0] == {"label": "left", "train": 20, "validation": 5, "test": 5}
    assert (told["range"][1], told["repeated_test_images"]) == (200, 1)
    assert Image.open(shell.folder / "sheet.png").size == (10 * 10 + 2, 2 * 11 + 2)
    text = shell("data", "describe", "--data", "npz:a.npz").stdout
    assert "a (npz:a.npz): grey 9 x 8 pictures, uint8, in 2 classes" in text
    assert "1 of 10 test images are among those to train or validate on, bit for bit" in text
    assert shell.files() == {"a.npz", "sheet.png"}
    full = shell("data", "describe", "--data", "npz:a.npz", "--sheet", "/dev/full")
    assert (full.code, len(full.errors)) == (5, 1)
    np.savez(shell.folder / "b.npz", x_train=images[:50], y_train=labels[:50], x_test=images[:6], y_test=labels[:6])
    refused = shell("data", "describe", "--data", "npz:b.npz")
    assert (refused.code, len(refused.errors)) == (4, 1)
    assert "6 of 6 test images are among those to train or validate on" in refused.errors[0]
