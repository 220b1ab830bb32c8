"""Sixteen workers on one SQLite file: nobody is ever refused its lock, and what an epoch's bookkeeping then costs."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest
from proof import prove
from small_study import ON_SQLITE, make_spec
from victims import StubObjective, start

from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.loop import LeaveRequest, work
from fmnist_optuna.work.running_trial import RunningTrial

pytestmark = [pytest.mark.chaos, pytest.mark.slow, ON_SQLITE]

N_WORKERS, N_CELLS = 16, 1000
EPOCH_SECONDS = 0.05
FINISH_SECONDS = 300.0


def work_and_time(sender: Connection, url: str, study: str, name: str) -> None:
    """A whole worker that says how many outages it met and how long each epoch's bookkeeping took."""
    seconds: list[float] = []
    report = RunningTrial.report

    def timed(self: RunningTrial, epoch: Epoch, *, can_prune: bool = True) -> bool:
        began = time.perf_counter()
        goes_on = report(self, epoch, can_prune=can_prune)
        seconds.append(time.perf_counter() - began)
        return goes_on

    RunningTrial.report = timed  # type: ignore[method-assign]
    storage = open_storage(StorageOptions(url))
    session = Session(storage, find_study(storage, study), name)
    session.presence.register(name, fresh_seconds=60)
    work(session, StubObjective(seconds=EPOCH_SECONDS), LeaveRequest(), session.record.generation)
    sender.send((storage.patience.n_outages, seconds))


def test_sixteen_workers_never_find_the_database_locked(
    storage_url: str, new_session: Callable[..., Session], note: Callable[[str], None]
) -> None:
    """A thousand cells, an epoch every 50 ms from each worker: no retry anywhere, every cell one result."""
    session = new_session("first", make_spec({"hidden_size": list(range(1, N_CELLS + 1))}, "crowd"), Timing())
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(N_WORKERS)]
    workers = [
        start(work_and_time, sender, storage_url, "crowd", f"worker-{number}")
        for number, (_, sender) in enumerate(pipes)
    ]
    answers = []
    for (receiver, sender), worker in zip(pipes, workers, strict=True):
        sender.close()
        assert receiver.poll(FINISH_SECONDS)
        answers.append(receiver.recv())
        worker.join(10)
    assert [n_outages for n_outages, _ in answers] == [0] * N_WORKERS
    prove(session, N_CELLS)
    seconds = [second for _, listed in answers for second in listed]
    assert len(seconds) == 2 * N_CELLS
    quantiles = statistics.quantiles(seconds, n=100)
    milliseconds = [round(1000 * quantiles[at]) for at in (49, 98)]
    note("bookkeeping of one epoch in ms: median {}, 99th percentile {}".format(*milliseconds))
