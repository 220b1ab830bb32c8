"""Something bad between every two statements, exhaustively: a death, a lost connection, a lost answer, a long pause.

The statements are those that reach the driver, commits included, and the file operations of the artifact store. After
each the survivors finish the study, and it must be as if nothing had happened.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from faults import Steps, break_connection, lose_answer, watched
from proof import assert_nothing_stray, prove
from small_study import (
    begin_trial,
    claim_cell,
    create_study,
    create_trial,
    expire,
    finish_trial,
    make_spec,
    open_session,
    prune_trial,
)  # fmt: skip
from sqlalchemy import event
from victims import Ending, attempt, die_at, requeue, store_stub_weights, sweep

from fmnist_optuna.errors import StorageError
from fmnist_optuna.study.retry import Patience
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.study.trials import fail_trial
from fmnist_optuna.work.attempt import RunningTrial

pytestmark = pytest.mark.chaos

Sessions = Callable[..., Session]
BLOCKED_MS = 50  # how long the others wait for a lock of the one that pauses


class Scenes:
    """Studies of one cell each on one storage, and a survivor who ends them."""

    def __init__(self, url: str, session: Session) -> None:
        self.url = url
        self._first = session
        self.all: list[Session] = []

    def new(self) -> Session:
        """The survivor's session on a new study."""
        spec = make_spec({"hidden_size": [64]}, f"study-{len(self.all)}")
        record = create_study(self._first.storage, spec)
        self.all.append(Session(self._first.storage, record, self._first.timing, "survivor"))
        return self.all[-1]


@pytest.fixture
def scenes(storage_url: str, new_session: Sessions) -> Scenes:
    """On either database."""
    return Scenes(storage_url, new_session("first"))


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
        assert session.recovery.requeue(cell, "lost")
    while session.ledger.counts()["waiting"]:
        attempt(session)
    session.recovery.sweep()


def n_attempts(session: Session) -> int:
    """How many trials the only cell took."""
    return len(session.trials.get_all_trials(session.record.study_id, deepcopy=False))


@pytest.mark.parametrize("ending", ["complete", "pruned", "exception", "stopped"])
def test_a_worker_may_die_before_every_statement(scenes: Scenes, ending: Ending, tally: Callable[..., None]) -> None:
    """Claim, create, bind, epochs, weights, tell and settle: one further attempt at most, and one result."""
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


@pytest.mark.parametrize("left", ["claim", "trial", "bound", "complete", "pruned", "error"])
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
        running = RunningTrial(session, claim, optuna.Trial(session.study, trial_id), lambda: False, 0)
        store_stub_weights(running, claim.params)
        finish_trial(session, trial_id, 0.5)
    if what == "pruned":
        prune_trial(session, trial_id, 0.5)
    if what == "error":
        fail_trial(session.trials, trial_id, "exception", "ValueError: bad")


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
    _ = session.study
    with watched(session.storage.engine, steps, fault):
        attempt(session)
    return steps


def read_cells(session: Session) -> list[Any]:
    """The rows of all cells."""
    from sqlalchemy import select

    from fmnist_optuna.study.schema import cells

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
            walk(session, Steps(step, others.act))
            if others.is_blocked:  # by a lock of the one that paused: they come right after
                others.act()
            survive(session)
            prove(session, 1)
    tally(stalls=n_steps, cells=n_steps)


class Others:
    """Another process, as it were: takes over whatever is held, and finishes the study."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.study = ""
        self.is_blocked = False

    def act(self) -> None:
        """Requeue, work, sweep; or find a lock in the way."""
        storage = self._session.storage
        self.is_blocked = False
        try:
            session = Session(storage, find_study(storage, self.study), self._session.timing, "other")
            requeue(session)
            while session.ledger.counts()["waiting"]:
                if not attempt(session):  # it is being claimed
                    self.is_blocked = True
                    return
            session.recovery.sweep()
        except StorageError:
            self.is_blocked = True


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
