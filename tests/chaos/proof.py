"""What must hold after every bad day: one result a cell, nothing twice, nothing stuck, weights readable."""

import hashlib
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from stored_files import weights_path

from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import Verification, verify


def prove(session: Session, n_cells: int) -> Verification:
    """Assert that a study is finished and sound; its stub weights are those that its trials name."""
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    assert found.problems == ()
    assert (found.ok, found.n_cells, found.n_results) == (True, n_cells, n_cells)
    assert (found.n_duplicates, found.n_surplus, found.n_failed, found.n_running) == (0, 0, 0, 0)
    for trial in completed(session):
        path = weights_path(session, trial)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == trial.user_attrs["weights_sha256"]
    return found


def completed(session: Session) -> list[FrozenTrial]:
    """The COMPLETE trials."""
    states: Any = (TrialState.COMPLETE,)
    return list(session.optuna_storage.get_all_trials(session.record.study_id, deepcopy=False, states=states))


def assert_nothing_stray(sessions: Sequence[Session]) -> None:
    """The artifact folder holds the weights of COMPLETE trials of these studies, and no other file or part of one."""
    folder = sessions[0].storage.artifacts
    kept = {weights_path(session, trial) for session in sessions for trial in completed(session)}
    assert {path for path in folder.rglob("*") if path.is_file()} == kept
