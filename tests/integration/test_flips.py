"""A study that trains with options, is confirmed, and answers by an image and its mirror image: file to model."""

from pathlib import Path

import numpy as np
import pytest

from fmnist_optuna import UsageError, confirm_study, export_model, load_exported, run_study
from fmnist_optuna.data.synthetic import draw_garments

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


def test_a_study_answers_by_mirror_images_too(tmp_path: Path, one_thread: None) -> None:
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
    model = load_exported(exported.folder)
    _, _, images, labels = draw_garments()
    probabilities = model.probabilities(images)
    assert np.mean(probabilities.argmax(axis=1) == labels) == evaluation.flip_accuracy
    np.testing.assert_allclose(model.probabilities(images[:, :, ::-1].copy()), probabilities, atol=1e-6)
    card = (exported.folder / "MODEL_CARD.md").read_text()
    assert "the mean of the net's answers to the image and to its mirror image" in card


def test_weights_that_were_opened_without_are_not_exported_so(tmp_path: Path) -> None:
    """A later run asks for mirror images, which the one opening of these weights did not see."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    plain = {**SPEC, "confirm": {"flip": False}}
    run_study(plain, storage=url, n_workers=2).close()
    with (
        run_study(SPEC, storage=url, n_workers=2) as study,
        pytest.raises(UsageError, match=r"confirm\.flip must be true before the test set is opened"),
    ):
        export_model(study, tmp_path)
    assert not (tmp_path / "flipped").exists()
