"""Trainings that go on after a stop, a kill, a damaged checkpoint, and from rung to rung, as if without a pause."""

import logging
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from trained_studies import MAX_EPOCHS, all_trials, make_spec, open_study, run_worker

from fmnist_optuna.artifacts.checkpoints import Checkpoints
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.data.split import Splits
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import Grid
from fmnist_optuna.study.cuts import explain_cut, verify_study
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.training import array_file
from fmnist_optuna.training.engine import ResidentData
from fmnist_optuna.training.running_cell import CellTraining
from fmnist_optuna.work import objective as objective_module
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work
from fmnist_optuna.work.objective import KerasObjective
from fmnist_optuna.work.running_trial import RunningTrial

pytestmark = pytest.mark.usefixtures("one_thread")

ONE: Grid = {"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.01]}
SEVERAL: Grid = {"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.03, 0.001, 0.0001]}
LADDER = {"name": "ladder", "first_rung": 1, "margin": 0.0, "keep": 1}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, garments: Splits, few_garments: ResidentData) -> Session:
    """The cell of `ONE` trained in one go."""
    session = open_study(tmp_path_factory.mktemp("undisturbed"), make_spec(ONE), garments.fingerprint)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    return session


def results(session: Session) -> list[tuple[Any, ...]]:
    """Of each finished trial its parameters, weights, value and curve, in an order that does not depend on claims."""
    found = [
        (
            sorted(trial.params.items()),
            trial.user_attrs.get("weights_sha256"),
            trial.value,
            [(epoch.train_loss, epoch.val_accuracy) for epoch in session.history.curve(trial_id_of(trial))],
            trial.intermediate_values,
        )
        for trial in all_trials(session)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    return sorted(found, key=lambda result: str(result[0]))


def checkpoint_files(session: Session) -> list[Path]:
    return sorted(Checkpoints(session.storage.artifacts, session.record.study_id).folder.glob("*"))


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
    """Stopped in its second epoch; the next attempt keeps two epochs, says so, and has the same weights in the end."""
    session, leave = open_study(tmp_path, make_spec(ONE), garments.fingerprint), LeaveRequest()
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


@pytest.mark.parametrize(
    "state", ["whole", *(pytest.param(state, marks=pytest.mark.more) for state in ("damaged", "of another machine"))]
)
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
        monkeypatch.setattr(objective_module, "OF_NO_ACCOUNT", ())  # as if another processor had written it
    trained = count_epochs(monkeypatch)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    ((failed,), (complete,)) = by_state(session)
    n_kept = 2 if state == "whole" else 0
    assert (failed.user_attrs["reason"], complete.user_attrs.get("kept_epochs", 0)) == ("killed", n_kept)
    assert trained == list(range(n_kept, MAX_EPOCHS))
    assert results(session) == results(undisturbed)
    assert ("checkpoint_not_used" in caplog.text) == (state != "whole")


def test_rungs_change_no_number(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, caplog: pytest.LogCaptureFixture
) -> None:
    """Each cell has the curve that it has without a pruner, up to where it was cut, whoever keeps it meanwhile."""
    whole = open_study(tmp_path / "whole", make_spec(SEVERAL), garments.fingerprint)
    run_worker(whole, few_garments)
    full = {str(params): (weights, value, curve) for params, weights, value, curve, _ in results(whole)}
    session = open_study(tmp_path / "rungs", make_spec(SEVERAL, pruner=LADDER), garments.fingerprint)
    with caplog.at_level(logging.INFO):
        assert run_worker(session, few_garments) is WorkerEnd.DONE
    assert (verify_study(session).ok, verify_study(session).problems) == (True, ())
    goes_on = [vars(record) for record in caplog.records if vars(record).get("event") == "trial_goes_on"]
    assert {each["origin"] for each in goes_on} == {"memory"}
    cut = [cell for cell in session.history.cells() if cell.state is State.PRUNED]
    assert 0 < len(cut) < len(full)
    for params, weights, value, curve, _ in results(session):
        expected = full[str(params)]
        is_whole = len(curve) == MAX_EPOCHS
        assert curve == expected[2][: len(curve)]
        assert not is_whole or (weights, value) == expected[:2]
    for cell in cut:
        sentence = explain_cut(session, cell.trial_id or 0)
        assert sentence is not None
        assert sentence.startswith(f"cut at epoch {cell.cut_at}: ")


def test_trainings_that_were_cut_leave_the_memory(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a cell trains, no other is in memory but those that may go on from where they were paused."""
    session = open_study(tmp_path, make_spec(SEVERAL, pruner=LADDER), garments.fingerprint)
    objective = KerasObjective(session, few_garments)
    train, kept = objective._run, []

    def run(*arguments: Any) -> Any:
        racing = {cell.cell_id for cell in session.history.cells() if cell.cut_at is None}
        kept.append((set(objective.in_memory()) & racing, set(objective.in_memory()) - racing))
        return train(*arguments)

    monkeypatch.setattr(objective, "_run", run)
    generation = session.record.generation
    assert work(session, objective, LeaveRequest(), generation, in_memory=objective.in_memory) is WorkerEnd.DONE
    assert any(racing for racing, _ in kept)
    assert not any(cut for _, cut in kept)
    assert len(kept) > len(SEVERAL["learning_rate"])  # somebody trained after the first decision


REMOVED = {
    "before its folder is made": (objective_module, "_save_checkpoint"),
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
    assert not session.checkpoints.folder.parent.exists()
    assert "trial_failed" not in caplog.text
    if how == "the folder":
        assert end is WorkerEnd.DONE
        assert [trial.state for trial in all_trials(session)] == [TrialState.COMPLETE]


@pytest.mark.more
def test_a_cell_goes_on_in_another_process(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing in memory, every leg begins from its checkpoint; the results are the same."""
    first = open_study(tmp_path / "memory", make_spec(SEVERAL, pruner=LADDER), garments.fingerprint)
    run_worker(first, few_garments)
    second = open_study(tmp_path / "files", make_spec(SEVERAL, pruner=LADDER), garments.fingerprint)
    monkeypatch.setattr("fmnist_optuna.training.paused.N_AT_MOST", 0)
    monkeypatch.setattr("fmnist_optuna.training.paused.PausedTrainings.keep", lambda self, _, cell: cell.close())
    run_worker(second, few_garments)
    assert results(first) == results(second)
