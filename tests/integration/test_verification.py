"""The proof of exactly one result a cell: it holds for a finished study, and every tampering is found."""

from typing import Any

import pytest
from optuna.trial import TrialState
from small_study import (
    GRID,
    N_CELLS,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    create_study,
    finish_everything,
    finish_trial,
    make_spec,
    set_cell,
    value_of,
)
from small_study import create_trial as create_attempt
from sqlalchemy import select

from fmnist_optuna.ledger.records import Claim, TrialAttributes
from fmnist_optuna.ledger.tables import cells
from fmnist_optuna.search.cell import make_points
from fmnist_optuna.study import new_trial
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import Verification, verify

OK = Verification(N_CELLS, N_CELLS, 0, 0, 0, 0, 0, ())


def check(session: Session) -> Verification:
    return verify(session.storage, session.optuna_storage, session.record.study_id)


@pytest.fixture
def finished(session: Session) -> Session:
    """The small study with every cell COMPLETE."""
    finish_everything(session)
    return session


def a_done_cell(session: Session) -> Any:
    with session.storage.read() as connection:
        return connection.execute(select(cells).where(cells.c.state == "done").order_by(cells.c.position)).first()


def add_finished_trial(session: Session, cell_id: str, state: TrialState) -> None:
    """A further result of a cell, as a broken worker would make it."""
    params = next(cell.params for cell in make_points(GRID) if cell.cell_id == cell_id)
    trial_id = new_trial.create_trial(session, cell_id, "0" * 32, params, TrialAttributes())
    session.optuna_storage.set_trial_state_values(trial_id, state, [0.5])


def problem(found: Verification) -> str:
    (line,) = found.problems
    return line


@ON_SQLITE
@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED])
def test_a_second_result_of_a_cell_is_a_duplicate(finished: Session, state: TrialState) -> None:
    """Whatever its state, one result a cell is the promise."""
    add_finished_trial(finished, a_done_cell(finished).cell_id, state)
    found = check(finished)
    assert (found.ok, found.n_duplicates, found.n_results, found.n_missing) == (False, 1, N_CELLS - 1, 1)
    assert problem(found).endswith("has 2 finished trials, must have at most one")


def test_a_changed_value_is_found(finished: Session) -> None:
    """Cell and trial must agree to the last bit."""
    row = a_done_cell(finished)
    set_cell(finished.storage, row.cell_id, value=row.value + 1e-15)
    found = check(finished)
    assert (found.ok, found.n_results) == (False, N_CELLS - 1)
    assert f"has the value {row.value + 1e-15!r}, but trial {row.trial_number} has {row.value!r}" in problem(found)


@ON_SQLITE
def test_a_changed_result_is_found(finished: Session) -> None:
    """COMPLETE is not PRUNED."""
    row = a_done_cell(finished)
    set_cell(finished.storage, row.cell_id, result="PRUNED")
    assert f"says PRUNED, but trial {row.trial_number} is COMPLETE" in problem(check(finished))


@ON_SQLITE
def test_changed_parameters_are_found(finished: Session) -> None:
    """The trial must have been trained with the parameters of its cell."""
    row = a_done_cell(finished)
    set_cell(finished.storage, row.cell_id, params='{"hidden_size": 1, "dropout_rate": 0.0}')
    assert f"has other parameters than trial {row.trial_number}" in problem(check(finished))


@ON_SQLITE
def test_a_cell_that_names_a_trial_of_another_cell_is_found(finished: Session) -> None:
    """A finished trial is a result of its own cell only."""
    row = a_done_cell(finished)
    set_cell(finished.storage, row.cell_id, trial_id=row.trial_id + 1)
    assert f"names trial id {row.trial_id + 1}, which is not a finished trial of this cell" in problem(check(finished))


@ON_SQLITE
def test_a_finished_trial_without_a_result_in_its_cell_is_found(finished: Session) -> None:
    """A cell that waits again would be trained twice."""
    row = a_done_cell(finished)
    set_cell(finished.storage, row.cell_id, state="waiting", trial_id=None)
    found = check(finished)
    assert (found.ok, found.n_missing) == (False, 1)
    assert problem(found).endswith("has a finished trial, but no result")


@ON_SQLITE
def test_a_running_trial_without_a_cell_is_surplus(finished: Session) -> None:
    """An attempt of ours that nobody swept."""
    params = make_points(GRID)[0].params
    claim = Claim(a_done_cell(finished).cell_id, "0" * 32, params, 2)
    create_attempt(finished, claim)
    found = check(finished)
    assert (found.ok, found.n_surplus) == (False, 1)


@ON_SQLITE
def test_a_failed_trial_is_no_result(finished: Session) -> None:
    """Attempts may die; they are not counted."""
    cell_id = a_done_cell(finished).cell_id
    trial_id = new_trial.create_trial(finished, cell_id, "0" * 32, make_points(GRID)[0].params, TrialAttributes())
    finished.optuna_storage.set_trial_state_values(trial_id, TrialState.FAIL)
    assert check(finished) == OK


def test_an_unfinished_study_is_not_ok(session: Session) -> None:
    """Nothing contradicts, but results are missing: running, told a moment ago, waiting and failed ones."""
    begin_trial(session, claim_cell(session))
    finish_trial(session, begin_trial(session, claim_cell(session)), 0.5)
    set_cell(session.storage, claim_cell(session).cell_id, state="failed", token=None)
    found = check(session)
    assert found == Verification(N_CELLS, 0, 0, N_CELLS, 1, 2, 0, ())
    assert not found.ok


def test_a_finished_study_is_ok(finished: Session) -> None:
    """Every cell exactly one result, nothing else."""
    assert check(finished) == OK
    assert check(finished).ok


def test_a_grown_study_is_ok_when_the_new_cells_are_done(finished: Session) -> None:
    """The union of all accepted grids counts."""
    larger = make_spec({**GRID, "hidden_size": [64, 256]})
    create_study(finished.storage, larger)
    assert not check(finished).ok
    finish_everything(finished_again(finished))
    assert check(finished) == Verification(N_CELLS + 2, N_CELLS + 2, 0, 0, 0, 0, 0, ())


def finished_again(session: Session) -> Session:
    """The same process after it has read the study anew."""
    from fmnist_optuna.study.studies import find_study

    return Session(session.storage, find_study(session.storage, session.record.name), "again")


@ON_SQLITE
def test_cells_that_move_are_read_again(finished: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study at work is judged by one moment, not by two halves of different moments."""
    from fmnist_optuna.study import verification

    read, answers = verification._read_cells, []

    def moving(*arguments: Any) -> Any:
        answers.append(1)
        return read(*arguments) if len(answers) != 2 else ["another moment"]

    monkeypatch.setattr(verification, "_read_cells", moving)
    monkeypatch.setattr(verification, "READ_PAUSE_SECONDS", 0.0)
    assert check(finished) == OK
    assert len(answers) == 4


def test_the_values_of_these_tests_differ_from_cell_to_cell() -> None:
    """So that a value copied to the wrong cell would show."""
    assert len({value_of(cell.params) for cell in make_points(GRID)}) == N_CELLS
