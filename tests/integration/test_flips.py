"""A study that trains with options, is confirmed, and answers by an image and its mirror image: file to model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist_optuna import UsageError, confirm_study, export_model, load_exported, open_study, run_study
from fmnist_optuna.cli.answers import winner_answer
from fmnist_optuna.cli.model_tables import print_export
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.data.synthetic import draw_garments
from fmnist_optuna.pages.notes import describe_winner
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.wording import format_percent

pytestmark = pytest.mark.more

SPEC = {
    "name": "flipped",
    "data": {"source": "synthetic"},
    "grid": {"hidden_size": [16], "dropout_rate": [0.1], "learning_rate": [0.01], "weight_decay": [0.0, 0.01]},
    "training": {"max_epochs": 2, "batch_size": 128, "schedule": "cosine", "label_smoothing": 0.1, "ema": 0.9},
    "augment": {"horizontal_flip": "alternating", "shift": 1},
    "pruner": {"name": "none"},
    "confirm": {"top": 1, "seeds": 2, "flip": True},
}
# Importing the project fails, as where it is not installed.
RELOAD = """
import json, sys
sys.modules["fmnist_optuna"] = None
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
print(json.dumps(serve(image=tf.constant(np.load(sys.argv[2])))["class_id"].numpy().tolist()))
"""


def test_a_study_answers_by_mirror_images_too(
    tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both accuracies are measured in one opening, and the exported model gives the averaged answers."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with run_study(SPEC, storage=url, n_workers=2) as study:
        evaluation = study.best().evaluation
        assert evaluation is not None
        assert evaluation.flip_accuracy is not None
        confirmation = confirm_study(study, n_workers=2).confirmation
        assert confirmation.test is not None
        assert confirmation.flipped is not None
        assert len(confirmation.flipped.values) == 2
        exported = export_model(study, tmp_path)
    manifest = exported.manifest
    evaluation = exported.facts.evaluation
    assert (manifest["flip"], manifest["test_accuracy_with_flip"]) == (True, evaluation.flip_accuracy)
    print_export(exported)
    assert f", with flips {format_percent(evaluation.flip_accuracy)}\n" in capsys.readouterr().out
    model = load_exported(exported.folder)
    _, _, images, labels = draw_garments()
    probabilities = model.probabilities(images)
    assert np.mean(probabilities.argmax(axis=1) == labels) == evaluation.flip_accuracy
    np.testing.assert_allclose(model.probabilities(images[:, :, ::-1].copy()), probabilities, atol=1e-6)
    card = (exported.folder / "MODEL_CARD.md").read_text()
    assert "the mean of the net's answers to the image and to its mirror image" in card
    assert "Classes and confusions are of the answers without mirror images.\n\n| class |" in card


def test_another_metric_is_that_of_the_exported_model(
    tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The test loss with flips is the cross-entropy of the SavedModel's answers; what is of the net alone says so."""
    url, spec = f"sqlite:///{tmp_path / 'studies.db'}", {**SPEC, "objective": {"metric": "val_loss"}}
    with run_study(spec, storage=url, n_workers=2) as study:
        confirmation = confirm_study(study, n_workers=2, all_data=True).confirmation
        exported = export_model(study, tmp_path)
        card_of_seed = (export_model(study, tmp_path, all_data=True).folder / "MODEL_CARD.md").read_text()
        record, all_data = study._session.record, study.best().all_data
        overview = read_overview(study._session)
        report, note = render_report(overview, None), describe_winner(overview, study.best())
        winner = winner_answer(record, study.best())
        print_winner(record, study.best(), study.status())
    _, _, images, labels = draw_garments()
    probabilities = load_exported(exported.folder).probabilities(images).astype(np.float64)
    entropy = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    evaluation, metric, manifest = exported.facts.evaluation, record.metric, exported.manifest
    alone, flipped = evaluation.objective, evaluation.flip_objective
    assert (manifest["test_objective"], manifest["test_objective_with_flip"]) == (alone, flipped)
    assert flipped == pytest.approx(entropy, rel=1e-4)
    assert alone != pytest.approx(entropy, rel=1e-4)
    assert (winner["test_objective"], winner["test_objective_with_flip"]) == (alone, flipped)
    assert confirmation.flipped_objective is not None
    mean = confirmation.flipped_objective.mean
    assert confirmation.figures()["test_objective_mean_with_flip"] == mean
    said = capsys.readouterr().out
    assert (
        f"  test loss            {metric.format(alone)}   2,000 images, the net alone, without mirror images\n" in said
    )
    assert f"  with flips         {metric.format(flipped)}   answers averaged with those to mirror images\n" in said
    assert "Classes, of the answers without mirror images:" in said
    assert "opened before" not in said
    card = (exported.folder / "MODEL_CARD.md").read_text()
    assert f"| 2,000 test images, the net alone, without mirror images | {metric.format(alone)} |" in card
    assert f"| 2,000 test images, answers averaged with those to mirror images | {metric.format(flipped)} |" in card
    assert (
        f"| test, mean of 2 fresh seeds, answers averaged with those to mirror images | {metric.format(mean)} " in card
    )
    assert all_data is not None
    for sample, which in (
        (all_data.test_objective, "without mirror images"),
        (all_data.flipped_objective, "answers averaged with those to mirror images"),
    ):
        assert sample is not None
        row = f"| test, mean of 2 seeds trained on all data, {which} | {metric.format(sample.mean)} (95 % interval "
        assert row in card_of_seed
        assert row not in card
    assert "All of the net's answers without mirror images." in report
    assert f" {format_percent(evaluation.flip_accuracy)} with answers averaged with those to mirror images" in note
    print_export(exported)
    assert f"test {metric.format(alone)}, with flips {metric.format(flipped)}\n" in capsys.readouterr().out


def test_all_data_and_ensembles_leave_the_study_whole(tmp_path: Path) -> None:
    """Seeds on all data, alone and together: each model gives its recorded answers where the project is not."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with run_study(SPEC, storage=url, n_workers=2) as study:
        confirmed = confirm_study(study, n_workers=2, all_data=True)
        all_data = confirmed.winner.all_data
        assert all_data is not None
        assert (all_data.n_epochs, len(all_data.runs)) == (2, 2)
        assert all_data.test is not None
        assert all_data.flipped is not None
        asked: dict[str, dict[str, Any]] = {
            "seed": {"all_data": True}, "nets": {"ensemble": 2}, "seeds": {"all_data": True, "ensemble": 2},
        }  # fmt: skip
        exported = {name: export_model(study, tmp_path / name, **arguments) for name, arguments in asked.items()}
        again = confirm_study(study, n_workers=2, all_data=True)
        assert again.winner.all_data == all_data
        assert [(each.n_members, each.is_on_all_data) for each in again.winner.ensembles] == [(2, False), (2, True)]
        opened = [each.evaluation.flip_accuracy for each in again.winner.ensembles]
        with open_study("flipped/all-data", storage=url) as following:
            assert following.verify().ok
            assert (study.is_on_all_data, following.is_on_all_data) == (False, True)
            told = [{row["trained_on_validation"] for row in each.trials()} for each in (study, following)]
            assert told == [{False}, {True}]
            with pytest.raises(UsageError, match="has no winner"):
                following.best()
    manifests = {name: each.manifest for name, each in exported.items()}
    assert manifests["seed"]["test_accuracy_with_flip"] == all_data.flipped.values[0]
    assert [manifests[name]["test_accuracy_with_flip"] for name in ("nets", "seeds")] == opened
    assert [each["trained_on_validation"] for each in manifests.values()] == [True, False, True]
    assert [each["val_accuracy"] for each in manifests.values()] == [None] * 3
    _, _, images, labels = draw_garments()
    np.save(tmp_path / "images.npy", images)
    for name, each in exported.items():
        done = subprocess.run(
            [sys.executable, "-c", RELOAD, str(each.folder), str(tmp_path / "images.npy")],
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        answers = np.array(json.loads(done.stdout))
        assert np.mean(answers == labels) == manifests[name]["test_accuracy_with_flip"]
    card = (exported["seeds"].folder / "MODEL_CARD.md").read_text()
    for words in (
        "an ensemble of 2 seeds on all data",
        "the mean of those of 2 nets to the image and to its mirror image",
        "validation images, mean of the nets, which were trained on: no score | - |",
        "for 2 epochs, a number that the confirmation had fixed",
        "test, mean of 2 seeds trained on all data",
        "`fmnist-optuna reproduce 0 flipped/all-data`",
    ):
        assert words in card


def test_weights_that_were_opened_without_are_not_exported_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A later run asks for mirror images, which the one opening of these weights did not see, and says so."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    plain = {**SPEC, "confirm": {"flip": False}}
    run_study(plain, storage=url, n_workers=2).close()
    with run_study(SPEC, storage=url, n_workers=2) as study:
        number = study.best().trial
        words = rf"confirm\.flip must be true before the test set is opened, but the weights of trial {number} were"
        print_winner(study._session.record, study.best(), study.status())
        with pytest.raises(UsageError, match=words):
            export_model(study, tmp_path)
    note = "  stored weights: not measured with flips, as these weights were opened before\n"
    assert capsys.readouterr().out.count(note) == 1
    assert not (tmp_path / "flipped").exists()
