"""Random histories of the ledger: workers, healers and a sweeper interleaved statement by statement.

Every actor may pause anywhere, die anywhere, and repeat a step whose commit was ambiguous. Whatever happens, no cell
ever has two results, and one healthy worker brings the study to an end that verifies.
"""

import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from optuna.trial import TrialState
from small_study import (
    LOST,
    create_study,
    create_trial,
    epoch_of,
    expire,
    finish_everything,
    make_spec,
    open_small,
)
from sqlalchemy import select

from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.orphans import fail_trial
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.bridge.trials import Outcome, tell
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
GRID = {"hidden_size": [1, 2, 3, 4]}
N_EXAMPLES, N_RULES = 40, 12

WORKERS, HEALERS = ["worker 0", "worker 1"], ["healer 0", "healer 1"]
# Workers step more often than they die, or no history would get far; several steps in a row are another's long pause.
EVENTS = st.tuples(st.sampled_from([*WORKERS * 3, *HEALERS * 2, "sweeper", "death", "time jump"]), st.integers(1, 5))
ENDINGS = st.sampled_from(["complete", "pruned", "exception", "stopped"])
N_TIMES = st.integers(1, 2)  # 2: the answer to the first commit was lost, so the step is repeated


@cache
def storages() -> tuple[Storage, Storage]:
    """Two engines on one file, for all examples; each example is a study of its own."""
    folder = tempfile.TemporaryDirectory()
    url = f"sqlite:///{Path(folder.name) / 'studies.db'}"
    create_storage(StorageOptions(url)).close()
    opened = open_small(url), open_small(url)
    opened[0].__dict__["folder"] = folder  # removed when the last of them is
    return opened


def new_token() -> str:
    """A token is never used again, not even in another example."""
    return uuid.uuid4().hex


@dataclass
class Worker:
    """Carries one cell through, a step at a time: claim, create, bind, epoch, tell, finish."""

    session: Session
    steps: Iterator[None] | None = None

    def step(self, times: int, ending: str) -> None:
        self.times, self.ending = times, ending
        self.steps = self.steps or self._work()
        if next(self.steps, "over") == "over":
            self.steps = None

    def _work(self) -> Iterator[None]:
        session, ledger = self.session, self.session.ledger
        token = new_token()
        claims = [ledger._claim(session.name, session.record.generation, token) for _ in range(self.times)]
        assert claims[0] == claims[-1]
        claim = claims[0]
        if claim is None:
            return
        yield
        for _ in range(self.times):
            trial_id, number = create_trial(session, claim)
        yield
        is_bound = [ledger.bind(claim, trial_id, number) for _ in range(self.times)]
        if not is_bound[-1]:
            fail_trial(session.storage, trial_id, LOST)
            return
        yield
        if ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5)) is None:
            self.ending = "lost"
        else:
            yield
        for _ in range(self.times):
            self._tell(trial_id, number)
        yield
        for _ in range(self.times):
            ledger.finish_cell(claim.cell_id, claim.token, read_attempt(session.optuna_storage.get_trial(trial_id)))

    def _tell(self, trial_id: int, number: int) -> None:
        session, ending = self.session, self.ending
        if ending in ("complete", "pruned"):
            state = State.COMPLETE if ending == "complete" else State.PRUNED
            value = number / 1000 if ending == "complete" else None
            tell(session.optuna_study, optuna.Trial(session.optuna_study, trial_id), Outcome(state, value))
        else:
            error = "ValueError: bad" if ending == "exception" else None
            fail_trial(session.storage, trial_id, TrialAttributes(reason=cast(Reason, ending), error=error))


@dataclass
class Healer:
    """Requeues one cell, a step at a time: see, take over, fail the trial, finish.

    It may take anybody to be dead: a lease only saves work, safety does not rest on it.
    """

    session: Session
    steps: Iterator[None] | None = None

    def step(self, times: int, ending: str) -> None:
        self.times = times
        self.steps = self.steps or self._heal(last=ending in ("pruned", "stopped"))
        if next(self.steps, "over") == "over":
            self.steps = None

    def _heal(self, *, last: bool) -> Iterator[None]:
        session, ledger = self.session, self.session.ledger
        held = ledger.held_cells()
        if not held:
            return
        seen = held[-1 if last else 0]
        yield
        token = new_token()
        taken = [ledger.take_over(seen, "healer", token) for _ in range(self.times)]
        assert taken[0] == taken[-1]
        if not taken[0]:
            return
        yield
        if seen.trial_id is None:
            for _ in range(self.times):
                ledger.give_back(seen.cell_id, token, count_lost=True)
            return
        for _ in range(self.times):
            fail_trial(session.storage, seen.trial_id, LOST)
        yield
        for _ in range(self.times):
            ledger.finish_cell(seen.cell_id, token, read_attempt(session.optuna_storage.get_trial(seen.trial_id)))


@dataclass
class Sweeper:
    """Lists the running trials in one step; reads the cells and fails orphans in the next, however much later."""

    session: Session
    steps: Iterator[None] | None = None

    def step(self, times: int, ending: str) -> None:
        self.steps = self.steps or self._sweep()
        if next(self.steps, "over") == "over":
            self.steps = None

    def _sweep(self) -> Iterator[None]:
        recovery = self.session.recovery
        listed = recovery._running_trials()
        yield
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recovery, "_running_trials", lambda: listed)
            recovery.sweep()


class LedgerMachine(RuleBasedStateMachine):
    """Two workers, two healers and a sweeper on a study of four cells."""

    n_studies = 0

    @initialize()
    def begin(self) -> None:
        LedgerMachine.n_studies += 1
        record = create_study(storages()[0], make_spec(GRID, name=f"s{self.n_studies}"))
        one, two = (Session(storage, record, f"w{number}") for number, storage in enumerate(storages()))
        self.session = one
        self.actors: dict[str, Worker | Healer | Sweeper] = {
            "worker 0": Worker(one),
            "worker 1": Worker(two),
            "healer 0": Healer(one),
            "healer 1": Healer(two),
            "sweeper": Sweeper(two),
        }

    @rule(events=st.lists(EVENTS, min_size=2, max_size=8), which=st.integers(0, 4), times=N_TIMES, ending=ENDINGS)
    def go_on(self, events: list[tuple[str, int]], which: int, times: int, ending: str) -> None:
        for event, n_steps in events:
            if event == "death":
                list(self.actors.values())[which].steps = None
            elif event == "time jump":
                self.time_jumps(which % 2)
            else:
                for _ in range(n_steps):
                    self.actors[event].step(times, ending)

    def time_jumps(self, which: int) -> None:
        """A lease runs out; what was seen of it before is no longer what is there."""
        for cell in self.session.ledger.held_cells()[which : which + 1]:
            expire(self.session.storage, cell.cell_id)

    @invariant()
    def no_cell_has_two_results(self) -> None:
        if not hasattr(self, "session"):
            return
        trials = self.session.optuna_storage.get_all_trials(self.session.record.study_id, deepcopy=False)
        results = {trial_id_of(trial): trial for trial in trials if trial.state in FINISHED}
        cell_ids = [trial.system_attrs["cell_id"] for trial in results.values()]
        assert len(cell_ids) == len(set(cell_ids))
        for cell in self._cells():
            if cell.state == "done":
                named = results[cell.trial_id]
                assert named.system_attrs["cell_id"] == cell.cell_id
                assert (named.state.name, named.value) == (cell.result, cell.value)
            elif cell.state in ("waiting", "failed"):
                assert cell.cell_id not in cell_ids

    def _cells(self) -> list[Any]:
        query = select(cells).where(cells.c.study_id == self.session.record.study_id)
        with self.session.storage.read() as connection:
            return list(connection.execute(query))

    def teardown(self) -> None:
        """Everybody dies; one healthy worker takes over, retries what failed, and finishes."""
        if not hasattr(self, "session"):
            return
        session = self.session
        for cell in session.ledger.held_cells():
            assert session.recovery.requeue(cell, LOST)
        session.ledger.retry_failed()
        finish_everything(session)
        session.recovery.sweep()
        found = verify(session.storage, session.optuna_storage, session.record.study_id)
        assert found.ok, found.problems


@pytest.mark.more
def test_no_history_doubles_or_loses_a_result() -> None:
    """Forty random histories of up to 480 steps; a failing one is printed as a program."""
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=N_EXAMPLES,
            stateful_step_count=N_RULES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
