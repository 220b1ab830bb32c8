"""Keras trials in a real study: what a worker leaves in the database and on disk, and what the winner scores."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState

from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE, kept_files, weights_path
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import DataError, MismatchError, NotFoundError
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results import evaluation
from fmnist_optuna.results.evaluation import StoredWeights, summarize, wilson_interval
from fmnist_optuna.results.scoring import score_weights
from fmnist_optuna.results.winner import Winner, evaluate_winner, find_winner
from fmnist_optuna.search.cell import Grid, make_point, trial_seed
from fmnist_optuna.spec.study_spec import StudySpec, parse_spec
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import create_or_join
from fmnist_optuna.study.verification import verify
from fmnist_optuna.training.architecture import build_model, load_architecture
from fmnist_optuna.training.engine import ResidentData
from fmnist_optuna.training.probabilities import predict_probabilities
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.training.weights import hash_weights, load_weights
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work
from fmnist_optuna.work.objective import KerasObjective

pytestmark = pytest.mark.usefixtures("one_thread")

MAX_EPOCHS = 4
GRID: Grid = {"hidden_size": [4, 8], "dropout_rate": [0.2], "learning_rate": [0.03, 0.001]}
MakeModule = Callable[[str, str], str]


def make_spec(grid: Grid, training: dict[str, Any] | None = None, **tables: Any) -> StudySpec:
    return parse_spec(
        {
            "name": "garments",
            "data": {"source": "synthetic", "n_validation": 2_400},
            "grid": grid,
            "training": {"max_epochs": MAX_EPOCHS, "patience": MAX_EPOCHS, **(training or {})},
            "pruner": {"name": "none"},
            **tables,
        },
        "garments.toml",
    )


def open_study(folder: Path, spec: StudySpec, fingerprint: str) -> Session:
    folder.mkdir(parents=True, exist_ok=True)
    storage = create_storage(StorageOptions(f"sqlite:///{folder}/studies.db"))
    record, _ = create_or_join(storage, UserCode(spec, FASHION_MNIST).bind(), fingerprint)
    session = Session(storage, record, "worker-1")
    session.presence.register("worker-1", fresh_seconds=60.0)
    return session


def run_worker(session: Session, data: ResidentData, leave: LeaveRequest | None = None) -> WorkerEnd:
    """One worker in this process, until nothing is left."""
    objective = KerasObjective(session.record.spec, data)
    return work(session, objective, leave or LeaveRequest(), session.record.generation)


def all_trials(session: Session) -> list[FrozenTrial]:
    return session.trials.get_all_trials(session.record.study_id)


def artifacts(session: Session) -> list[Path]:
    return sorted(session.storage.artifacts.glob("*"))


def load_stored(session: Session, trial: FrozenTrial) -> keras.Model:
    spec = session.record.spec
    model = build_model(load_architecture(spec.model.architecture), spec, trial.params, FASHION_MNIST)
    path = weights_path(session.storage.artifacts, session.trials, trial)
    load_weights(model, path, trial.user_attrs["weights_sha256"])
    return model


def stored_weights(session: Session, trial: FrozenTrial, **changes: Any) -> StoredWeights:
    stored = StoredWeights(
        trial=trial.number,
        params=trial.params,
        seed=trial.user_attrs["seed"],
        path=weights_path(session.storage.artifacts, session.trials, trial),
        sha256=trial.user_attrs["weights_sha256"],
        val_accuracy=trial.value or 0.0,
        environment=trial.user_attrs["environment"],
    )
    return replace(stored, **changes)


def share_of_hits(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(predict_probabilities(model, images, FASHION_MNIST).argmax(axis=1) == labels))


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
    assert verify(finished.storage, finished.trials, finished.record.study_id).ok


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
        assert get_all_artifact_meta(trial, storage=session.trials) == []
    assert len(artifacts(session)) == 1
    assert verify(session.storage, session.trials, session.record.study_id).ok


FRAGILE = """
import keras
from fmnist_optuna.training.dense import create_model

def net(factor: float):
    return create_model(4, 0.0, 0.01 * factor)

def picky(hidden_size: int):
    if hidden_size == 9:
        raise ValueError("nine units are too many")
    return create_model(hidden_size, 0.0, 0.01)

class TooWide(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1 and self.model.layers[2].units == 9:
            raise RuntimeError("nine units are too many\\nand a second line")
"""


def test_diverging_trial(tmp_path: Path, garments: Splits, few_garments: ResidentData, make_module: MakeModule) -> None:
    """A trial whose loss is no number is PRUNED, reason "diverged"; the curve shows it, and no weights are kept."""
    name = make_module("user_fragile", FRAGILE)
    spec = make_spec({"factor": [1.0, 1e30]}, model={"architecture": f"{name}:net"})
    session = open_study(tmp_path, spec, garments.fingerprint)
    run_worker(session, few_garments)
    by_factor = {trial.params["factor"]: trial for trial in all_trials(session)}
    diverged = by_factor[1e30]
    assert (diverged.state, diverged.user_attrs["reason"]) == (TrialState.PRUNED, "diverged")
    (epoch,) = session.history.curve(trial_id_of(diverged))
    assert math.isnan(epoch.train_loss)
    assert by_factor[1.0].state == TrialState.COMPLETE
    assert len(artifacts(session)) == 1
    assert verify(session.storage, session.trials, session.record.study_id).ok


@pytest.mark.parametrize(
    ("tables", "error", "n_epochs"),
    [
        (
            {"training": {"callbacks": ["user_fragile:TooWide"]}},
            "RuntimeError: nine units are too many and a second line (user_fragile.py, line 16)",
            2,
        ),
        (
            {"model": {"architecture": "user_fragile:picky"}},
            "SpecError: model.architecture must return a model, but user_fragile:picky(hidden_size=9) raised "
            "ValueError: nine units are too many (user_fragile.py, line 10).",
            0,
        ),
    ],
    ids=["callback", "architecture"],
)
def test_exception_of_the_user_twice_fails_the_cell(
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    make_module: MakeModule,
    tables: dict[str, Any],
    error: str,
    n_epochs: int,
) -> None:
    """A cell that raises the same twice fails with the error in one line; the other cells are done."""
    make_module("user_fragile", FRAGILE)
    grid: dict[str, list[Any]] = {"hidden_size": [4, 9]}
    if "model" not in tables:
        grid |= {"dropout_rate": [0.0], "learning_rate": [0.01]}
    session = open_study(tmp_path, make_spec(grid, **tables), garments.fingerprint)
    run_worker(session, few_garments)
    failed = [trial for trial in all_trials(session) if trial.state == TrialState.FAIL]
    assert [(t.params["hidden_size"], t.user_attrs["reason"], t.user_attrs["error"]) for t in failed] == [
        (9, "exception", error)
    ] * 2
    assert [len(session.history.curve(trial_id_of(trial))) for trial in failed] == [n_epochs] * 2
    (cell,) = session.history.failed()
    assert (cell.params["hidden_size"], cell.error) == (9, error)
    assert (session.history.counts().complete, len(artifacts(session))) == (1, 1)


LEAVING = """
import keras

class Leave(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        keras.leave.set()
"""


def test_worker_that_is_told_to_leave_gives_its_cell_back(
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    make_module: MakeModule,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told to leave in the first epoch, it ends with the next: no result, no weights, the cell waits uncounted."""
    make_module("user_leaving", LEAVING)
    monkeypatch.setattr(keras, "leave", LeaveRequest(), raising=False)
    grid: Grid = {"hidden_size": [4], "dropout_rate": [0.0], "learning_rate": [0.01]}
    session = open_study(tmp_path, make_spec(grid, {"callbacks": ["user_leaving:Leave"]}), garments.fingerprint)
    assert run_worker(session, few_garments, keras.leave) is WorkerEnd.STOPPED
    (trial,) = all_trials(session)
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "stopped")
    assert len(session.history.curve(trial_id_of(trial))) == 2
    assert (session.history.counts().waiting, session.history.failed(), artifacts(session)) == (1, [], [])


WRITING = """
import keras

class Write(keras.callbacks.Callback):
    def __init__(self, folder, params):
        super().__init__()
        self.folder, self.width = folder, params["hidden_size"]
    def on_epoch_end(self, epoch, logs=None):
        assert (epoch == 0) == (not any(self.folder.iterdir()))
        (self.folder / "deep").mkdir(exist_ok=True)
        (self.folder / "deep" / f"{epoch}.txt").write_text(str(self.width))
        (self.folder / "trial.weights.h5").write_bytes(b"not the weights" if self.width == 4 else bytes(10_000_001))
        if epoch == 0:
            (self.folder / "link").symlink_to("/etc/passwd")
"""


def test_small_folder_of_a_complete_trial_is_kept(
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    make_module: MakeModule,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What callbacks wrote is kept as artifacts of the trial, or, above 10 MB, nothing of it is; no file is left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    make_module("user_writing", WRITING)
    grid: Grid = {"hidden_size": [4, 5], "dropout_rate": [0.0], "learning_rate": [0.01]}
    spec = make_spec(grid, {"callbacks": ["user_writing:Write"], "max_epochs": 2})
    session = open_study(tmp_path, spec, garments.fingerprint)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    run_worker(session, few_garments)
    assert [trial.state for trial in all_trials(session)] == [TrialState.COMPLETE] * 2
    for trial in all_trials(session):
        metas = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(trial, storage=session.trials)}
        is_small = trial.params["hidden_size"] == 4
        names = ["folder/deep/0.txt", "folder/deep/1.txt", "folder/trial.weights.h5"] if is_small else []
        assert sorted(metas) == [*names, WEIGHTS_FILE]
        files = kept_files(session.storage.artifacts, session.trials, trial)
        assert list(files) == [name.removeprefix("folder/") for name in names]
        if is_small:
            assert files["deep/1.txt"].read_text() == "4"
        load_stored(session, trial)
    assert [vars(record)["event"] for record in caplog.records if record.levelname == "WARNING"] == ["folder_not_kept"]
    assert list(temporary.iterdir()) == []


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
    assert finished.study.best_value == best.value


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
    path = weights_path(alone.storage.artifacts, alone.trials, trial)
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
    path = weights_path(alone.storage.artifacts, alone.trials, trial)
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


def test_other_data_is_not_scored(alone: Session) -> None:
    """Scoring on data of another fingerprint than the study's is refused."""
    (trial,) = all_trials(alone)
    with pytest.raises(DataError, match=f"must have the fingerprint {'0' * 64}"):
        score_weights(alone.record.spec, stored_weights(alone, trial), None, "0" * 64)


# The score of the stored weights is the trial's value

CHANGED_AT_THE_END = """
import keras
import numpy as np

def average():
    weights = []
    def keep(epoch, logs):
        weights.append(callback.model.get_weights())
    def put(logs):
        callback.model.set_weights([np.mean(group, axis=0) for group in zip(*weights)])
    callback = keras.callbacks.LambdaCallback(on_epoch_end=keep, on_train_end=put)
    return callback

def own_stopping():
    return keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)

def swap():
    return keras.callbacks.SwapEMAWeights(swap_on_epoch=True)

def averaging_net(learning_rate: float):
    layers = [keras.layers.Flatten(), keras.layers.Rescaling(1 / 255), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.Adam(learning_rate, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model
"""


@pytest.mark.parametrize("callback", ["average", "own_stopping", "swap"])
def test_value_is_scored_on_what_is_stored(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, make_module: MakeModule, callback: str
) -> None:
    """Whoever changes the weights when the training ends: the trial's value is that of the weights in its artifact."""
    name = make_module("user_ends", CHANGED_AT_THE_END)
    spec = make_spec(
        {"learning_rate": [0.003]},
        {"callbacks": [f"{name}:{callback}"]},
        model={"architecture": f"{name}:averaging_net"},
    )
    if callback != "swap":  # use_ema needs the callback that swaps
        spec = make_spec(
            {"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.003]}, {"callbacks": [f"{name}:{callback}"]}
        )
    session = open_study(tmp_path, spec, garments.fingerprint)
    run_worker(session, few_garments)
    (trial,) = all_trials(session)
    images, labels = few_garments.validation_images.numpy(), few_garments.validation_labels.numpy()
    assert share_of_hits(load_stored(session, trial), images, labels) == trial.value
    if callback == "swap":
        assert trial.value == max(trial.intermediate_values.values())
    assert verify(session.storage, session.trials, session.record.study_id).ok
    scores, _ = score_weights(session.record.spec, stored_weights(session, trial), None, garments.fingerprint)
    assert scores.shape == (2_000, 10)


EDITED = """
import keras

def net(hidden_size: int):
    model = keras.Sequential([
        keras.layers.Flatten(), keras.layers.Rescaling(1 / 255), keras.layers.Dense(hidden_size, "relu"),
        keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    return model
"""


def test_edited_architecture_leaves_the_test_set_closed(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, make_module: MakeModule
) -> None:
    """A model that is no longer the trained one is not scored: exit status 6, both numbers, and no opening."""
    name = make_module("user_edited", EDITED)
    session = open_study(
        tmp_path, make_spec({"hidden_size": [8]}, model={"architecture": f"{name}:net"}), garments.fingerprint
    )
    run_worker(session, few_garments)
    (trial,) = all_trials(session)
    assert trial.value is not None
    make_module("user_edited", EDITED.replace("1 / 255", "1 / 16"))
    with pytest.raises(MismatchError) as caught:
        evaluate_winner(session, None)
    assert caught.value.exit_status == 6
    text = str(caught.value)
    assert text.startswith(
        "The stored weights of trial 0 must score their recorded val_accuracy, "
        f"{trial.value:.2%} ({round(trial.value * 2_400):,} of 2,400 validation images), but score "
    )
    assert "so the test set stays closed; perhaps the code of user_edited:net was edited since" in text
    assert session.openings.find(trial.user_attrs["weights_sha256"]) is None
    make_module("user_edited", EDITED)
    assert evaluate_winner(session, None).evaluation is not None


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
        score_weights(alone.record.spec, stored, None, garments.fingerprint)
        return
    with pytest.raises(MismatchError, match="must score their recorded val_accuracy"):
        score_weights(alone.record.spec, stored, None, garments.fingerprint)


# The numbers of an evaluation


@pytest.mark.parametrize(
    ("n_hits", "n_items", "interval"),
    [
        (8, 10, (0.4901625, 0.9433178)),
        (0, 10, (0.0, 0.2775328)),
        (10, 10, (0.7224672, 1.0)),
        (8_798, 10_000, (0.8732800, 0.8860283)),
        (1, 1, (0.2065493, 1.0)),
        (0, 7, (0.0, 0.3543304)),
    ],
)
def test_wilson_interval(n_hits: int, n_items: int, interval: tuple[float, float]) -> None:
    """The interval is Wilson's, to seven digits, and stays within 0..1."""
    found = wilson_interval(n_hits, n_items)
    assert found == pytest.approx(interval, abs=5e-8)
    assert 0.0 <= found[0] <= found[1] <= 1.0


def test_summary_of_a_known_opening() -> None:
    """Recall is the share of a class that was found, precision the share of its answers that are right; NaN of none."""
    labels = np.array([0, 0, 0, 1, 2], np.uint8)
    answers = [0, 0, 1, 1, 1]
    opening = Opening(1, "", "winner", 3 / 5, 0.0, np.eye(10, dtype=np.float32)[answers], labels)
    summary = summarize(opening, FASHION_MNIST.class_names)
    assert (summary.accuracy, summary.n_images, summary.interval) == (3 / 5, 5, wilson_interval(3, 5))
    first, second, third, fourth = summary.classes[:4]
    assert (first.n_images, first.recall, first.precision) == (3, 2 / 3, 1.0)
    assert (second.n_images, second.recall, second.precision) == (1, 1.0, 1 / 3)
    assert (third.n_images, third.recall, math.isnan(third.precision)) == (1, 0.0, True)
    assert (fourth.n_images, math.isnan(fourth.recall), math.isnan(fourth.precision)) == (0, True, True)
