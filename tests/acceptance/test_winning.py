"""`confirm`, `reproduce`, `export` and `predict`: the number holds, and the model leaves the study whole."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import Answer, FinishedStudy, Shell, two_at_a_time
from small_study import create_study

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.ledger.options import StorageOptions

PACKAGES = Path(np.__file__).parents[1]
# Importing the project fails, as where it is not installed.
RELOAD = """
import json, sys
sys.modules["fmnist_optuna"] = None
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = serve(image=tf.constant(np.load(sys.argv[2])))
print(json.dumps([label.decode() for label in answer["label"].numpy()]))
"""
# The same process is also asked for a model of something else, and what TensorFlow's own command says of ours.
MORE = """
module = tf.Module()
module.f = tf.function(lambda x: {"y": x}, [tf.TensorSpec([1])])
tf.saved_model.save(module, "other", module.f.get_concrete_function())
from tensorflow.python.tools import saved_model_cli
which = ["--dir", sys.argv[1], "--tag_set", "serve", "--signature_def", "serving_default"]
for asked in (["show", *which], ["run", *which, "--inputs", f"image={sys.argv[2]}"]):
    sys.argv[1:] = asked
    try:
        saved_model_cli.main()
    except SystemExit as end:
        assert not end.code
"""


@dataclass(frozen=True)
class Won:
    """The smoke study, confirmed and exported; to be read only."""

    shell: Shell
    before: Answer
    confirmed: Answer
    best: Answer
    exported: Answer

    @property
    def model(self) -> Path:
        """The exported version."""
        return self.shell.folder / "models" / "smoke" / "1"

    @property
    def manifest(self) -> dict[str, object]:
        """What the export says of itself."""
        return json.loads((self.model / "manifest.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def won(smoke: FinishedStudy, tmp_path_factory: pytest.TempPathFactory) -> Won:
    folder = tmp_path_factory.mktemp("won") / "copy"
    shutil.copytree(smoke.shell.folder, folder)
    shell = Shell(folder)
    before = shell("best", "--json")
    confirmed = shell("confirm", "--top", "2", "--seeds", "2", "--workers", "2", "--json")
    best = shell("best", "--json")
    return Won(shell, before, confirmed, best, shell("export", "--format", "savedmodel,keras", "--json"))


@pytest.fixture(scope="module")
def images(won: Won, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten drawn garments as an array, and one as dark on light."""
    from fmnist_optuna.data.source import load_splits

    folder = tmp_path_factory.mktemp("images")
    garments = load_splits("synthetic", 2_400, 0).test_images
    np.save(folder / "ten.npy", garments[:10])
    Image.fromarray(255 - garments[0]).resize((300, 300)).save(folder / "photo.jpg", quality=95)
    return folder


def test_confirm_compares_the_best_cells_over_fresh_seeds(won: Won) -> None:
    """Two cells over two seeds each, the best mean first; one is chosen, and its test accuracy has an interval."""
    assert won.confirmed.code == 0, won.confirmed.stderr
    answer = won.confirmed.json
    assert [(c["seeds"], c["missing"]) for c in answer["candidates"]] == [(2, 0)] * 2
    assert sum(c["chosen"] for c in answer["candidates"]) == 1
    means = [c["mean"] for c in answer["candidates"]]
    assert means == sorted(means, reverse=True)
    chosen = next(c for c in answer["candidates"] if c["chosen"])
    assert (chosen["trial"], chosen["params"]) == (answer["trial"], answer["params"])
    assert answer["confirmed"]["mean"] == pytest.approx(chosen["mean"])
    low, high = answer["confirmed"]["test_interval"]
    assert low <= answer["confirmed"]["test_mean"] <= high


def test_fresh_seeds_are_not_the_original_one(won: Won) -> None:
    """The trials of the confirmation have four seeds of their own, and `show` answers with one of them."""
    rows = won.shell.query(
        "SELECT study_name, value_json FROM trial_user_attributes JOIN trials USING (trial_id)"
        " JOIN studies USING (study_id) WHERE key = 'seed'"
    )
    seeds = {study: {seed for name, seed in rows if name == study} for study in ("smoke", "smoke/confirm")}
    assert (len(seeds["smoke"]), len(seeds["smoke/confirm"])) == (4, 4)
    assert not seeds["smoke"] & seeds["smoke/confirm"]
    shown = won.shell("show", "0", "smoke/confirm", "--json").json["seed"]
    assert str(shown) in seeds["smoke/confirm"]


def test_best_answers_with_the_confirmed_cell(won: Won) -> None:
    """Nothing was confirmed before; afterwards `best` says what `confirm` said."""
    assert won.before.json["confirmed"] is None
    assert won.best.json == {**won.before.json, **{k: won.confirmed.json[k] for k in won.before.json}}
    assert won.best.json["confirmed"]["seeds"] == 2


def test_the_grid_and_its_confirmation_both_verify(won: Won) -> None:
    """Both are studies whose every cell has exactly one result."""
    answers = two_at_a_time({name: partial(won.shell, "verify", name) for name in ("smoke", "smoke/confirm")})
    assert {name: answer.code for name, answer in answers.items()} == {"smoke": 0, "smoke/confirm": 0}


def test_each_opening_is_one_set_of_weights(won: Won) -> None:
    """The chosen cell over two seeds, and the trials that were named winner; replayed ever after."""
    rows = won.shell.query("SELECT purpose, weights_sha256 FROM fmnist_openings")
    assert sorted({purpose for purpose, _ in rows}) == ["confirmation", "winner"]
    assert len({weights for _, weights in rows}) == len(rows)
    assert len([purpose for purpose, _ in rows if purpose == "confirmation"]) == 2


def test_a_second_confirm_trains_nothing_and_fits_a_terminal(won: Won) -> None:
    """The table comes from the trials that are there, in lines of 80 characters."""
    n_trials = won.shell.query("SELECT count(*) FROM trials")
    again = won.shell("confirm", "--top", "2", "--seeds", "2")
    assert again.code == 0, again.stderr
    assert won.shell.query("SELECT count(*) FROM trials") == n_trials
    assert "SYNTHETIC" in again.stdout
    assert "smallest model within one standard error" in again.stdout
    assert [line for line in again.stdout.splitlines() if len(line) > 80] == []
    for candidate in won.confirmed.json["candidates"]:
        assert f"{100 * candidate['mean']:.2f} %" in again.stdout


def test_the_export_has_everything_and_its_hashes(won: Won) -> None:
    """Each file beside the manifest is named in it, with the numbers that `best` gives and what they were made from."""
    assert won.exported.code == 0, won.exported.stderr
    files = {str(path.relative_to(won.model)) for path in won.model.rglob("*") if path.is_file()}
    assert set(won.manifest["files"]) == files - {"manifest.json"}  # type: ignore[call-overload]
    assert {"saved_model.pb", "model.keras", "MODEL_CARD.md", "confusion_matrix.png"} <= files
    assert won.manifest["trial"] == won.best.json["trial"]
    assert won.manifest["test_accuracy"] == won.best.json["test_accuracy"]
    assert won.manifest["confirmed"] == won.best.json["confirmed"]
    assert won.manifest["synthetic"] is True
    assert won.manifest["parity"]["n_images"] == 2_000  # type: ignore[index]
    assert "SYNTHETIC" in (won.model / "MODEL_CARD.md").read_text()
    assert won.shell.folder not in [Path(part) for part in (won.model / "manifest.json").read_text().split('"')]


@pytest.mark.more
def test_a_keras_model_alone_names_no_command_that_needs_more(won: Won) -> None:
    """`predict` asks a SavedModel; the card has what the net gives, which has no class of its own."""
    exported = won.shell("export", "--format", "keras", "--out", "of-keras")
    assert (exported.code, exported.stderr) == (0, "")
    card = (won.shell.folder / "of-keras" / "smoke" / "1" / "MODEL_CARD.md").read_text()
    assert "| output | probabilities: float32 (n, 10) |" in card


@dataclass(frozen=True)
class Alone:
    """What a process with TensorFlow and nothing of the project said; its folder has a model of something else."""

    folder: Path
    labels: list[str]
    cli: str


@pytest.fixture(scope="module")
def alone(won: Won, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    folder = tmp_path_factory.mktemp("alone")
    command = [sys.executable, "-c", RELOAD + MORE, str(won.model), str(images / "ten.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=won.shell.environment)
    labels, cli = done.stdout.split("\n", 1)
    return Alone(folder, json.loads(labels), cli)


@pytest.mark.more
def test_tensorflow_alone_gives_the_answers_of_predict(won: Won, images: Path, alone: Alone) -> None:
    """A process that cannot import the project reads the same label for each of ten images."""
    predicted = won.shell("predict", won.model, images / "ten.npy", "--json")
    assert predicted.code == 0, predicted.stderr
    assert alone.labels == [image["label"] for image in predicted.json["images"]]
    assert [len(image["top"]) for image in predicted.json["images"]] == [3] * 10


@pytest.mark.slow
def test_the_model_loads_where_the_project_is_not_installed(won: Won, images: Path, tmp_path: Path) -> None:
    """A fresh environment that sees the installed packages, but not the checkout that is installed as a link."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {**won.shell.environment, "PYTHONPATH": str(PACKAGES)}
    there = subprocess.run([python, "-c", "import fmnist_optuna"], env=environment, cwd=tmp_path, check=False)
    assert there.returncode == 1
    command: list[str | Path] = [python, "-c", RELOAD, won.model, images / "ten.npy"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)) == 10


@pytest.mark.more
def test_saved_model_cli_shows_and_runs_it(alone: Alone) -> None:
    """TensorFlow's own command names the image that goes in and what comes out."""
    for words in ("DT_UINT8", "(-1, 28, 28)", "probabilities", "(-1, 10)", "class_id", "label"):
        assert words in alone.cli
    assert "Result for output key class_id" in alone.cli


def test_predict_turns_a_photograph_round(won: Won, images: Path) -> None:
    """The photograph, dark on light, is answered and marked; what is no picture is named, with exit 4."""
    shutil.copy(images / "photo.jpg", won.shell.folder / "photo.jpg")
    won.shell.write("text.png", "hello")
    won.shell.write("empty.png", "")
    answer = won.shell("predict", "models/smoke", "photo.jpg", "text.png", "empty.png", "none.png", "--top", "1")
    assert answer.code == 4
    assert answer.stdout.splitlines()[0].startswith("This model was trained on SYNTHETIC")
    assert "photo.jpg: " in answer.stdout
    assert "inverted" in answer.stdout
    assert [line.split()[1] for line in answer.errors] == ["text.png", "empty.png", "none.png"]


def test_reproduce_is_the_same_bit_for_bit(won: Won) -> None:
    """The study ran with two workers; this is one process."""
    answer = won.shell("reproduce", "1", "smoke", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.json["matches"] is True
    assert answer.json["weights_sha256"] == answer.json["repeated_sha256"]
    assert answer.json["environment_differences"] == []


def test_delete_takes_the_confirmation_with_it(won: Won, tmp_path: Path) -> None:
    """No study and no weights are left of either."""
    shutil.copytree(won.shell.folder, tmp_path / "copy")
    shell = Shell(tmp_path / "copy")
    assert shell("delete", "smoke", "--yes").code == 0
    assert shell.query("SELECT study_name FROM fmnist_studies") == []
    assert list((shell.folder / "studies" / "artifacts").iterdir()) == []


@pytest.mark.more
def test_all_data_is_trained_shown_and_exported(won: Won, tmp_path: Path) -> None:
    """By one command, after the confirmation that is there; accuracies on images that were seen are named so."""
    shutil.copytree(won.shell.folder, tmp_path / "copy")
    shell = Shell(tmp_path / "copy")
    confirmed = shell("confirm", "--all-data", "--workers", "2")
    assert confirmed.code == 0, confirmed.stderr
    exported = shell("export", "--all-data", "--ensemble", "2", "--json").json
    assert (exported["trial_study"], exported["trained_on_validation"], exported["val_accuracy"]) == (
        "smoke/all-data", True, None,
    )  # fmt: skip
    best = shell("best", "--json").json
    assert best["confirmed"] == won.best.json["confirmed"]
    assert (best["all_data"]["study"], best["all_data"]["seeds"]) == ("smoke/all-data", 2)
    (together,) = best["ensembles"]
    assert (together["members"], together["all_data"]) == (2, True)
    assert together["test_accuracy"] == exported["test_accuracy"]
    assert best["openings"] == won.best.json["openings"] + 2 + 1 == len(shell.query("SELECT * FROM fmnist_openings"))
    of_seeds = shell.query("SELECT accuracy FROM fmnist_openings WHERE purpose = 'all-data'")
    assert sum(accuracy for (accuracy,) in of_seeds) / 2 == pytest.approx(best["all_data"]["test_mean"])
    mean = f"{100 * best['all_data']['test_mean']:.2f} %"
    shown = {name: shell(*name.split()) for name in ("best", "list", "trials smoke/all-data", "show 0 smoke/all-data")}
    for text in (confirmed.stdout, shown["best"].stdout):
        assert f"  all data, test       {mean}   95 % interval" in text
        assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "  ensemble on all data " in shown["best"].stdout
    (line,) = [line for line in shown["list"].stdout.splitlines() if line.startswith("smoke/all-data")]
    assert line.endswith("seen")
    listed = {each["study"]: each for each in shell("list", "--json").json["studies"]}
    assert {name: (each["kind"], each["trained_on_validation"]) for name, each in listed.items()} == {
        "smoke": ("search", False), "smoke/confirm": ("confirmation", False), "smoke/all-data": ("all-data", True),
    }  # fmt: skip
    rows = csv.DictReader(io.StringIO(shell("trials", "smoke/all-data", "--csv").stdout))
    assert [row["trained_on_validation"] for row in rows] == ["True", "True"]
    assert "Next: fmnist-optuna confirm smoke --all-data" in shell("retry", "smoke/all-data").stderr
    for name in ("trials smoke/all-data", "show 0 smoke/all-data"):
        text = " ".join(shown[name].stdout.split())
        assert "validation images trained on" in text
        assert "val acc" not in text
    refused = shell("best", "smoke/all-data")
    assert (refused.code, len(refused.errors)) == (2, 1)
    assert shell("verify", "smoke/all-data").code == 0
    assert shell("reproduce", "0", "smoke/all-data", "--json").json["matches"] is True
    assert shell("report").code == 0
    page = (shell.folder / "smoke-report.html").read_text()
    assert f'<td>on all data</td><td class="n">2</td><td class="n">{mean}</td>' in page
    assert shell("report", "smoke/all-data", "--out", "seen.html").code == 0
    page = (shell.folder / "seen.html").read_text()
    assert '<th class="n">seen acc</th>' in page
    assert "val acc" not in page.partition("<script>")[0]
    assert shell("delete", "smoke", "--yes").code == 0
    assert shell.query("SELECT study_name FROM fmnist_studies") == []


REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "version exists": (("export", "--version", "1"), 2, "version (--version) must be new"),
    "unknown format": (
        ("export", "--format", "onnx"),
        2,
        "formats (--format) must be of savedmodel, keras, but got 'onnx'",
    ),
    "too many seeds": (("export", "--ensemble", "3"), 2, "ensemble (--ensemble) must be 2 to 2, as so many seeds were"),
    "one seed together": (("export", "--ensemble", "1"), 2, "--ensemble"),
    "not on all data": (("export", "--all-data"), 3, "is not: fmnist-optuna confirm smoke --all-data"),
    "unknown trial": (("export", "--trial", "99"), 3, "there is no trial 99"),
    "export of a confirmation": (("export", "smoke/confirm"), 2, "is a confirmation"),
    "confirm of a confirmation": (("confirm", "smoke/confirm"), 2, "is itself a confirmation"),
    "run of a confirmation": (("run", "--name", "smoke/confirm"), 2, "name must be letters"),
    "one seed": (("confirm", "--seeds", "1"), 2, "--seeds"),
    "out is a file": (("export", "--out", "smoke.toml"), 5, "out (--out) must be a folder that can be written"),
    "no full disk device": (("export", "--out", "/proc/models"), 5, "out (--out) must be a folder that can be written"),
    "reproduce nothing": (("reproduce", "99"), 3, "there is no trial 99"),
    "no model": (("predict", "studies", "none.png"), 4, "has no saved_model.pb"),
    "no folder": (("predict", "nowhere", "none.png"), 4, "is no folder"),
}


@pytest.fixture(scope="module")
def refused(won: Won) -> dict[str, Answer]:
    """Every case once; none leaves a file."""
    before = won.shell.files()
    answers = two_at_a_time({name: partial(won.shell, *typed) for name, (typed, _, _) in REFUSED.items()})
    left = {name for name in won.shell.files() - before if not name.endswith(("-wal", "-shm"))}
    assert left == set()
    return answers


@pytest.mark.parametrize("case", list(REFUSED))
def test_bad_input_is_refused_in_one_line(refused: dict[str, Answer], case: str) -> None:
    """Each has its exit status and says what is wrong."""
    _, code, words = REFUSED[case]
    answer = refused[case]
    assert (answer.code, len(answer.errors)) == (code, 1), answer.stderr
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.more
def test_a_model_of_something_else_is_refused(alone: Alone, images: Path) -> None:
    """A SavedModel with another signature."""
    answer = Shell(alone.folder)("predict", "other", images / "photo.jpg")
    assert (answer.code, len(answer.errors)) == (4, 1), answer.stderr
    assert "takes x and gives y" in answer.stderr


def test_a_study_without_a_finished_trial_has_nothing_to_export(shell: Shell) -> None:
    """Nor to confirm: exit 3 and one line."""
    shell.database.parent.mkdir()
    storage = create_storage(StorageOptions(f"sqlite:///{shell.database}"))
    create_study(storage)
    storage.close()
    for typed in (("export",), ("confirm",), ("export", "--trial", "0")):
        answer = shell(*typed)
        assert (answer.code, len(answer.errors)) == (3, 1), answer.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_storage_error(smoke_copy: Shell) -> None:
    """Exit 5 where the exported model cannot be written."""
    (smoke_copy.folder / "locked").mkdir(mode=0o500)
    assert smoke_copy("export", "--out", "locked").code == 5
