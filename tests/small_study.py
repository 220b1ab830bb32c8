"""A small study without Keras: what the tests of the ledger share. Imports neither TensorFlow nor Keras."""

import multiprocessing
import pickle
import random
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from optuna.trial import TrialState
from sqlalchemy import Row, func, select, update

from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import Attempt, Claim, Timing, TrialAttributes
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells, metadata
from fmnist_optuna.search.cell import TRAINING_SEED, Grid, Params, make_points
from fmnist_optuna.search.ladder import stand_at
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study import new_trial
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.attempt import Objective
from fmnist_optuna.work.loop import LeaveRequest, work
from fmnist_optuna.work.running_trial import RunningTrial

STUDY = "small"
FINGERPRINT = "f" * 64  # made up: no test here loads data
GRID: Grid = {"hidden_size": [64, 128], "dropout_rate": [0.0, 0.5]}
N_CELLS = 4
FAST = Timing(lease_seconds=30.0, renewal_seconds=10.0, poll_seconds=0.02, stall_seconds=60.0)
PATIENCE_SECONDS = 20.0
LOST = TrialAttributes(reason="lost")
KILLED = TrialAttributes(reason="killed", exit_code=-9)
# Of both databases one in each run of the tests, the other in `make test-more` or in the long ones.
POSTGRES_SLOW = pytest.mark.parametrize(
    "storage_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True
)
POSTGRES_MORE = pytest.mark.parametrize(
    "storage_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.more)], indirect=True
)
# For what no database decides: once on SQLite is enough.
ON_SQLITE = pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)


def make_spec(grid: Grid = GRID, name: str = STUDY, **tables: Mapping[str, Any]) -> StudySpec:
    """A specification on synthetic data; without a pruner unless a table says otherwise."""
    content = {"data": {"source": "synthetic"}, "pruner": {"name": "none"}, **tables}
    return parse_spec({"name": name, "grid": grid, **content}, "test")


# A parameter of every kind, one of them only beside a choice; few of the names have a meaning for a stub.
SPACE: Mapping[str, Any] = {
    "hidden_size": {"low": 32, "high": 512, "step": 32},
    "dropout_rate": {"low": 0.0, "high": 0.5},
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "act": ["relu", "gelu"],
    "alpha": {"low": 1, "high": 64, "log": True, "when": {"act": "gelu"}},
}


def search_spec(
    sampler: str,
    n_trials: int,
    name: str = STUDY,
    space: Mapping[str, Any] = SPACE,
    repeats: int = 1,
    **tables: Any,
) -> StudySpec:
    """A search that is no grid, on synthetic data; without a pruner unless a table says otherwise."""
    searched = {"search": {"sampler": sampler, "n_trials": n_trials, "repeats": repeats}, "space": space}
    content = {"data": {"source": "synthetic"}, "pruner": {"name": "none"}, **searched, **tables}
    return parse_spec({"name": name, **content}, "test")


def create_study(storage: Storage, spec: StudySpec | None = None) -> StudyRecord:
    """Create or join a study."""
    return create_or_join(storage, spec or make_spec(), FINGERPRINT)[0]


def open_small(url: str, timing: Timing = FAST) -> Storage:
    """A storage of its own engine, as another process would open it."""
    return open_storage(StorageOptions(url, PATIENCE_SECONDS, timing))


def open_session(url: str, name: str, study: str = STUDY) -> Session:
    """A process at work on a study that exists; close `session.storage` afterwards."""
    storage = open_small(url)
    return Session(storage, find_study(storage, study), name)


def claim_cell(session: Session) -> Claim:
    """Claim the next cell, which must be there."""
    claim = session.ledger.claim(session.name, session.ledger.generation() or 0)
    assert claim is not None
    return claim


def create_trial(session: Session, claim: Claim) -> tuple[int, int]:
    """The RUNNING trial of a claim, not yet bound; returns its id and number."""
    trial_id = new_trial.create_trial(session, claim.cell_id, claim.token, claim.params, TrialAttributes())
    return trial_id, session.optuna_storage.get_trial(trial_id).number


def begin_trial(session: Session, claim: Claim) -> int:
    """Create and bind the trial of a claim; returns its id."""
    trial_id, number = create_trial(session, claim)
    assert session.ledger.bind(claim, trial_id, number)
    return trial_id


def finish_trial(session: Session, trial_id: int, value: float) -> None:
    """Tell Optuna that a trial is COMPLETE; the cell does not know yet."""
    session.optuna_storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])


def prune_trial(session: Session, trial_id: int, value: float) -> None:
    """Report one value and tell Optuna that the trial is PRUNED."""
    session.optuna_storage.set_trial_intermediate_value(trial_id, 0, value)
    session.optuna_storage.set_trial_state_values(trial_id, TrialState.PRUNED, [value])


def read_cell(storage: Storage, cell_id: str) -> Row[Any]:
    """The row of a cell."""
    with storage.read() as connection:
        return connection.execute(select(cells).where(cells.c.cell_id == cell_id)).one()


def cell_after(session: Session, claim: Claim) -> tuple[Any, ...]:
    """State, result, value, failures, lost and error of the cell of a claim."""
    row = read_cell(session.storage, claim.cell_id)
    return (row.state, row.result, row.value, row.failures, row.lost, row.error)


def n_rows(storage: Storage) -> dict[str, int]:
    """Number of rows of each of our tables."""
    with storage.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }


def set_cell(storage: Storage, cell_id: str, **values: Any) -> None:
    """Write into the row of a cell behind the ledger's back."""
    with storage.write() as connection:
        connection.execute(update(cells).where(cells.c.cell_id == cell_id).values(**values))


def expire(storage: Storage, cell_id: str) -> None:
    """Move the end of a lease into the past, as if the time had passed."""
    set_cell(storage, cell_id, lease_until=storage.now - 1.0)


def made_up_attempt(
    trial_id: int,
    state: State,
    val_accuracy: float | None = None,
    *,
    number: int = 0,
    error: str | None = None,
    reason: Reason | None = None,
) -> Attempt:
    """What a finished trial, which need not be there, would mean for its cell."""
    return Attempt(trial_id, number, "made-up", {}, state, val_accuracy, TrialAttributes(reason=reason, error=error))


def epoch_of(number: int, val_accuracy: float) -> Epoch:
    """An epoch whose other values are made up."""
    return Epoch(number, 1.0, 0.5, 1.0, val_accuracy, 0.25)


def value_of(params: Mapping[str, Any]) -> float:
    """A val_accuracy that follows from the parameters, different for every cell of the grids used here."""
    return float(params["hidden_size"]) / 1000 + float(params.get("dropout_rate", 0.0)) / 100


def stub_objective(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome | None:
    """Two epochs, then COMPLETE with `value_of`; PRUNED, stopped or lost as `report` says."""
    for number in range(2):
        if not running.report(epoch_of(number, value_of(params)), can_prune=number == 0):
            return Outcome(State.PRUNED, reason="pruned") if running.ending == "pruned" else None
    return Outcome(State.COMPLETE, value_of(params))


# Of each point's cells on GRID, where it has three; the one with the best single value has not the best mean.
POINT_VALUES: Mapping[tuple[int, float], tuple[float, ...]] = {
    (64, 0.0): (0.5, 0.5, 0.5),
    (64, 0.5): (0.625, 0.75, 0.875),
    (128, 0.0): (0.5, 0.5, 1.0),
    (128, 0.5): (0.25, 0.25, 0.25),
}
BEST_POINT = {"hidden_size": 64, "dropout_rate": 0.5}


def value_within(params: Mapping[str, Any], number: str) -> float:
    """Of a point's cell, whose number from 1 is that parameter."""
    return POINT_VALUES[int(params["hidden_size"]), float(params["dropout_rate"])][int(params[number]) - 1]


LADDER = {"name": "ladder", "first_rung": 2, "kappa": 1.0, "margin": 1.0}
MAX_EPOCHS = 16


def ladder_curve(params: Mapping[str, Any]) -> list[float]:
    """A val_accuracy an epoch, made up from the parameters: it rises at a pace of its own, or stops early.

    A training seed moves it by more than many points lie apart, so that a rule which looked at single cells, and not at
    the means of points, would cut others.
    """
    draw = random.Random(int(params["hidden_size"]))
    height, pace, n_epochs = draw.uniform(0.5, 0.9), draw.uniform(0.3, 3.0), draw.choice([MAX_EPOCHS] * 4 + [3, 7])
    if TRAINING_SEED in params:
        height += random.Random(f"{params['hidden_size']} {params[TRAINING_SEED]}").uniform(-0.1, 0.1)
    return [height - 0.4 / (1 + pace * epoch) for epoch in range(n_epochs)]


def ladder_objective(params: Params, seed: int, running: RunningTrial) -> Outcome | None:
    """Trains on from what is recorded: to the next rung, or to its end."""
    return train_on(ladder_curve(params), running)


def train_on(curve: Sequence[float], running: RunningTrial) -> Outcome | None:
    """The same along any curve."""
    end = min(len(curve), running.pause_at or MAX_EPOCHS)
    for number in range(running.n_recorded, end):
        if not running.report(epoch_of(number, curve[number])):
            return None
    return Outcome(State.PARKED) if end == running.pause_at else Outcome(State.COMPLETE, max(curve))


def ladder_spec(n_cells: int, name: str = "ladder", repeats: int = 1) -> StudySpec:
    """A study with rungs, of as many cells."""
    return make_spec(
        {"hidden_size": list(range(1, n_cells // repeats + 1))},
        name,
        pruner=LADDER,
        search={"repeats": repeats},
        training={"max_epochs": MAX_EPOCHS},
        data={"source": "synthetic", "n_validation": 2000},
    )


def expected_cuts(spec: StudySpec) -> dict[str, int]:
    """At which rung each cell is cut, by cell_id, if all cells come to each rung before any goes on.

    Each cell stands where the mean of its point does, as the curves of its repeats rise alike.
    """
    rule = spec.ladder_rule()
    cells = {point.cell_id: point.params for point in make_points(spec.cell_grid)}
    repeats: dict[object, list[list[float]]] = {}
    for params in cells.values():
        repeats.setdefault(params["hidden_size"], []).append(ladder_curve(params))
    means = {size: [statistics.fmean(values) for values in zip(*each, strict=True)] for size, each in repeats.items()}
    curves = {cell: means[params["hidden_size"]] for cell, params in cells.items()}
    finished: dict[str, float | None] = {}
    cut: dict[str, int] = {}
    for rung in rule.rungs():
        finished |= {cell: max(curve) for cell, curve in curves.items() if len(curve) < rung and cell not in cut}
        racing = [cell for cell in curves if cell not in finished and cell not in cut]
        standings = {cell: stand_at(rung, curves[cell]) for cell in racing}
        cut |= dict.fromkeys(rule.decide(standings, finished).cut, rung)
    return cut


def cut_cells(session: Session) -> dict[str, int]:
    """How many epochs each cut cell had, by cell_id."""
    return {cell.cell_id: cell.n_epochs for cell in session.history.cells() if cell.state is State.PRUNED}


def finish_everything(session: Session, value: Callable[[Params], float | None] = value_of) -> None:
    """A healthy worker: claims and completes cells until none waits; one whose parameters have no value diverged."""
    while (claim := session.ledger.claim(session.name, session.ledger.generation() or 0)) is not None:
        trial_id = begin_trial(session, claim)
        if (found := value(claim.params)) is None:
            prune_trial(session, trial_id, 0.1)
        else:
            finish_trial(session, trial_id, found)
        finish_cell(session, claim, trial_id)


def work_off(session: Session, objective: Objective = stub_objective) -> None:
    """The loop of a worker, which takes all cells."""
    work(session, objective, LeaveRequest(), session.ledger.generation() or 0)


def finish_cell(session: Session, claim: Claim, trial_id: int) -> bool:
    """Copy a finished trial to its cell."""
    return session.ledger.finish_cell(
        claim.cell_id, claim.token, read_attempt(session.optuna_storage.get_trial(trial_id))
    )


def in_threads(n_threads: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work(0)` to `work(n - 1)` at the same time; returns their results in order."""
    barrier = threading.Barrier(n_threads)

    def begin(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(begin, range(n_threads)))


def in_processes(n_processes: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run `work(number, *arguments)` in as many processes at the same time; returns their results in order.

    They are forked from a fresh interpreter that has no connection and no thread, so that one start serves all.
    """
    script = (
        "import pickle, sys; length = int(sys.stdin.buffer.readline()); "
        "sys.path[:] = pickle.loads(sys.stdin.buffer.read(length)); import small_study; small_study.fork_all()"
    )
    paths, order = pickle.dumps(sys.path), pickle.dumps((n_processes, work, arguments))
    sent = f"{len(paths)}\n".encode() + paths + order
    done = subprocess.run([sys.executable, "-c", script], input=sent, stdout=subprocess.PIPE, check=True, timeout=120)
    return list(pickle.loads(done.stdout))


def fork_all() -> None:
    """The other half of `in_processes`: read the order, fork, write the results."""
    n_processes, work, arguments = pickle.load(sys.stdin.buffer)
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(n_processes), context.SimpleQueue()

    def begin(number: int) -> None:
        barrier.wait()
        queue.put((number, work(number, *arguments)))

    children = [context.Process(target=begin, args=(number,)) for number in range(n_processes)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * n_processes
    results = dict(queue.get() for _ in children)
    sys.stdout.buffer.write(pickle.dumps([results[number] for number in range(n_processes)]))
