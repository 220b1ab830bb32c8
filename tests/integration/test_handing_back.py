"""A worker that leaves by force: what it holds is given back by another thread, wherever its own thread is by then."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from small_study import N_CELLS, POSTGRES_MORE, epoch_of, stub_objective, value_of

from fmnist_optuna.bridge.trials import Outcome, tell
from fmnist_optuna.cli.working import hand_back
from fmnist_optuna.ledger.states import State
from fmnist_optuna.study.new_trial import create_trial
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work import attempt
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work
from fmnist_optuna.work.running_trial import RunningTrial

Give = Callable[[], None]


def work_and_be_left(session: Session, leave: LeaveRequest, objective: attempt.Objective) -> tuple[int, int, int]:
    """Cells that wait, run and are done once the worker has come to its end; it may claim nothing more."""
    session.presence.register("worker", fresh_seconds=60.0)
    assert work(session, objective, leave, session.record.generation) is WorkerEnd.STOPPED
    assert session.presence.processes() == {}
    counts = session.history.counts()
    return counts.waiting, counts.running, counts.done


@pytest.fixture
def leave() -> LeaveRequest:
    return LeaveRequest()


@pytest.fixture
def give(session: Session, leave: LeaveRequest) -> Give:
    """Ask the worker to leave, and give back all that it holds from another thread, as a signal's thread does."""

    def give() -> None:
        leave.set()
        thread = threading.Thread(target=hand_back, args=[session])
        thread.start()
        thread.join()

    return give


@POSTGRES_MORE
@pytest.mark.parametrize("when", ["before the first epoch", "within the second epoch", "before it tells its result"])
def test_what_is_given_back_waits_and_counts_nothing(
    session: Session, leave: LeaveRequest, give: Give, when: str
) -> None:
    """The trial has failed as stopped, whatever its own thread does afterwards; the next worker has all four cells."""

    def objective(params: Mapping[str, Any], _seed: int, running: RunningTrial) -> Outcome | None:
        if when == "before the first epoch":
            give()
        if not running.report(epoch_of(0, value_of(params))):
            return None
        if when == "within the second epoch":
            give()
            assert not running.report(epoch_of(1, value_of(params)))
            assert running.ending == "lost"
            return None
        give()
        return Outcome(State.COMPLETE, value_of(params))

    assert work_and_be_left(session, leave, objective) == (N_CELLS, 0, 0)
    (trial,) = session.optuna_storage.get_all_trials(session.record.study_id)
    assert (trial.state.name, trial.user_attrs["reason"]) == ("FAIL", "stopped")
    assert work(session, stub_objective, LeaveRequest(), session.record.generation) is WorkerEnd.DONE
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok


@POSTGRES_MORE
def test_a_result_that_was_told_is_kept(
    session: Session, leave: LeaveRequest, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back after the tell and before the cell knows of it: the cell is done, with that result."""

    def tell_and_give(*arguments: Any) -> None:
        tell(*arguments)
        give()

    monkeypatch.setattr(attempt, "tell", tell_and_give)
    assert work_and_be_left(session, leave, stub_objective) == (N_CELLS - 1, 0, 1)


@POSTGRES_MORE
def test_a_trial_that_is_not_bound_yet_is_swept(
    session: Session, leave: LeaveRequest, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back between claim and bind: the worker fails its own trial and trains nothing."""

    def create_and_give(*arguments: Any) -> int:
        trial_id = create_trial(*arguments)
        give()
        return trial_id

    monkeypatch.setattr(attempt, "create_trial", create_and_give)
    assert work_and_be_left(session, leave, stub_objective) == (N_CELLS, 0, 0)
    (trial,) = session.optuna_storage.get_all_trials(session.record.study_id)
    assert trial.state.name == "FAIL"
