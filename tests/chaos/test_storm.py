"""Many workers with stub objectives, and somebody who kills and stops them at random until the study is done."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess

import pytest
from proof import prove
from small_study import POSTGRES_SLOW, cut_cells, expected_cuts, ladder_spec, make_spec, search_spec
from victims import start, work_until_done

from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.session import Session

pytestmark = pytest.mark.chaos

Sessions = Callable[..., Session]
SHORT = Timing(lease_seconds=1.5, renewal_seconds=0.25, poll_seconds=0.05, stall_seconds=60.0)
EPOCH_SECONDS = 0.01
N_WORKERS = 6
CELLS_PER_KILL = 3  # more than are finished between two kills
PAUSE_SECONDS = (0.02, 0.15)  # between two acts of the storm
STALL_SECONDS = 2.5  # longer than the lease, and two looks at it
FINISH_SECONDS = 240.0


class Storm:
    """Workers that are replaced when they end, and what is done to them.

    Args:
        url: The storage.
        study: Its name.
        seed: Makes the choice of victims and moments.
    """

    def __init__(self, url: str, study: str, seed: int) -> None:
        self._url, self._study = url, study
        self._choices = random.Random(seed)
        self._names = (f"worker-{number}" for number in itertools.count())
        self._workers: list[BaseProcess] = []
        self._stopped: list[tuple[float, BaseProcess]] = []
        self.n_kills = self.n_stalls = 0

    def blow(self, n_kills: int) -> None:
        """Kill and stop workers until so many were killed; one act in ten hits all of them, one in ten only stops."""
        while self.n_kills < n_kills:
            self._wake()
            self._replace()
            time.sleep(self._choices.uniform(*PAUSE_SECONDS))
            act = self._choices.random()
            if act < 0.1:
                self._kill(list(self._workers))
            elif act < 0.2 and len(self._stopped) < 2:
                self._stop(self._choices.choice(self._workers))
            else:
                self._kill([self._choices.choice(self._workers)])

    def calm(self) -> None:
        """Let the workers finish the study, and see that each leaves by itself."""
        self._wake(everybody=True)
        self._replace()
        for worker in self._workers:
            worker.join(FINISH_SECONDS)
        assert {worker.exitcode for worker in self._workers} == {0}

    def end(self) -> None:
        """Leave no process behind, whatever went wrong."""
        self._kill([*self._workers, *(worker for _, worker in self._stopped)])

    def _replace(self) -> None:
        self._workers = [worker for worker in self._workers if worker.exitcode is None]
        while len(self._workers) < N_WORKERS:
            name = next(self._names)
            self._workers.append(start(work_until_done, self._url, self._study, name, SHORT, EPOCH_SECONDS))

    def _kill(self, victims: list[BaseProcess]) -> None:
        for victim in victims:
            if victim.exitcode is None:
                victim.kill()
                self.n_kills += 1
        for victim in victims:
            victim.join(10)

    def _stop(self, victim: BaseProcess) -> None:
        """Stop a worker for longer than its lease; another takes its place."""
        if victim.exitcode is None and victim.pid is not None:
            os.kill(victim.pid, signal.SIGSTOP)
            self._workers.remove(victim)
            self._stopped.append((time.monotonic() + STALL_SECONDS, victim))
            self.n_stalls += 1

    def _wake(self, *, everybody: bool = False) -> None:
        now = time.monotonic()
        due = [victim for until, victim in self._stopped if everybody or until < now]
        self._stopped = [(until, victim) for until, victim in self._stopped if victim not in due]
        for victim in due:
            if victim.exitcode is None and victim.pid is not None:
                os.kill(victim.pid, signal.SIGCONT)
                self._workers.append(victim)


def plain_spec(n_cells: int, name: str) -> StudySpec:
    """Without rungs."""
    return make_spec({"hidden_size": list(range(1, n_cells + 1))}, name)


def survive_storm(
    url: str,
    new_session: Sessions,
    tally: Callable[..., None],
    n_kills: int,
    make: Callable[[int, str], StudySpec] = plain_spec,
) -> Session:
    """A study of CELLS_PER_KILL cells a kill: every cell has one result in the end."""
    n_cells = CELLS_PER_KILL * n_kills
    session = new_session("first", make(n_cells, "storm"), SHORT)
    storm = Storm(url, "storm", seed=n_kills)
    try:
        storm.blow(n_kills)
        assert session.history.counts().done < n_cells, "the storm must end before the study does"
        storm.calm()
    finally:
        storm.end()
    found = prove(session, n_cells)
    tally(
        cells=found.n_cells, kills=storm.n_kills, stalls=storm.n_stalls,
        lost=found.n_missing, doubled=found.n_duplicates, stuck=found.n_surplus + found.n_running,
    )  # fmt: skip
    return session


def test_a_study_survives_a_storm(storage_url: str, new_session: Sessions, tally: Callable[..., None]) -> None:
    """Forty kills and some stalls of six workers: every cell ends with one result, and every worker with exit 0."""
    survive_storm(storage_url, new_session, tally, 40)


@POSTGRES_SLOW
@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_a_search_survives_a_storm(
    storage_url: str, new_session: Sessions, tally: Callable[..., None], sampler: str
) -> None:
    """Forty kills: as many cells as there are to be trials have one result each, of the point that was fixed first."""

    def make(n_cells: int, name: str) -> StudySpec:
        return search_spec(sampler, n_cells, name)

    session = survive_storm(storage_url, new_session, tally, 40, make)
    assert verify_study(session).ok


@POSTGRES_SLOW
def test_repeats_survive_a_storm(storage_url: str, new_session: Sessions, tally: Callable[..., None]) -> None:
    """Forty kills: every seed and fold of a point has one result, and all of them the point that TPE fixed first."""

    def make(n_cells: int, name: str) -> StudySpec:
        folded = {"source": "synthetic", "folds": 2}
        return search_spec("tpe", n_cells // 4, name, repeats=2, data=folded)

    session = survive_storm(storage_url, new_session, tally, 40, make)
    assert verify_study(session).ok


@POSTGRES_SLOW
def test_rungs_survive_a_storm(storage_url: str, new_session: Sessions, tally: Callable[..., None]) -> None:
    """Forty kills again: the cells that the rule cuts are those of a study in which nobody dies."""
    session = survive_storm(storage_url, new_session, tally, 40, ladder_spec)
    assert cut_cells(session) == expected_cuts(session.record.spec)


@pytest.mark.slow
def test_rungs_of_means_survive_a_storm(storage_url: str, new_session: Sessions, tally: Callable[..., None]) -> None:
    """The same where points are trained over two seeds."""
    session = survive_storm(storage_url, new_session, tally, 40, partial(ladder_spec, repeats=2))
    assert cut_cells(session) == expected_cuts(session.record.spec)
    assert verify_study(session).ok


@pytest.mark.slow
def test_rungs_survive_a_thousand_kills(storage_url: str, new_session: Sessions, tally: Callable[..., None]) -> None:
    """The same with a thousand kills."""
    session = survive_storm(storage_url, new_session, tally, 1000, ladder_spec)
    assert cut_cells(session) == expected_cuts(session.record.spec)


@pytest.mark.slow
def test_a_study_survives_a_thousand_kills(storage_url: str, new_session: Sessions, tally: Callable[..., None]) -> None:
    """The same with a thousand kills."""
    survive_storm(storage_url, new_session, tally, 1000)
