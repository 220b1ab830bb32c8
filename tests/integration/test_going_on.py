"""Trainings that go on after a stop, a kill, a damaged checkpoint or on another machine, as if without a pause."""

import errno
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from small_study import read_cell
from trained_studies import (
    LADDER,
    MAX_EPOCHS,
    SEVERAL,
    all_trials,
    begin_one,
    make_spec,
    open_study,
    results,
    run_worker,
)
from users_modules import MakeModule

from fmnist_optuna.artifacts.checkpoints import Checkpoints
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.results import reproduction
from fmnist_optuna.search.cell import Grid, Params
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.training import array_file
from fmnist_optuna.training.cell_training import train_cell
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.running_cell import CellTraining
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.training.weights import hash_weights
from fmnist_optuna.work import attempt as attempt_module
from fmnist_optuna.work import objective as objective_module
from fmnist_optuna.work.environment import read_environment
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work
from fmnist_optuna.work.objective import KerasObjective
from fmnist_optuna.work.running_trial import RunningTrial

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

ONE: Grid = {"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.01]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, garments: Splits, few_garments: ResidentData) -> Session:
    """The cell of `ONE` trained in one go."""
    session = open_study(tmp_path_factory.mktemp("undisturbed"), make_spec(ONE), garments.fingerprint)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    return session


def checkpoint_files(session: Session) -> list[Path]:
    return sorted(checkpoint_folder(session).glob("*"))


def checkpoint_folder(session: Session) -> Path:
    return Checkpoints(session.storage.artifacts, session.record.study_id).folder


def stop_after(monkeypatch: pytest.MonkeyPatch, n_epochs: int, leave: LeaveRequest) -> None:
    """Ask the worker to leave in an epoch, which it still ends."""
    report = RunningTrial.report

    def reported(self: RunningTrial, epoch: Any, *, can_prune: bool = True) -> bool:
        if epoch.epoch + 1 == n_epochs:
            leave.set()
        return report(self, epoch, can_prune=can_prune)

    monkeypatch.setattr(RunningTrial, "report", reported)


def by_state(session: Session) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Failed trials, and the others."""
    trials = all_trials(session)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    return failed, [trial for trial in trials if trial.state is not TrialState.FAIL]


def test_a_stopped_training_goes_on(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, undisturbed: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its second epoch; the next attempt keeps two epochs, says so, and has the same weights in the end.

    What a process that was killed left of its writing is removed.
    """
    session, leave = open_study(tmp_path, make_spec(ONE), garments.fingerprint), LeaveRequest()
    (cell,) = session.history.cells()
    checkpoint_folder(session).mkdir(parents=True)
    (checkpoint_folder(session) / f".{cell.cell_id}.0123.part").touch()
    with monkeypatch.context() as patch:
        stop_after(patch, 2, leave)
        assert run_worker(session, few_garments, leave) is WorkerEnd.STOPPED
    assert len(checkpoint_files(session)) == 1
    trained = count_epochs(monkeypatch)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    ((failed,), (complete,)) = by_state(session)
    assert (failed.user_attrs["reason"], complete.user_attrs["kept_epochs"]) == ("stopped", 2)
    assert trained == list(range(2, MAX_EPOCHS))
    assert results(session) == results(undisturbed)
    assert checkpoint_files(session) == []


def count_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The 0-based epochs that are reported from here on."""
    trained: list[int] = []
    report = RunningTrial.report

    def reported(self: RunningTrial, epoch: Any, *, can_prune: bool = True) -> bool:
        trained.append(epoch.epoch)
        return report(self, epoch, can_prune=can_prune)

    monkeypatch.setattr(RunningTrial, "report", reported)
    return trained


def die_in(session: Session, few_garments: ResidentData, monkeypatch: pytest.MonkeyPatch, n_epochs: int) -> None:
    """A worker that is gone in the middle of an epoch; its cell is taken back."""

    def reported(self: RunningTrial, epoch: Any, *, can_prune: bool = True) -> bool:
        if epoch.epoch + 1 == n_epochs:
            raise KeyboardInterrupt  # the only thing that an attempt lets through untouched
        return report(self, epoch, can_prune=can_prune)

    report = RunningTrial.report
    with monkeypatch.context() as patch:
        patch.setattr(RunningTrial, "report", reported)
        with pytest.raises(KeyboardInterrupt):
            run_worker(session, few_garments)
    for cell in session.ledger.held_cells():
        assert session.recovery.requeue(cell, TrialAttributes(reason="killed", exit_code=-9))


def test_an_older_training_in_memory_is_not_used(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, undisturbed: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has the cell in memory at epoch 1, another is killed in epoch 4: it goes on from the checkpoint at 3."""
    session = open_study(tmp_path, make_spec(ONE, pruner=LADDER), garments.fingerprint)
    objective = KerasObjective(session, few_garments)
    cell_id = begin_one(session, objective)
    monkeypatch.setattr(objective_module.KerasObjective, "_is_due", lambda *_: True)
    die_in(session, few_garments, monkeypatch, 4)
    assert objective.in_memory() == [cell_id]
    trained, generation = count_epochs(monkeypatch), session.record.generation
    assert work(session, objective, LeaveRequest(), generation, in_memory=objective.in_memory) is WorkerEnd.DONE
    assert trained == [3]
    assert results(session) == results(undisturbed)


def test_a_trial_of_another_machine_is_begun_anew(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trial mixes the numbers of two kinds of machines: one that is parked fails uncounted, and a new one begins."""
    keep_all = {**LADDER, "keep": len(SEVERAL["learning_rate"])}
    session, leave = open_study(tmp_path, make_spec(SEVERAL, pruner=keep_all), garments.fingerprint), LeaveRequest()
    with monkeypatch.context() as patch:
        stop_after(patch, 2, leave)  # all cells have come to the first rung by then
        assert run_worker(session, few_garments, leave) is WorkerEnd.STOPPED
    other = {**read_environment(), "cpu": "another"}
    for module in (attempt_module, objective_module):
        monkeypatch.setattr(module, "read_environment", lambda: other)
    trained = count_epochs(monkeypatch)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    failed, complete = by_state(session)
    assert sorted(trial.user_attrs["reason"] for trial in failed) == ["moved", "moved", "stopped"]
    assert [trial.user_attrs["environment"]["cpu"] for trial in complete] == ["another"] * 3
    assert sorted(trained) == sorted(list(range(MAX_EPOCHS)) * 3)
    assert {(row.state, row.lost, row.failures) for row in cell_rows(session)} == {("done", 0, 0)}
    assert verify_study(session).ok


def cell_rows(session: Session) -> list[Any]:
    return [read_cell(session.storage, cell.cell_id) for cell in session.history.cells()]


def test_a_checkpoint_that_is_refused_fails_no_cell(
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    undisturbed: Session,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where nothing rests on checkpoints, one that the system refuses to write is a warning."""
    session = open_study(tmp_path, make_spec(ONE), garments.fingerprint)
    monkeypatch.setattr(objective_module.KerasObjective, "_is_due", lambda *_: True)

    def refused(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(CellTraining, "save", refused)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    assert results(session) == results(undisturbed)
    warnings = [record for record in caplog.records if vars(record).get("event") == "no_checkpoint"]
    assert {record.levelno for record in warnings} == {logging.WARNING}


NUMBERED = """
import keras
class Shrinks(keras.callbacks.Callback):
    def __init__(self, number):
        super().__init__()
        self.number = number
    def on_epoch_end(self, epoch, logs=None):
        kernel = self.model.trainable_variables[0]
        kernel.assign(kernel.numpy() * (1 - 0.1 * self.number))
def shrinks(trial):
    return Shrinks(trial)
"""


@pytest.mark.usefixtures("settings_set_back")
def test_a_trial_that_went_on_is_reproduced(
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    make_module: MakeModule,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its callbacks are told the number of the attempt that began the training, as they were then."""
    training = {"callbacks": [f"{make_module('users_numbered', NUMBERED)}:shrinks"]}
    session, leave = open_study(tmp_path, make_spec(ONE, training), garments.fingerprint), LeaveRequest()
    with monkeypatch.context() as patch:
        stop_after(patch, 2, leave)
        run_worker(session, few_garments, leave)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    (complete,) = by_state(session)[1]
    assert (complete.number, complete.user_attrs["told_number"]) == (1, 0)

    def train_again(_: object, spec: StudySpec, params: Params, told: int, seed: int, *__: object, doing: str) -> Any:
        model, result = train_cell(UserCode(spec, FASHION_MNIST), params, seed, few_garments, [], told)
        return SimpleNamespace(result=lambda: (result.epochs, hash_weights(model), {}, []))

    monkeypatch.setattr(reproduction, "Call", train_again)  # whose child would train on all images
    assert reproduction.reproduce_trial(session, 1, None).matches


@pytest.mark.parametrize("state", ["whole", "damaged", "of another machine"])
def test_a_killed_training_goes_on_from_its_checkpoint(
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    undisturbed: Session,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    state: str,
) -> None:
    """One is written after each epoch here; one that cannot be used costs the epochs, not the result."""
    session = open_study(tmp_path, make_spec(ONE), garments.fingerprint)
    monkeypatch.setattr(objective_module.KerasObjective, "_is_due", lambda *_: True)
    die_in(session, few_garments, monkeypatch, 3)
    (file,) = checkpoint_files(session)
    if state == "damaged":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif state == "of another machine":
        monkeypatch.setattr(objective_module, "CHANGES_NO_NUMBER", ())  # as if another processor had written it
    trained = count_epochs(monkeypatch)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    ((failed,), (complete,)) = by_state(session)
    n_kept = 2 if state == "whole" else 0
    assert (failed.user_attrs["reason"], complete.user_attrs.get("kept_epochs", 0)) == ("killed", n_kept)
    assert trained == list(range(n_kept, MAX_EPOCHS))
    assert results(session) == results(undisturbed)
    assert ("checkpoint_not_used" in caplog.text) == (state != "whole")


REMOVED = {
    "before its folder is made": (objective_module, "save_checkpoint"),
    "before it is written": (CellTraining, "save"),
    "before it is in place": (array_file, "flush"),
}


@pytest.mark.parametrize("moment", list(REMOVED))
@pytest.mark.parametrize("how", ["the folder", "the study"])
def test_a_checkpoint_meets_the_removal_of_its_folder(
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    moment: str,
    how: str,
) -> None:
    """By hand, and the training does not notice; by `delete`, and the worker ends and leaves no folder behind."""
    session = open_study(tmp_path, make_spec(ONE), garments.fingerprint)
    monkeypatch.setattr(objective_module.KerasObjective, "_is_due", lambda *_: True)
    place, name = REMOVED[moment]
    write = getattr(place, name)
    removals: list[str] = []

    def removed_before(*arguments: Any) -> Any:
        if not removals:
            removals.append(moment)
            delete_study(session.storage, session.record) if how == "the study" else session.checkpoints.remove_all()
        return write(*arguments)

    monkeypatch.setattr(place, name, removed_before)
    end = run_worker(session, few_garments)
    assert removals == [moment]
    assert not checkpoint_folder(session).parent.exists()
    assert "trial_failed" not in caplog.text
    if how == "the folder":
        assert end is WorkerEnd.DONE
        assert [trial.state for trial in all_trials(session)] == [TrialState.COMPLETE]
