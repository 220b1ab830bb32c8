"""Worker processes of the bookkeeping benchmark: they train nothing, report their epochs, and time what that costs.

Our workers run the product's own loop on a session of their own, with clocks around the ledger and around Optuna; stock
workers run `study.optimize` with Optuna's own GridSampler. All are forked from one warm process without a connection.
"""

import json
import multiprocessing
import pickle
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from clocks import Clock, Report, put_clocks_on
from optuna.samplers import GridSampler

from fmnist_optuna.bridge.trials import Outcome, make_pruner
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import LEARNING_RATES, MAX_INTEGER, Params
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.loop import LeaveRequest, work
from fmnist_optuna.work.running_trial import RunningTrial

START_SECONDS = 300.0  # for the slowest of 64 workers to connect on two cores
CELLS_PER_SIZE = 100  # ten dropout rates and ten learning rates
NO_LIMIT = 2**62


@dataclass(frozen=True)
class StubStudy:
    """What every worker of one measurement is told.

    Args:
        url: Of a database of its own.
        n_cells: A multiple of CELLS_PER_SIZE.
        n_epochs: Of a trial that is not pruned.
        epoch_seconds: How long an epoch sleeps.
        n_trials: After so many finished trials nobody begins another; 0 for all cells.
        pruner: "none" or "median", which may prune at every epoch once 6 trials are complete.
        sampler: "grid", or any other, which takes as many points of the ranges that the grid spans.
    """

    url: str = field(repr=False)
    n_cells: int
    n_epochs: int
    epoch_seconds: float
    n_trials: int
    pruner: str
    sampler: str = "grid"

    @property
    def name(self) -> str:
        return f"stub-{self.n_cells}"

    @property
    def is_whole(self) -> bool:
        return self.n_trials == 0 or self.n_trials >= self.n_cells

    @property
    def spec(self) -> StudySpec:
        n_sizes = self.n_cells // CELLS_PER_SIZE
        grid = {
            "hidden_size": list(range(1, n_sizes + 1)),
            "dropout_rate": [step / 10 for step in range(10)],
            "learning_rate": [10.0**-exponent for exponent in range(1, 11)],
        }
        space = {
            "hidden_size": {"low": 1, "high": n_sizes},
            "dropout_rate": {"low": 0.0, "high": 0.9},
            "learning_rate": {"low": 1e-10, "high": 0.1, "log": True},
        }
        search = {"search": {"sampler": self.sampler, "n_trials": self.n_cells}, "space": space}
        pruner = "median" if self.pruner == "median" else "none"
        plain = {"name": self.name, "data": {"source": "synthetic"}, "pruner": {"name": pruner}}
        return StudySpec.model_validate({**plain, **({"grid": grid} if self.sampler == "grid" else search)})


def accuracy(params: Mapping[str, Any], epoch: int) -> float:
    """A curve that rises, to a height that the parameters decide as good as at random."""
    height = zlib.crc32(json.dumps(params, sort_keys=True).encode()) / 2**32
    return height * (1 - 0.5 / (epoch + 1))


class Quota:
    """How many trials all workers together still finish; whoever finishes the last one lets all leave."""

    def __init__(self, n_left: Any) -> None:
        self._n_left = n_left

    def is_used_up(self) -> bool:
        """Count one finished trial; whether no further one is to begin."""
        with self._n_left.get_lock():
            self._n_left.value -= 1
            return bool(self._n_left.value <= 0)


class StubObjective:
    """Sleeps and reports, in place of a training."""

    def __init__(self, study: StubStudy, report: Report, leave: LeaveRequest, quota: Quota) -> None:
        self._study = study
        self._report = report
        self._leave = leave
        self._quota = quota

    def __call__(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        outcome = self._train(params, running)
        self._report.n_trials += outcome is not None
        if self._quota.is_used_up():
            self._leave.set()  # read between trials only: no epoch comes after this
        return outcome

    def _train(self, params: Params, running: RunningTrial) -> Outcome | None:
        for epoch in range(self._study.n_epochs):
            time.sleep(self._study.epoch_seconds)
            began = time.perf_counter()
            goes_on = running.report(Epoch(epoch, 1.0, 0.5, 1.0, accuracy(params, epoch), 0.0))
            self._report.epoch_seconds.append(time.perf_counter() - began)
            if not goes_on:
                return Outcome(State.PRUNED, reason="pruned") if running.ending == "pruned" else None
        return Outcome(State.COMPLETE, accuracy(params, self._study.n_epochs - 1))


def our_worker(study: StubStudy, name: str, report: Report, quota: Quota, wait: Callable[[], object]) -> None:
    storage = open_storage(StorageOptions(study.url))
    session = Session(storage, find_study(storage, study.name), name)
    session.presence.register(name, fresh_seconds=60)
    _ = session.optuna_study  # connections and Optuna's caches are made before the clock starts
    put_clocks_on(session, Clock(report))
    leave = LeaveRequest()
    objective = StubObjective(study, report, leave, quota)
    wait()
    work(session, objective, leave, session.record.generation)
    report.n_outages = storage.patience.n_outages
    storage.close()


def stock_worker(study: StubStudy, name: str, report: Report, quota: Quota, wait: Callable[[], object]) -> None:
    loaded = load_stock_study(study)

    def objective(trial: optuna.Trial) -> float:
        params = {
            "hidden_size": trial.suggest_int("hidden_size", 1, MAX_INTEGER),
            "dropout_rate": trial.suggest_float("dropout_rate", 0.0, 1.0),
            "learning_rate": trial.suggest_float("learning_rate", *LEARNING_RATES, log=True),
        }
        for epoch in range(study.n_epochs):
            time.sleep(study.epoch_seconds)
            began = time.perf_counter()
            trial.report(accuracy(params, epoch), epoch)
            is_pruned = trial.should_prune()
            report.epoch_seconds.append(time.perf_counter() - began)
            if is_pruned:
                raise optuna.TrialPruned
        return accuracy(params, study.n_epochs - 1)

    def count(loaded: optuna.Study, _trial: object) -> None:
        report.ended = time.monotonic()
        report.n_trials += 1
        if quota.is_used_up():
            loaded.stop()

    wait()
    loaded.optimize(objective, callbacks=[count])


def load_stock_study(study: StubStudy) -> optuna.Study:
    """The study as stock Optuna makes or loads it, with an engine of its own defaults."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name=study.name,
        storage=study.url,
        direction="maximize",
        sampler=GridSampler({name: list(values) for name, values in study.spec.grid.items()}),
        pruner=make_pruner(study.spec),
        load_if_exists=True,
    )


def run_workers(worker: Callable[..., None], study: StubStudy, n_workers: int) -> list[Report]:
    """Fork so many workers, let them begin at the same moment, and collect their reports."""
    context = multiprocessing.get_context("fork")
    barrier, n_left = context.Barrier(n_workers), context.Value("q", study.n_trials or NO_LIMIT)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(index) for index in range(n_workers)]
        workers = [context.Process(target=_run, args=(worker, study, file, n_left, barrier)) for file in files]
        try:
            for process in workers:
                process.start()
            for process in workers:
                process.join()
        finally:
            for process in workers:
                process.kill()
        return [pickle.loads(file.read_bytes()) if file.exists() else Report(error="killed") for file in files]


def _run(worker: Callable[..., None], study: StubStudy, file: Path, n_left: Any, barrier: Any) -> None:
    report = Report()
    began_cpu = 0.0

    def wait() -> None:
        nonlocal began_cpu
        barrier.wait(START_SECONDS)
        report.began = report.ended = time.monotonic()
        began_cpu = time.process_time()

    try:
        worker(study, f"stub-{file.name}", report, Quota(n_left), wait)
    except Exception as error:
        barrier.abort()  # whoever still waits for this one waits in vain
        report.error = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    report.cpu_seconds = time.process_time() - began_cpu
    file.write_bytes(pickle.dumps(report))
