"""The end of a study on both databases: over, stopped, or deleted, also by a delete that died halfway."""

from typing import Any

import pytest
from small_study import (
    FINGERPRINT,
    N_CELLS,
    ON_SQLITE,
    STUDY,
    begin_trial,
    claim_cell,
    create_study,
    epoch_of,
    finish_everything,
    make_spec,
    n_rows,
)
from sqlalchemy import func, select

from fmnist_optuna.bridge.storage import PatientStorage, open_optuna
from fmnist_optuna.errors import JoinRefusedError
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells, epochs
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study import deletion, joining
from fmnist_optuna.study.deletion import _delete_rows, delete_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study, find_study_or_none, raise_generation

# Over and stopped


@ON_SQLITE
def test_a_study_is_over_once_every_cell_has_its_end(session: Session) -> None:
    """The answer without counting is that of the counts, also of a study that was deleted."""
    is_over = [session.history.is_over()]
    claim = claim_cell(session)
    finish_everything(session)
    is_over += [session.history.is_over()]
    assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=False)
    finish_everything(session)
    is_over += [session.history.is_over(), session.history.counts().is_over]
    delete_study(session.storage, session.record)
    assert [*is_over, session.history.is_over()] == [False, False, True, True, True]


def test_stop_raises_the_generation_of_one_study(storage: Storage) -> None:
    """By one; other studies work on."""
    one, other = create_study(storage), create_study(storage, make_spec(name="other"))
    raise_generation(storage, one.study_id)
    assert find_study(storage, STUDY).generation == one.generation + 1
    assert find_study(storage, "other").generation == other.generation


# Deleted


def test_delete_removes_everything_of_one_study(session: Session) -> None:
    """Cells, curves, openings, workers, trials; and nothing of another."""
    other = create_study(session.storage, make_spec(name="other"))
    before = {**n_rows(session.storage), "fmnist_studies": 1, "fmnist_cells": N_CELLS}
    trial_id = begin_trial(session, claim := claim_cell(session))
    session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5))
    session.presence.register("worker", fresh_seconds=60.0)
    delete_study(session.storage, session.record)
    assert n_rows(session.storage) == before
    assert [study.study_name for study in open_optuna(session.storage).get_all_studies()] == ["other"]
    assert find_study(session.storage, None) == other


@pytest.mark.parametrize("n_done", [1, 2, 3])
def test_a_delete_that_died_halfway_is_repeated(session: Session, n_done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, at whatever transaction it ended."""
    finish_everything(session)
    left = [n_done]
    write = Storage.write

    def dying(storage: Storage) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return write(storage)

    monkeypatch.setattr(Storage, "write", dying)
    if n_done < 2:
        with pytest.raises(KeyboardInterrupt):
            delete_study(session.storage, session.record)
    monkeypatch.undo()
    delete_study(session.storage, find_study(session.storage, STUDY))
    assert find_study_or_none(session.storage, STUDY) is None
    assert n_rows(session.storage)["fmnist_cells"] == 0


def test_a_study_whose_deletion_broke_off_is_not_joined(session: Session) -> None:
    """The person is told to finish it; a new study that got its id (on SQLite) is told so too, and keeps nothing."""
    session.optuna_storage.delete_study(session.record.study_id)
    names = ["between", STUDY] if session.storage.is_sqlite else [STUDY]
    for name in names:
        with pytest.raises(JoinRefusedError, match=r"study small: .*fmnist-optuna delete small"):
            create_study(session.storage, make_spec(name=name))
    delete_study(session.storage, find_study(session.storage, STUDY))
    for name in ("between", STUDY):
        assert create_or_join(session.storage, make_spec(name=name), FINGERPRINT)[1] == N_CELLS


def test_trials_without_cells_are_not_joined(session: Session) -> None:
    """A deletion that ended between our rows and Optuna's: every new cell would have a second result beside it."""
    finish_everything(session)
    _delete_rows(session.storage, session.record.study_id)
    with pytest.raises(JoinRefusedError, match=r"study small: .*fmnist-optuna delete small"):
        create_study(session.storage)
    delete_study(session.storage, find_study(session.storage, STUDY))
    assert create_or_join(session.storage, make_spec(), FINGERPRINT)[1] == N_CELLS


def test_a_study_that_is_deleted_while_it_is_joined(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna has it no more when its row is made: cells without it would have no trials. Nothing of it is left."""
    create = joining._create_in_optuna

    def create_and_delete(storage: Storage, spec: StudySpec) -> int:
        study_id = create(storage, spec)
        delete_study(storage, session.record)
        return study_id

    monkeypatch.setattr(joining, "_create_in_optuna", create_and_delete)
    with pytest.raises(JoinRefusedError, match=r"^study small: was deleted a moment ago; run it again\.$"):
        create_study(session.storage)
    monkeypatch.undo()
    assert {name for name, n in n_rows(session.storage).items() if n} == {"fmnist_schema_version"}
    assert create_or_join(session.storage, make_spec(), FINGERPRINT)[1] == N_CELLS


def test_cells_that_come_during_a_deletion_go_with_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `run` that met the study half deleted has made them anew."""
    delete_in_optuna = deletion._delete_in_optuna

    def create_and_delete(trials: PatientStorage, study_id: int) -> None:
        create_study(session.storage)
        delete_in_optuna(trials, study_id)

    monkeypatch.setattr(deletion, "_delete_in_optuna", create_and_delete)
    delete_study(session.storage, session.record)
    assert {name for name, n in n_rows(session.storage).items() if n} == {"fmnist_schema_version"}


def test_a_worker_of_a_deleted_study_finds_nothing(session: Session) -> None:
    """No cell to renew, no trial to sweep, no error."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    delete_study(session.storage, session.record)
    assert session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5)) is None
    assert not session.ledger.renew(claim)
    assert session.ledger.claim("worker", session.record.generation) is None
    assert session.recovery.sweep() == 0
    assert session.recovery.requeue_dead() == []
    with session.storage.read() as connection:
        assert connection.execute(select(func.count()).select_from(epochs)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(cells)).scalar_one() == 0


def test_a_deleted_name_can_be_used_again(session: Session) -> None:
    """With another specification, from the first cell."""
    finish_everything(session)
    delete_study(session.storage, session.record)
    create_study(session.storage, make_spec(training={"seed": 1}))
    assert find_study(session.storage, STUDY).spec.training.seed == 1
    assert n_rows(session.storage)["fmnist_cells"] == N_CELLS
