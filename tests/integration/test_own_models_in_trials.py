"""Trials of the user's own models and callbacks: they diverge, raise, leave, write, or change the weights at last."""

import math
from pathlib import Path
from typing import Any

import keras
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from trained_studies import (
    all_trials,
    artifacts,
    load_stored,
    make_spec,
    open_study,
    run_worker,
    share_of_hits,
    stored_weights,
)
from users_modules import MakeModule

from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE, kept_files
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.results.scoring import score_weights
from fmnist_optuna.results.winner import evaluate_winner
from fmnist_optuna.search.cell import Grid
from fmnist_optuna.study.verification import verify
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd
from fmnist_optuna.work.splits import DataPlace

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

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
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok


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


def test_what_a_diverged_trial_wrote_is_kept(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, make_module: MakeModule
) -> None:
    """It has no weights, but the files that may tell why are there."""
    make_module("user_writing", WRITING.replace('params["hidden_size"]', "4"))
    name = make_module("user_fragile", FRAGILE)
    tables = {"callbacks": ["user_writing:Write"]}
    spec = make_spec({"factor": [1e30]}, tables, model={"architecture": f"{name}:net"})
    session = open_study(tmp_path, spec, garments.fingerprint)
    run_worker(session, few_garments)
    (trial,) = all_trials(session)
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.PRUNED, "diverged")
    names = [meta.filename for meta in get_all_artifact_meta(trial, storage=session.optuna_storage)]
    assert sorted(names) == ["folder/deep/0.txt", "folder/trial.weights.h5"]


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
        metas = {
            meta.filename: meta.artifact_id for meta in get_all_artifact_meta(trial, storage=session.optuna_storage)
        }
        is_small = trial.params["hidden_size"] == 4
        names = ["folder/deep/0.txt", "folder/deep/1.txt", "folder/trial.weights.h5"] if is_small else []
        assert sorted(metas) == [*names, WEIGHTS_FILE]
        files = kept_files(session.store, session.optuna_storage, trial)
        assert list(files) == [name.removeprefix("folder/") for name in names]
        if is_small:
            assert Path(files["deep/1.txt"]).read_text() == "4"
        load_stored(session, trial)
    assert [vars(record)["event"] for record in caplog.records if record.levelname == "WARNING"] == ["folder_not_kept"]
    assert list(temporary.iterdir()) == []


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
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok
    place = DataPlace(session.record.spec.data, None, garments.fingerprint)
    scores = score_weights(session.record.spec, [stored_weights(session, trial)], place)
    assert (scores.probabilities.shape, scores.mirrored) == ((2_000, 10), None)


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
