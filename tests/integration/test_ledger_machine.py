"""Random histories of the ledger: workers, healers and a sweeper interleaved statement by statement.

Every actor may pause anywhere, die anywhere, and repeat a step whose commit was ambiguous. Whatever happens, no cell
ever has two results, and one healthy worker brings the study to an end that verifies.
"""

import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from optuna.trial import TrialState
from small_study import (
    FAST,
    create_study,
    create_trial,
    epoch_of,
    finish_everything,
    make_spec,
    open_small,
    set_cell,
)

from fmnist_optuna.study.ledger import Claim, HeldCell
from fmnist_optuna.study.recovery import read_ending
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.storage import Storage, open_storage
from fmnist_optuna.study.trials import Outcome, fail_trial
from fmnist_optuna.study.verification import verify

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
GRID = {"hidden_size": [1, 2]}
N_EXAMPLES, N_STEPS = 40, 40

actors = st.integers(0, 1)
n_times = st.integers(1, 2)  # 2: the answer to the first commit was lost, so the step is repeated
endings = st.sampled_from(["complete", "pruned", "exception", "stopped"])


@cache
def storages() -> tuple[Storage, Storage]:
    """Two engines on one file, for all examples; each example is a study of its own."""
    folder = tempfile.TemporaryDirectory()
    url = f"sqlite:///{Path(folder.name) / 'studies.db'}"
    open_storage(url, create=True).close()
    opened = open_small(url), open_small(url)
    opened[0].__dict__["folder"] = folder  # removed when the last of them is
    return opened


@dataclass
class Worker:
    """Where a worker stands: nothing, claimed, created, bound or told."""

    claim: Claim | None = None
    trial_id: int | None = None
    number: int = 0
    is_bound: bool = False
    is_told: bool = False
    n_epochs: int = 0


@dataclass
class Healer:
    """Where a requeue stands: nothing, seen, taken over or trial failed."""

    seen: HeldCell | None = None
    token: str | None = None
    is_failed: bool = False


@dataclass
class Sweeper:
    """The trials that were listed, before the cells are read."""

    listed: list[Any] = field(default_factory=list)


class LedgerMachine(RuleBasedStateMachine):
    """Two workers, two healers and a sweeper on a study of two cells."""

    n_studies = 0

    @initialize()
    def begin(self) -> None:
        LedgerMachine.n_studies += 1
        self.n_tokens = 0
        record = create_study(storages()[0], make_spec(GRID, name=f"s{self.n_studies}"))
        self.sessions = [Session(storage, record, FAST, f"w{n}") for n, storage in enumerate(storages())]
        self.workers = [Worker(), Worker()]
        self.healers = [Healer(), Healer()]
        self.sweeper = Sweeper()

    def new_token(self) -> str:
        self.n_tokens += 1
        return f"{self.n_studies:016d}{self.n_tokens:016d}"

    @rule(n=actors, times=n_times)
    def claim(self, n: int, times: int) -> None:
        worker, session = self.workers[n], self.sessions[n]
        if worker.claim is None:
            token = self.new_token()
            claims = [session.ledger._claim(session.name, session.record.generation, token) for _ in range(times)]
            assert times == 1 or claims[0] is None or claims[0] == claims[1]
            self.workers[n] = Worker(claims[-1])

    @rule(n=actors, times=n_times)
    def create(self, n: int, times: int) -> None:
        worker = self.workers[n]
        if worker.claim is not None and worker.trial_id is None:
            for _ in range(times):
                worker.trial_id, worker.number = create_trial(self.sessions[n], worker.claim)

    @rule(n=actors, times=n_times)
    def bind(self, n: int, times: int) -> None:
        worker, session = self.workers[n], self.sessions[n]
        if worker.claim is not None and worker.trial_id is not None and not worker.is_bound:
            for _ in range(times):
                worker.is_bound = session.ledger.bind(worker.claim, worker.trial_id, worker.number)
            if not worker.is_bound:
                fail_trial(session.trials, worker.trial_id, "lost")
                self.workers[n] = Worker()

    @rule(n=actors)
    def record_epoch(self, n: int) -> None:
        worker, session = self.workers[n], self.sessions[n]
        if worker.claim is not None and worker.trial_id is not None and worker.is_bound and not worker.is_told:
            if session.ledger.record_epoch(worker.claim, worker.trial_id, epoch_of(worker.n_epochs, 0.5)) is None:
                fail_trial(session.trials, worker.trial_id, "lost")
                worker.is_told = True
            worker.n_epochs += 1

    @rule(n=actors, times=n_times, ending=endings)
    def tell(self, n: int, times: int, ending: str) -> None:
        worker, session = self.workers[n], self.sessions[n]
        if worker.trial_id is not None and worker.is_bound and not worker.is_told:
            for _ in range(times):
                self._tell(session, worker, ending)
            worker.is_told = True

    def _tell(self, session: Session, worker: Worker, ending: str) -> None:
        import optuna

        from fmnist_optuna.study.trials import tell

        assert worker.trial_id is not None
        if ending in ("exception", "stopped"):
            error = "ValueError: bad" if ending == "exception" else None
            fail_trial(session.trials, worker.trial_id, ending, error)  # type: ignore[arg-type]
            return
        state = TrialState.COMPLETE if ending == "complete" else TrialState.PRUNED
        value = worker.number / 1000 if ending == "complete" else None
        tell(session.study, optuna.Trial(session.study, worker.trial_id), Outcome(state, value))

    @rule(n=actors, times=n_times)
    def settle(self, n: int, times: int) -> None:
        worker, session = self.workers[n], self.sessions[n]
        if worker.claim is not None and worker.trial_id is not None and worker.is_told:
            for _ in range(times):
                ending = read_ending(session.trials.get_trial(worker.trial_id))
                session.ledger.settle(worker.claim.cell_id, worker.claim.token, ending)
            self.workers[n] = Worker()

    @rule(n=actors)
    def worker_dies(self, n: int) -> None:
        self.workers[n] = Worker()

    @rule(n=actors, which=actors)
    def see(self, n: int, which: int) -> None:
        """A healer may take anybody to be dead: no lease is needed for safety, only for not wasting work."""
        held = self.sessions[n].ledger.held_cells()
        if self.healers[n].seen is None and held:
            self.healers[n] = Healer(held[which % len(held)])

    @rule(n=actors, times=n_times)
    def take_over(self, n: int, times: int) -> None:
        healer = self.healers[n]
        if healer.seen is not None and healer.token is None:
            token = self.new_token()
            taken = [self.sessions[n].ledger.take_over(healer.seen, "healer", token) for _ in range(times)]
            assert len(set(taken)) == 1
            self.healers[n] = Healer(healer.seen, token) if taken[-1] else Healer()

    @rule(n=actors, times=n_times)
    def fail_taken(self, n: int, times: int) -> None:
        healer = self.healers[n]
        if healer.seen is not None and healer.token is not None and healer.seen.trial_id is not None:
            for _ in range(times):
                fail_trial(self.sessions[n].trials, healer.seen.trial_id, "lost")
            healer.is_failed = True

    @rule(n=actors, times=n_times)
    def settle_taken(self, n: int, times: int) -> None:
        healer, session = self.healers[n], self.sessions[n]
        if healer.seen is None or healer.token is None:
            return
        cell_id, trial_id = healer.seen.cell_id, healer.seen.trial_id
        if trial_id is None:
            for _ in range(times):
                session.ledger.give_back(cell_id, healer.token, count_lost=True)
            self.healers[n] = Healer()
        elif healer.is_failed:
            for _ in range(times):
                session.ledger.settle(cell_id, healer.token, read_ending(session.trials.get_trial(trial_id)))
            self.healers[n] = Healer()

    @rule(n=actors)
    def healer_dies(self, n: int) -> None:
        self.healers[n] = Healer()

    @rule()
    def sweep_lists(self) -> None:
        self.sweeper.listed = self.sessions[0].recovery._running_trials()

    @rule()
    def sweep_fails(self) -> None:
        """Reads the cells now, however long ago the trials were listed."""
        recovery, listed = self.sessions[0].recovery, self.sweeper.listed
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recovery, "_running_trials", lambda: listed)
            recovery.sweep()
        self.sweeper.listed = []

    @rule(which=actors)
    def time_jumps(self, which: int) -> None:
        """A lease runs out; what was seen of it before is no longer what is there."""
        storage = self.sessions[0].storage
        for cell in self.sessions[0].ledger.held_cells()[which : which + 1]:
            set_cell(storage, cell.cell_id, lease_until=storage.now - 1.0)

    @invariant()
    def no_cell_has_two_results(self) -> None:
        if not hasattr(self, "sessions"):
            return
        trials = self.sessions[0].trials.get_all_trials(self.sessions[0].record.study_id, deepcopy=False)
        results = {trial._trial_id: trial for trial in trials if trial.state in FINISHED}
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
        from sqlalchemy import select

        from fmnist_optuna.study.schema import cells

        with self.sessions[0].storage.read() as connection:
            study_id = self.sessions[0].record.study_id
            return list(connection.execute(select(cells).where(cells.c.study_id == study_id)))

    def teardown(self) -> None:
        """Everybody dies; one healthy worker takes over, retries what failed, and finishes."""
        if not hasattr(self, "sessions"):
            return
        session = self.sessions[1]
        for cell in session.ledger.held_cells():
            assert session.recovery.requeue(cell, "lost")
        session.ledger.retry_failed()
        finish_everything(session)
        session.recovery.sweep()
        found = verify(session.storage, session.trials, session.record.study_id)
        assert found.ok, found.problems


def test_no_history_doubles_or_loses_a_result() -> None:
    """Forty random histories of up to forty steps; a failing one is printed as a program."""
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=N_EXAMPLES,
            stateful_step_count=N_STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
