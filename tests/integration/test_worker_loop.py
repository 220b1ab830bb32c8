"""A worker's loop with stub objectives: when it works, waits, sweeps and leaves; and four of them on one grid."""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import optuna
import pytest
from one_attempt import boom, requeue_all
from optuna.samplers import GridSampler
from optuna.trial import TrialState
from small_study import (
    GRID,
    LOST,
    N_CELLS,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    in_processes,
    make_spec,
    open_session,
    stub_objective,
    value_of,
)
from sqlalchemy import update

from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.tables import workers
from fmnist_optuna.search.cell import Grid, Params, make_points
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import raise_generation
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.limits import WorkerLimits
from fmnist_optuna.work.loop import (
    LONGEST_CROWD,
    N_WATCHERS,
    RUNG_POLL_SECONDS,
    WAIT_SLICE_SECONDS,
    LeaveRequest,
    WorkerEnd,
    _look_for_work,
    crowd,
    work,
)
from fmnist_optuna.work.running_trial import RunningTrial

Sessions = Callable[..., Session]


def test_a_worker_works_until_nothing_is_left(session: Session) -> None:
    """Every cell, then it leaves the list of workers."""
    session.presence.register("worker", fresh_seconds=60.0)
    assert work(session, stub_objective, LeaveRequest(), session.record.generation) is WorkerEnd.DONE
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok
    assert session.presence.processes() == {}


def test_a_worker_waits_for_the_cell_of_another(session: Session, new_session: Sessions) -> None:
    """It does not leave while anything runs: the other may die."""
    other = new_session("other")
    claim = claim_cell(other)
    trial_id = begin_trial(other, claim)
    ends: list[WorkerEnd] = []
    thread = threading.Thread(
        target=lambda: ends.append(work(session, stub_objective, LeaveRequest(), session.record.generation))
    )
    thread.start()
    deadline = time.monotonic() + 20.0
    while other.history.counts().done < N_CELLS - 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert thread.is_alive()
    other.recovery.requeue_worker("other", LOST)
    thread.join(20.0)
    assert ends == [WorkerEnd.DONE]
    assert other.optuna_storage.get_trial(trial_id).state == TrialState.FAIL
    assert verify(other.storage, other.optuna_storage, other.record.study_id).ok


@ON_SQLITE
def test_a_worker_sweeps_before_it_leaves(session: Session, new_session: Sessions) -> None:
    """A trial that somebody created and never bound is failed by the last one."""
    other = new_session("other")
    claim = claim_cell(other)
    begin_trial(other, claim)
    requeue_all(session)
    from small_study import create_trial

    orphan, _ = create_trial(other, claim)
    assert work(session, stub_objective, LeaveRequest(), session.record.generation) is WorkerEnd.DONE
    assert session.optuna_storage.get_trial(orphan).state == TrialState.FAIL


@ON_SQLITE
@pytest.mark.parametrize("by", ["stop", "leave"])
def test_a_worker_that_is_told_to_leave_leaves(session: Session, by: str) -> None:
    """At once, with no cell in its hands."""
    leave, generation = LeaveRequest(), session.record.generation
    if by == "stop":
        raise_generation(session.storage, session.record.study_id)
    else:
        leave.set()
    assert work(session, boom, leave, generation) is WorkerEnd.STOPPED
    assert session.history.counts().waiting == N_CELLS


@ON_SQLITE
def test_a_worker_rests_while_another_is_claiming_the_last_cell(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres skips a row that is locked: its cell waits, and yet nobody gets it. Ten looks a second, no more."""
    leave, looks = LeaveRequest(), []

    def claim(*_: object) -> None:
        looks.append(time.monotonic())
        if len(looks) == 4:
            leave.set()

    monkeypatch.setattr(session.ledger, "claim", claim)
    assert work(session, boom, leave, session.record.generation) is WorkerEnd.STOPPED
    assert min(later - earlier for earlier, later in itertools.pairwise(looks)) >= WAIT_SLICE_SECONDS


@ON_SQLITE
def test_a_worker_that_grew_too_large_leaves_between_cells(session: Session) -> None:
    """Its place is taken by a fresh process; the finished cell is done."""
    end = work(session, stub_objective, LeaveRequest(), session.record.generation, WorkerLimits(memory_bytes=1))
    assert end is WorkerEnd.RECYCLED
    counts = session.history.counts()
    assert (counts.waiting, counts.running, counts.done, counts.failed) == (N_CELLS - 1, 0, 1, 0)


@ON_SQLITE
def test_a_worker_leaves_after_so_many_trials(session: Session) -> None:
    """With three of four cells done, and off the list."""
    session.presence.register("worker", fresh_seconds=60.0)
    end = work(session, stub_objective, LeaveRequest(), session.record.generation, WorkerLimits(max_trials=3))
    assert end is WorkerEnd.MAX_TRIALS
    counts = session.history.counts()
    assert (counts.waiting, counts.done) == (N_CELLS - 3, 3)
    assert session.presence.processes() == {}


@ON_SQLITE
def test_attempts_without_a_result_count_as_trials(session: Session, new_session: Sessions) -> None:
    """One that was lost with its lease, and one that failed: no cell is done, and the worker leaves all the same."""
    healer, ends = new_session("healer"), iter(["lost", "failed"])

    def objective(params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        if next(ends) == "failed":
            return boom(params, seed, running)
        requeue_all(healer)
        return stub_objective(params, seed, running)

    end = work(session, objective, LeaveRequest(), session.record.generation, WorkerLimits(max_trials=2))
    assert end is WorkerEnd.MAX_TRIALS
    counts = session.history.counts()
    assert (counts.waiting, counts.done, counts.failed) == (N_CELLS, 0, 0)
    reasons = [trial.user_attrs["reason"] for trial in session.optuna_study.get_trials(deepcopy=False)]
    assert reasons == ["lost", "exception"]


@ON_SQLITE
def test_a_worker_leaves_once_it_has_been_idle(session: Session, new_session: Sessions) -> None:
    """Another one has the last cell; what it could claim before does not count as idle."""
    other = new_session("other")
    claim = claim_cell(other)
    begin_trial(other, claim)
    limits, began = WorkerLimits(idle_seconds=0.3), time.monotonic()
    assert work(session, stub_objective, LeaveRequest(), session.record.generation, limits) is WorkerEnd.IDLE
    assert time.monotonic() - began >= 0.3
    assert (session.history.counts().running, session.history.counts().done) == (1, N_CELLS - 1)


WIDE: Grid = {"hidden_size": [16, 32, 64, 128], "dropout_rate": [0.0, 0.25, 0.5]}


def work_on(number: int, url: str, generation: int) -> str:
    """Body of a worker process."""
    session = open_session(url, f"w{number}")
    session.presence.register(f"w{number}", fresh_seconds=60.0)
    return work(session, stub_objective, LeaveRequest(), generation).value


def test_four_processes_finish_a_grid_and_stock_optuna_reads_it(storage_url: str, new_session: Sessions) -> None:
    """Each of the 12 cells once; GridSampler finds the grid exhausted and the same best trial."""
    session = new_session("reader", spec=make_spec(WIDE))
    ends = in_processes(4, work_on, storage_url, session.record.generation)
    assert ends == ["done"] * 4
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    assert (found.ok, found.n_results) == (True, len(make_points(WIDE)))
    sampler = GridSampler(WIDE)
    study = optuna.load_study(study_name=session.record.name, storage=storage_url, sampler=sampler)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 12
    assert sampler.is_exhausted(study)
    best = session.history.best()
    assert best is not None
    assert (study.best_trial.number, study.best_value, study.best_params) == (
        best.trial_number,
        best.val_accuracy,
        best.params,
    )
    assert best.params == {"hidden_size": 128, "dropout_rate": 0.5}
    assert {(type(t.params["hidden_size"]), type(t.params["dropout_rate"])) for t in study.trials} == {(int, float)}
    assert {trial.value for trial in study.trials} == {value_of(cell.params) for cell in make_points(WIDE)}


def test_stock_optuna_adds_nothing_to_a_finished_study(session: Session, storage_url: str) -> None:
    """`optimize` with the same grid stops after the trial that finds it exhausted, which counts for nothing."""
    work(session, stub_objective, LeaveRequest(), session.record.generation)
    study = optuna.load_study(study_name=session.record.name, storage=storage_url, sampler=GridSampler(GRID))
    study.optimize(lambda trial: 0.0, n_trials=1)
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    assert (found.ok, found.n_results, found.n_surplus, found.n_foreign) == (True, N_CELLS, 0, 1)


@pytest.mark.parametrize(
    ("place", "times"),
    [(0, 1.0), (N_WATCHERS - 1, 1.0), (2 * N_WATCHERS - 1, 2.0), (1000, LONGEST_CROWD)],
)
def test_a_crowd_without_work_looks_more_rarely(place: int, times: float) -> None:
    """So that all together ask no more than a few would, and a few ask as often as one."""
    assert crowd(place) == times


def test_nobody_waits_long_for_a_rung_or_the_end() -> None:
    """However many wait: 2 s once a rung is decided, and a third of a lease, in which it is still seen, once all is."""
    timing = Timing()
    assert crowd(1_000_000) * RUNG_POLL_SECONDS <= 2.0
    assert crowd(1_000_000) * timing.poll_seconds <= timing.lease_seconds / 3


def test_a_worker_has_its_place_among_the_idle(new_session: Sessions) -> None:
    """Of its own study: those that hold a cell or were not seen within a lease do not count."""
    sessions = {name: new_session(name) for name in ("first", "second", "third")}
    third = sessions["third"].presence
    assert third.place_in_crowd("third") == (0, 0)
    for name, session in sessions.items():
        session.presence.register(name, fresh_seconds=60.0)
    assert [third.place_in_crowd(name) for name in sessions] == [(0, 0), (1, 1), (2, 2)]
    assert sessions["first"].ledger.claim("first", sessions["first"].record.generation) is not None
    assert [third.place_in_crowd(name) for name in sessions] == [(0, 0), (0, 0), (1, 1)]
    with sessions["first"].storage.write() as connection:
        connection.execute(update(workers).where(workers.c.worker_id == "second").values(last_seen=0.0))
    assert third.place_in_crowd("third") == (0, 0)


def test_watchers_alone_take_cells_from_the_dead(new_session: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """One behind them does not look for them, and the first does; so does who is the first on its host."""
    dead, watcher, other = new_session("dead"), new_session("a"), new_session("b")
    monkeypatch.setattr("fmnist_optuna.work.loop.N_WATCHERS", 1)
    for session in (dead, watcher, other):
        session.presence.register(session.name, fresh_seconds=60.0)
    while dead.ledger.claim("dead", dead.record.generation) is not None:
        pass
    looks: list[str] = []

    def note_look(name: str) -> list[str]:
        looks.append(name)
        return ["dead"]

    leave = LeaveRequest()
    leave.set()
    for session in (watcher, other):
        monkeypatch.setattr(session.recovery, "requeue_dead", partial(note_look, session.name))
        _look_for_work(session, session.history.counts(), leave)
    assert looks == ["a"]
    with other.storage.write() as connection:
        connection.execute(update(workers).where(workers.c.worker_id == "a").values(host_id="elsewhere"))
    _look_for_work(other, other.history.counts(), leave)
    assert looks == ["a", "b"]


class Waits(LeaveRequest):
    """Notes for how long it is to wait, and is a clock that stands still but for these waits."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def monotonic(self) -> float:
        return sum(self.seconds)


@ON_SQLITE
@pytest.mark.parametrize(("place", "times"), [(0, 1.0), (2 * N_WATCHERS - 1, 2.0), (1000, LONGEST_CROWD)])
@pytest.mark.parametrize("n_parked", [0, 1])
def test_who_waits_behind_others_waits_as_long_as_it_should(
    new_session: Sessions, monkeypatch: pytest.MonkeyPatch, place: int, times: float, n_parked: int
) -> None:
    """So many times as long as alone: at once for the end of a cell, in eight looks where a rung may be decided."""
    waits, other, session = Waits(), new_session("other"), new_session("worker", timing=Timing(poll_seconds=2.0))
    while other.ledger.claim("other", other.record.generation) is not None:
        pass
    monkeypatch.setattr("fmnist_optuna.work.loop.time", waits)
    monkeypatch.setattr("fmnist_optuna.work.loop.RUNG_POLL_SECONDS", 0.25)
    monkeypatch.setattr("fmnist_optuna.work.loop.decide_rung", lambda _: False)
    monkeypatch.setattr("fmnist_optuna.work.loop.let_on_ahead", lambda _: False)
    monkeypatch.setattr(session.presence, "place_in_crowd", lambda _: (place, place))
    _look_for_work(session, replace(session.history.counts(), parked=n_parked), waits)
    assert waits.seconds == ([0.25 * times] * 8 if n_parked else [2.0 * times])
