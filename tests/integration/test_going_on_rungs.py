"""Trainings that go on from rung to rung, in memory or from files, as if without a pause; and the end of those cut."""

import logging
from pathlib import Path
from typing import Any

import pytest
from trained_studies import LADDER, MAX_EPOCHS, SEVERAL, begin_one, make_spec, open_study, results, run_worker

from fmnist_optuna.data.split import Splits
from fmnist_optuna.ledger.states import State
from fmnist_optuna.study.cuts import explain_cut, verify_study
from fmnist_optuna.training.loop import Training
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.work import objective as objective_module
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work
from fmnist_optuna.work.objective import KerasObjective

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]


def test_what_waits_in_memory_goes_before_the_process(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that grew past its limit lets its paused trainings go; one that has no room begins without any."""
    session = open_study(tmp_path, make_spec(SEVERAL, pruner=LADDER), garments.fingerprint)
    size = 0
    monkeypatch.setattr(objective_module, "_read_size", lambda: size)
    objective = KerasObjective(session, few_garments, memory_limit_bytes=2**40)
    cell_id = begin_one(session, objective)
    assert objective.in_memory() == [cell_id]
    size = 2**41
    begin_one(session, objective)
    assert objective.in_memory() == []
    size = 0
    crowded = KerasObjective(session, few_garments, memory_limit_bytes=1)
    begin_one(session, crowded)
    assert crowded.in_memory() == []


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


def test_each_training_that_was_cut_is_ended_once(
    tmp_path: Path, garments: Splits, few_garments: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the worker that has it in memory, those of the last decision when it ends; the whole ones are finished."""
    session = open_study(tmp_path, make_spec(SEVERAL, pruner=LADDER), garments.fingerprint)
    end, n_epochs = Training.end, []

    def ended(training: Training) -> None:
        n_epochs.append(training.n_epochs)
        end(training)

    monkeypatch.setattr(Training, "end", ended)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    assert any(cell.cut_at for cell in session.history.cells())
    assert sorted(n_epochs) == sorted(cell.cut_at or MAX_EPOCHS for cell in session.history.cells())


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
