"""Something bad between every two statements, exhaustively: a death, a lost connection, a lost answer, a long pause.

The statements are those that reach the driver, commits included, and the file operations of the artifact store. After
each the survivors finish the study, and it must be as if nothing had happened.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import optuna
import pytest
from faults import Steps, break_connection, lose_answer, watched
from proof import assert_nothing_stray, prove
from small_study import (
    KILLED,
    LADDER,
    POSTGRES_SLOW,
    begin_trial,
    claim_cell,
    create_study,
    create_trial,
    epoch_of,
    expire,
    finish_cell,
    finish_trial,
    make_spec,
    open_session,
    prune_trial,
    search_spec,
    set_cell,
)  # fmt: skip
from sqlalchemy import event
from victims import Ending, attempt, die_at, requeue, store_stub_weights, sweep

from fmnist_optuna.bridge.orphans import fail_trial
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.outages import Patience
from fmnist_optuna.ledger.records import Claim, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study, find_study_or_none
from fmnist_optuna.work.attempt import decide_rung, let_on_ahead
from fmnist_optuna.work.running_trial import RunningTrial

pytestmark = pytest.mark.chaos

Sessions = Callable[..., Session]
NO_PRUNER = {"name": "none"}
BLOCKED_MS = 5  # how long the others wait for a lock of the one that pauses, who never gives it up meanwhile


class Scenes:
    """Studies of one cell each on one storage, and a survivor who ends them."""

    def __init__(self, url: str, session: Session) -> None:
        self.url = url
        self._first = session
        self.all: list[Session] = []

    def new(self, pruner: Mapping[str, Any] = NO_PRUNER, sampler: str = "grid") -> Session:
        """The survivor's session on a new study."""
        name = f"study-{len(self.all)}"
        spec = make_spec({"hidden_size": [64]}, name, pruner=pruner)
        if sampler != "grid":
            spec = search_spec(sampler, 1, name, {"hidden_size": {"low": 1, "high": 10**6}}, pruner=pruner)
        record = create_study(self._first.storage, spec)
        self.all.append(Session(self._first.storage, record, "survivor"))
        return self.all[-1]


@pytest.fixture
def scenes(storage_url: str, new_session: Sessions) -> Scenes:
    """On either database."""
    session = new_session("first")
    session.storage.artifacts.mkdir(parents=True, exist_ok=True)  # or the first of all walks has a step more
    return Scenes(storage_url, session)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry comes at once, Optuna's own too."""
    monkeypatch.setattr(Patience, "_sleep", lambda self, seconds: None)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def survive(session: Session) -> None:
    """What others do after a death: requeue, work until nothing is left, sweep."""
    session.recovery.requeue_dead()  # the dead of this host are known at once
    for cell in session.ledger.held_cells():  # a healer that died is no worker: its short lease runs out
        assert cell.worker.endswith("(recovery)")
        expire(session.storage, cell.cell_id)
        assert session.recovery.requeue(cell, KILLED)
    while session.history.counts().waiting or decide_rung(session):
        attempt(session)
    session.recovery.sweep()


def n_attempts(session: Session) -> int:
    """How many trials the only cell took."""
    return len(session.optuna_storage.get_all_trials(session.record.study_id, deepcopy=False))


@pytest.mark.parametrize("ending", ["complete", "pruned", "exception", "stopped"])
@POSTGRES_SLOW
def test_a_worker_may_die_before_every_statement(scenes: Scenes, ending: Ending, tally: Callable[..., None]) -> None:
    """Claim, create, bind, epochs, weights, tell and finish: one further attempt at most, and one result."""
    names = die_at(scenes.new(), None, attempt, ending).names
    first = 0
    if ending != "complete":  # what they have in common is walked once
        pairs = zip(names, die_at(scenes.new(), None, attempt, "complete").names, strict=False)
        first = [one == other for one, other in pairs].index(False)
    for step in range(first, len(names)):
        session = scenes.new()
        die_at(session, step, attempt, ending)
        survive(session)
        prove(session, 1)
        assert n_attempts(session) <= 2
    assert_nothing_stray(scenes.all)
    tally(kills=len(names) - first, cells=len(names) - first)


@POSTGRES_SLOW
def test_a_suggestion_may_be_interrupted_before_every_statement(scenes: Scenes, tally: Callable[..., None]) -> None:
    """Look, suggestion and claim too: the cell has its point with the claim, and keeps it whoever dies."""
    n_steps = len(die_at(scenes.new(sampler="tpe"), None, attempt).names)
    n_fixed = 0
    for step in range(n_steps):
        session = scenes.new(sampler="tpe")
        die_at(session, step, attempt)
        (cell,) = session.history.cells()
        assert (cell.params == {}) == (cell.state is State.WAITING)
        n_fixed += cell.params != {}
        survive(session)
        prove(session, 1)
        assert n_attempts(session) <= 2
        (after,) = session.history.cells()
        assert cell.params in ({}, after.params)
        assert verify_study(session).ok
    assert 0 < n_fixed < n_steps
    assert_nothing_stray(scenes.all)
    tally(kills=n_steps, cells=n_steps)


@pytest.mark.parametrize("left", ["on its way", "parked", "let on ahead", "goes on", "is cut"])
@POSTGRES_SLOW
def test_rungs_may_be_interrupted_before_every_statement(scenes: Scenes, left: str, tally: Callable[..., None]) -> None:
    """Parking, deciding, going on and cutting: whoever dies there costs one further attempt at most, and no result."""
    deciders: dict[str, Callable[..., object]] = {"parked": decide_rung, "let on ahead": let_on_ahead}
    act = deciders.get(left, attempt)
    arguments = () if left in deciders else ("parked",) if left == "on its way" else ("complete",)
    whole = scenes.new(LADDER)
    leave_at_rung(whole, left)
    n_steps = len(die_at(whole, None, act, *arguments).names)
    for step in range(n_steps):
        session = scenes.new(LADDER)
        leave_at_rung(session, left)
        die_at(session, step, act, *arguments)
        survive(session)
        prove(session, 1)
        assert n_attempts(session) <= 2
        (cell,) = session.history.cells()
        assert cell.state is (State.PRUNED if left == "is cut" else State.COMPLETE)
    assert_nothing_stray(scenes.all)
    tally(kills=n_steps, cells=n_steps)


def leave_at_rung(session: Session, where: str) -> None:
    """A cell that waits, that is parked, which is all that letting on needs, that goes on, or that goes no further."""
    if where == "on its way":
        return
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    for number in range(2):
        assert session.ledger.record_epoch(claim, trial_id, epoch_of(number, 0.5)) is not None
        session.optuna_storage.set_trial_intermediate_value(trial_id, number, 0.5)
    assert session.ledger.park(claim, trial_id, 2)
    if where in ("goes on", "is cut"):
        assert decide_rung(session)
    if where == "is cut":  # the only cell leads, so that a decision would not
        set_cell(session.storage, claim.cell_id, cut_at=2)


@pytest.mark.parametrize("left", ["claim", "trial", "bound", "complete", "pruned", "error"])
@POSTGRES_SLOW
def test_a_healer_may_die_before_every_statement(scenes: Scenes, left: str, tally: Callable[..., None]) -> None:
    """Whatever the dead worker left: a claim, a trial, a bound trial, a result, an error."""
    whole = scenes.new()
    leave(whole, left)
    n_steps = len(die_at(whole, None, requeue).names)
    for step in range(n_steps):
        session = scenes.new()
        leave(session, left)
        die_at(session, step, requeue)
        requeue(session)  # who left it is nobody's process: its lease runs out
        survive(session)
        prove(session, 1)
        assert n_attempts(session) <= 2
    tally(kills=n_steps, cells=n_steps)


def test_a_sweeper_may_die_before_every_statement(scenes: Scenes, tally: Callable[..., None]) -> None:
    """An orphan is failed in the end, and nothing else is."""
    whole = scenes.new()
    leave(whole, "orphan")
    n_steps = len(die_at(whole, None, sweep).names)
    for step in range(n_steps):
        session = scenes.new()
        leave(session, "orphan")
        die_at(session, step, sweep)
        survive(session)
        prove(session, 1)
        assert n_attempts(session) == 2
    tally(kills=n_steps, cells=n_steps)


def leave(session: Session, what: str) -> None:
    """What a worker that is gone may have left."""
    claim = claim_cell(session)
    if what in ("trial", "orphan"):
        create_trial(session, claim)
    if what == "orphan":
        session.ledger.give_back(claim.cell_id, claim.token, count_lost=False)
    if what in ("bound", "complete", "pruned", "error"):
        trial_id = begin_trial(session, claim)
    if what == "complete":
        complete(session, claim, trial_id)
    if what == "pruned":
        prune_trial(session, trial_id, 0.5)
    if what == "error":
        fail_trial(session.storage, trial_id, TrialAttributes(reason="exception", error="ValueError: bad"))


def complete(session: Session, claim: Claim, trial_id: int) -> None:
    """A COMPLETE trial with its weights, of which the cell does not know."""
    running = RunningTrial(session.ledger, claim, optuna.Trial(session.optuna_study, trial_id), lambda: False, 0)
    store_stub_weights(running, claim.params)
    finish_trial(session, trial_id, 0.5)


@pytest.mark.parametrize("fault", [break_connection, lose_answer])
@pytest.mark.usefixtures("no_waiting")
def test_a_connection_may_break_at_every_statement(scenes: Scenes, fault: Any, tally: Callable[..., None]) -> None:
    """Before a statement, or after a commit whose answer is lost: the attempt goes on, and costs no second claim."""
    counted = walk(scenes.new())
    steps = counted.commits if fault is lose_answer else range(len(counted.names))
    for step in steps:
        session = scenes.new()
        walk(session, Steps(step), fault)
        session.recovery.sweep()  # a creation whose answer was lost leaves a second trial
        prove(session, 1)
        (cell,) = read_cells(session)
        assert (cell.claims, cell.lost, cell.failures) == (1, 0, 0)
        assert session.storage.patience.n_outages >= 1
    tally(outages=len(steps), cells=len(steps))


def walk(session: Session, steps: Steps | None = None, fault: Any = None) -> Steps:
    """A whole attempt in this process."""
    steps = steps or Steps()
    _ = session.optuna_study
    with watched(session, steps, fault):
        attempt(session)
    return steps


@pytest.mark.parametrize("fault", [break_connection, lose_answer])
@pytest.mark.usefixtures("no_waiting")
def test_a_deletion_outlasts_a_break_at_every_statement(scenes: Scenes, fault: Any) -> None:
    """It is neither ended by an outage nor told anything twice: nothing of the study stays, here or in Optuna."""
    counted = remove(scenes.new())
    steps = counted.commits if fault is lose_answer else range(len(counted.names))
    for step in steps:
        session = scenes.new()
        remove(session, Steps(step), fault)
        assert find_study_or_none(session.storage, session.record.name) is None
        names = [summary.study_name for summary in session.optuna_storage.get_all_studies()]
        assert session.record.name not in names


def remove(session: Session, steps: Steps | None = None, fault: Any = None) -> Steps:
    """Delete a study, as `delete` does."""
    steps = steps or Steps()
    _ = session.optuna_study
    with watched(session, steps, fault):
        delete_study(session.storage, session.record)
    return steps


def read_cells(session: Session) -> list[Any]:
    """The rows of all cells."""
    from sqlalchemy import select

    from fmnist_optuna.ledger.tables import cells

    with session.storage.read() as connection:
        return list(connection.execute(select(cells).where(cells.c.study_id == session.record.study_id)))


@pytest.mark.usefixtures("no_waiting")
def test_a_worker_may_pause_at_every_statement(scenes: Scenes, storage_url: str, tally: Callable[..., None]) -> None:
    """Others take its cell for lost, heal and finish the study; it comes back, and its result is dropped quietly."""
    with others_on(storage_url) as others:
        n_steps = len(walk(scenes.new()).names)
        for step in range(n_steps):
            session = scenes.new()
            others.study = session.record.name
            walk(session, Steps(step, others.finish))
            others.finish()  # if a lock of the one that paused was in their way
            prove(session, 1)
    tally(stalls=n_steps, cells=n_steps)


@pytest.mark.usefixtures("no_waiting")
def test_a_worker_may_pause_while_its_cell_is_trained_anew(
    scenes: Scenes, storage_url: str, tally: Callable[..., None]
) -> None:
    """Between any two of its transactions another claims the cell; it comes back, and the other's result stands."""
    with others_on(storage_url) as others:
        commits = walk(scenes.new()).commits
        for step in commits[:-1]:
            session = scenes.new()
            others.study = session.record.name
            walk(session, Steps(step + 1, others.begin))
            others.end()
            session.recovery.sweep()
            prove(session, 1)
            (cell,) = read_cells(session)
            assert (cell.worker, cell.claims) in (("other", 2), ("other (recovery)", 1))
    tally(stalls=len(commits) - 1, cells=len(commits) - 1)


class Others:
    """Another process, as it were, that takes every holder for dead."""

    def __init__(self, session: Session) -> None:
        self._storage = session.storage
        self.study = ""
        self._end: Callable[[], None] = lambda: None

    def _open(self) -> Session:
        session = Session(self._storage, find_study(self._storage, self.study), "other")
        requeue(session)
        return session

    def finish(self) -> None:
        """Requeue, work, sweep; or find a lock in the way."""
        with suppress(StorageError):
            session = self._open()
            while attempt(session):
                pass
            session.recovery.sweep()

    def begin(self) -> None:
        """Requeue, claim the cell, and train; a cell whose result was told already is done with it."""
        session = self._open()
        self._end = lambda: None
        if session.history.counts().done:
            return
        claim = claim_cell(session)
        trial_id = begin_trial(session, claim)

        def end() -> None:
            assert session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5)) is not None
            complete(session, claim, trial_id)
            assert finish_cell(session, claim, trial_id)

        self._end = end

    def end(self) -> None:
        """Bring what was begun to its end."""
        self._end()


@contextmanager
def others_on(url: str) -> Iterator[Others]:
    """Others who give up soon when they meet a lock."""
    session = open_session(url, "other")
    engine = session.storage.engine
    limit = "PRAGMA busy_timeout = {}" if session.storage.is_sqlite else "SET lock_timeout = {}"

    def connect(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(limit.format(BLOCKED_MS))
        cursor.close()
        if not session.storage.is_sqlite:
            connection.commit()

    event.listen(engine, "connect", connect)
    engine.dispose()
    session.storage.patience.seconds = 0.0
    yield Others(session)
    session.storage.close()
