"""Keras trials in a real study: what a worker leaves in the database and on disk, and what the winner scores."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from stored_files import weights_path
from trained_studies import (
    MAX_EPOCHS,
    all_trials,
    artifacts,
    load_stored,
    make_spec,
    open_study,
    run_worker,
    share_of_hits,
    stored_weights,
)

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import MismatchError, NotFoundError
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results import evaluation
from fmnist_optuna.results.scoring import score_weights
from fmnist_optuna.results.winner import Winner, evaluate_winner, find_winner
from fmnist_optuna.search.cell import Grid, make_point, trial_seed
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.weights import hash_weights
from fmnist_optuna.work.loop import WorkerEnd
from fmnist_optuna.work.splits import DataPlace

pytestmark = pytest.mark.usefixtures("one_thread")

GRID: Grid = {"hidden_size": [4, 8], "dropout_rate": [0.2], "learning_rate": [0.03, 0.001]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, garments: Splits, few_garments: ResidentData) -> Session:
    """A study of four cells, all of them complete."""
    session = open_study(tmp_path_factory.mktemp("finished"), make_spec(GRID), garments.fingerprint)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    return session


# Complete trials


def test_every_cell_has_one_complete_trial(finished: Session) -> None:
    """A worker leaves a verified study: each cell one COMPLETE trial, none to spare."""
    trials = all_trials(finished)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    points = {(t.params["hidden_size"], t.params["dropout_rate"], t.params["learning_rate"]) for t in trials}
    assert points == {(h, 0.2, rate) for h in (4, 8) for rate in (0.03, 0.001)}
    assert verify(finished.storage, finished.optuna_storage, finished.record.study_id).ok


def test_curve_is_stored(finished: Session, garments: Splits) -> None:
    """The epochs table and Optuna have the whole curve; the value is that of best_epoch, shown from 1."""
    for trial in all_trials(finished):
        curve = finished.history.curve(trial_id_of(trial))
        assert [epoch.epoch for epoch in curve] == list(range(MAX_EPOCHS))
        assert trial.intermediate_values == {epoch.epoch: epoch.val_accuracy for epoch in curve}
        values = [epoch.val_accuracy for epoch in curve]
        assert trial.value == max(values)
        assert trial.user_attrs["best_epoch"] == values.index(max(values)) + 1
        assert all(epoch.seconds > 0 and epoch.train_loss > 0 and epoch.val_loss > 0 for epoch in curve)


def test_value_is_that_of_the_stored_weights(finished: Session, few_garments: ResidentData) -> None:
    """The artifact of each trial holds weights of its hash, whose accuracy on the validation images is its value."""
    assert len(artifacts(finished)) == 4
    images, labels = few_garments.validation_images.numpy(), few_garments.validation_labels.numpy()
    for trial in all_trials(finished):
        model = load_stored(finished, trial)
        assert hash_weights(model) == trial.user_attrs["weights_sha256"]
        assert share_of_hits(model, images, labels) == trial.value


def test_cells_carry_the_trials_result(finished: Session) -> None:
    """History reads value and number of epochs of each trial from our own tables."""
    cells = {cell.trial_id: cell for cell in finished.history.finished()}
    for trial in all_trials(finished):
        cell = cells[trial_id_of(trial)]
        assert (cell.state, cell.val_accuracy, cell.n_epochs) == (State.COMPLETE, trial.value, MAX_EPOCHS)


def test_seed_comes_from_study_and_cell(finished: Session) -> None:
    """Each trial notes the seed that study seed and cell give."""
    for trial in all_trials(finished):
        assert trial.user_attrs["seed"] == trial_seed(0, make_point(trial.params).cell_id)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, garments: Splits, few_garments: ResidentData) -> Session:
    """A study of one of the cells of `finished`."""
    grid: Grid = {"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.03]}
    session = open_study(tmp_path_factory.mktemp("alone"), make_spec(grid), garments.fingerprint)
    run_worker(session, few_garments)
    return session


def test_result_does_not_depend_on_the_other_cells(finished: Session, alone: Session) -> None:
    """A cell trained first in another study has the same weights and the same curve, bit for bit."""
    (trial,) = all_trials(alone)
    (same,) = [t for t in all_trials(finished) if t.params == trial.params]
    assert same.user_attrs["weights_sha256"] == trial.user_attrs["weights_sha256"]
    assert same.intermediate_values == trial.intermediate_values


def test_grid_may_name_the_batch_size(tmp_path: Path, garments: Splits, few_garments: ResidentData) -> None:
    """batch_size of a cell wins over the training's: one step an epoch moves less than 63."""
    grid: Grid = {"batch_size": [16, 2_000], "hidden_size": [8], "dropout_rate": [0.0], "learning_rate": [0.001]}
    session = open_study(tmp_path, make_spec(grid, {"max_epochs": 1}), garments.fingerprint)
    run_worker(session, few_garments)
    loss = {t.params["batch_size"]: session.history.curve(trial_id_of(t))[0].train_loss for t in all_trials(session)}
    assert loss[16] < loss[2_000]
    assert loss[2_000] > 2.0  # before the only step: about ln 10 = 2.3


# Trials that end otherwise


def test_pruned_trial(tmp_path: Path, garments: Splits, few_garments: ResidentData) -> None:
    """A trial that the pruner cuts is PRUNED with its reason and its short curve, and leaves no weights."""
    spec = make_spec(
        {"hidden_size": [8], "dropout_rate": [0.0], "learning_rate": [1e-9, 2e-9, 0.03]},
        pruner={"name": "median", "n_startup_trials": 1, "n_warmup_steps": 1, "n_min_trials": 1},
    )
    session = open_study(tmp_path, spec, garments.fingerprint)
    run_worker(session, few_garments)
    first, *pruned = all_trials(session)
    assert (first.state, first.params["learning_rate"]) == (TrialState.COMPLETE, 0.03)  # the order of a grid is fixed
    assert [trial.state for trial in pruned] == [TrialState.PRUNED] * 2
    for trial in pruned:
        curve = session.history.curve(trial_id_of(trial))
        assert (len(curve), trial.value) == (2, curve[-1].val_accuracy)
        assert trial.user_attrs["reason"] == "pruned"
        assert not trial.user_attrs.keys() & {"best_epoch", "weights_sha256", "error"}
        assert get_all_artifact_meta(trial, storage=session.optuna_storage) == []
    assert len(artifacts(session)) == 1
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok


# The winner


@pytest.fixture(scope="module")
def evaluated(finished: Session) -> Winner:
    """The winner of `finished`, scored on the test images in a process of its own."""
    assert find_winner(finished).evaluation is None
    return evaluate_winner(finished, None)


def stored_opening(session: Session, winner: Winner) -> Opening:
    trial = all_trials(session)[winner.trial]
    opening = session.openings.find(trial.user_attrs["weights_sha256"])
    assert opening is not None
    return opening


def test_winner_is_the_best_complete_cell(finished: Session, evaluated: Winner) -> None:
    """The winner is the trial of the best val_accuracy, the earliest of equals, as Optuna has it."""
    trials = all_trials(finished)
    best = max(trials, key=lambda trial: (trial.value, -trial.number))
    assert (evaluated.trial, evaluated.params, evaluated.val_accuracy) == (best.number, best.params, best.value)
    assert evaluated.n_epochs == MAX_EPOCHS
    assert finished.optuna_study.best_value == best.value


def test_test_accuracy_is_that_of_the_stored_weights(finished: Session, evaluated: Winner, garments: Splits) -> None:
    """The opening is recorded with its predictions, and its accuracy is the one of the winner's artifact."""
    trial = all_trials(finished)[evaluated.trial]
    accuracy = share_of_hits(load_stored(finished, trial), garments.test_images, garments.test_labels)
    opening = stored_opening(finished, evaluated)
    assert (opening.trial_id, opening.purpose, opening.accuracy) == (trial_id_of(trial), "winner", accuracy)
    assert opening.probabilities.shape == (2_000, 10)
    np.testing.assert_array_equal(opening.labels, garments.test_labels)
    assert evaluated.evaluation is not None
    assert (evaluated.evaluation.accuracy, evaluated.evaluation.n_images) == (accuracy, 2_000)


def test_second_call_replays_the_opening(finished: Session, evaluated: Winner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test images are scored once: a second call, and a reading one, answer from the record."""

    def refuse(*_: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(evaluation, "Call", refuse)
    for again in (evaluate_winner(finished, None), find_winner(finished)):
        assert repr(again) == repr(evaluated)  # a precision may be NaN, which equals nothing


def test_classes_of_the_winner(finished: Session, evaluated: Winner) -> None:
    """The table has ten classes of 200 images whose hits add up to the accuracy."""
    assert evaluated.evaluation is not None
    classes = evaluated.evaluation.classes
    assert tuple(c.label for c in classes) == FASHION_MNIST.class_names
    assert [c.n_images for c in classes] == [200] * 10
    hits = [round(c.recall * c.n_images) for c in classes]
    assert sum(hits) / 2_000 == evaluated.evaluation.accuracy
    answers = np.bincount(stored_opening(finished, evaluated).probabilities.argmax(axis=1), minlength=10)
    assert [c.precision for c in classes] == [
        hit / n if n else pytest.approx(math.nan, nan_ok=True) for hit, n in zip(hits, answers.tolist(), strict=True)
    ]


def test_altered_weights_are_not_scored(alone: Session) -> None:
    """One altered byte in the winner's artifact: an error names file and hash, and no opening is left."""
    (trial,) = all_trials(alone)
    sha256 = trial.user_attrs["weights_sha256"]
    path = weights_path(alone, trial)
    with h5py.File(path) as file:
        offset = file["layers/dense/vars/0"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    altered = path.with_name("altered")
    path.rename(altered)
    path.write_bytes(content)
    try:
        with pytest.raises(MismatchError, match=f"{path} must have SHA-256 {sha256}, but have [0-9a-f]{{64}}"):
            evaluate_winner(alone, None)
    finally:
        altered.replace(path)
    assert alone.openings.find(sha256) is None
    assert find_winner(alone).evaluation is None


def test_missing_weights_are_named(alone: Session) -> None:
    """A winner whose artifact is gone is an error that names the trial and the path."""
    (trial,) = all_trials(alone)
    path = weights_path(alone, trial)
    hidden = path.rename(path.with_name("hidden"))
    try:
        with pytest.raises(MismatchError, match=f"The weights of trial 0 must be at {path}"):
            evaluate_winner(alone, None)
    finally:
        hidden.rename(path)


def test_no_complete_trial_no_winner(tmp_path: Path, garments: Splits) -> None:
    """Before any trial is complete, asking for the winner names the study."""
    session = open_study(tmp_path, make_spec(GRID), garments.fingerprint)
    with pytest.raises(NotFoundError, match="study garments: no trial is complete yet"):
        evaluate_winner(session, None)


def place_of(session: Session, fingerprint: str) -> DataPlace:
    return DataPlace(session.record.spec.data, None, fingerprint)


def test_other_data_is_not_scored(alone: Session) -> None:
    """Scoring on data of another fingerprint than the study's is refused."""
    (trial,) = all_trials(alone)
    with pytest.raises(MismatchError, match=f"must have the fingerprint {'0' * 64}"):
        score_weights(alone.record.spec, [stored_weights(alone, trial)], place_of(alone, "0" * 64))


# The score of the stored weights is the trial's value


@pytest.mark.parametrize(
    ("n_off", "environment", "is_scored"),
    [(0, {}, True), (1, {}, False), (1, {"cpu": "x"}, True), (2, {"cpu": "x"}, False)],
)
def test_rounding_is_allowed_in_another_environment_only(
    alone: Session, garments: Splits, n_off: int, environment: dict[str, str], is_scored: bool
) -> None:
    """One environment gives exactly the recorded hits; another may differ by 3 images of 10,000, rounded up."""
    (trial,) = all_trials(alone)
    assert trial.value is not None
    stored = stored_weights(
        alone,
        trial,
        val_accuracy=(round(trial.value * 2_400) + n_off) / 2_400,
        environment={**trial.user_attrs["environment"], **environment},
    )
    if is_scored:
        score_weights(alone.record.spec, [stored], place_of(alone, garments.fingerprint))
        return
    with pytest.raises(MismatchError, match="must score their recorded val_accuracy"):
        score_weights(alone.record.spec, [stored], place_of(alone, garments.fingerprint))
