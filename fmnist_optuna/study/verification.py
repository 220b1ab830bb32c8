"""The proof that every cell has exactly one result: cells and trials compared, one by one."""

import time
from collections import defaultdict
from dataclasses import dataclass

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select

from fmnist_optuna.bridge.attributes import is_foreign
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.trials import same_params
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.owners import Owners
from fmnist_optuna.ledger.states import DONE, UNFINISHED, State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import CELL_ID, TOKEN, StoredRow, cells
from fmnist_optuna.search.cell import decode_params

MAX_READS = 20
READ_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class Verification:
    """What was found; `ok` means a finished study without any difference.

    Args:
        n_cells: Cells of the union of all accepted grids, or of the search.
        n_results: Done cells that agree with the one trial they name.
        n_duplicates: Further COMPLETE or PRUNED trials of a cell.
        n_missing: Cells without a result, failed and running ones among them.
        n_failed: Cells that failed for good.
        n_running: Cells that run.
        n_surplus: Trials that run or wait without a cell, and finished results that no cell accounts for.
        problems: One line for each difference.
        n_foreign: Trials that other programs added, in whatever state; they count for nothing and spoil nothing.
        n_unchecked_points: Points that another version of Optuna suggested, or of SciPy drew, and this one does not.
    """

    n_cells: int
    n_results: int
    n_duplicates: int
    n_missing: int
    n_failed: int
    n_running: int
    n_surplus: int
    problems: tuple[str, ...]
    n_foreign: int = 0
    n_unchecked_points: int = 0

    @property
    def ok(self) -> bool:
        """Whether every cell has exactly one result and nothing else is there."""
        return self.n_results == self.n_cells and not (self.n_duplicates or self.n_surplus or self.problems)


def verify(storage: Storage, trials: BaseStorage, study_id: int) -> Verification:
    """Read cells, trials and cells again, until the cells stand still, and compare them."""
    for _ in range(MAX_READS):
        before = _read_cells(storage, study_id)
        all_trials = trials.get_all_trials(study_id, deepcopy=False)
        if _read_cells(storage, study_id) == before:
            break
        time.sleep(READ_PAUSE_SECONDS)
    return compare(before, all_trials)


@retrying
def _read_cells(storage: Storage, study_id: int) -> list[StoredRow]:
    query = select(
        cells.c.cell_id, cells.c.params, cells.c.state, cells.c.token, cells.c.trial_id, cells.c.result, cells.c.value
    ).where(cells.c.study_id == study_id)
    with storage.read() as connection:
        return list(connection.execute(query.order_by(cells.c.position)))


def compare(rows: list[StoredRow], trials: list[FrozenTrial]) -> Verification:
    """Compare the cells of a study with its trials."""
    own_trials = [trial for trial in trials if not is_foreign(trial)]
    problems: list[str] = []
    by_cell: dict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in own_trials:
        by_cell[str(trial.system_attrs.get(CELL_ID))].append(trial)
    n_results = n_duplicates = 0
    for row in rows:
        finished = [t for t in by_cell[row.cell_id] if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        own = next((trial for trial in finished if trial_id_of(trial) == row.trial_id), None)
        n_duplicates += max(0, len(finished) - 1)
        difference = _difference(row, own, len(finished))
        if difference is None:
            n_results += row.state == DONE
        else:
            problems.append(f"cell {row.cell_id[:8]} {row.params}: {difference}")
    surplus = _surplus(rows, own_trials)
    problems += [f"trial {trial.number} is {trial.state.name} and no cell accounts for it" for trial in surplus]
    states = [row.state for row in rows]
    return Verification(
        n_cells=len(rows),
        n_results=n_results,
        n_duplicates=n_duplicates,
        n_missing=len(rows) - n_results,
        n_failed=states.count(State.FAILED),
        n_running=states.count(State.RUNNING),
        n_surplus=len(surplus),
        problems=tuple(problems),
        n_foreign=len(trials) - len(own_trials),
    )


def _difference(row: StoredRow, own: FrozenTrial | None, n_finished: int) -> str | None:
    if n_finished > 1:
        return f"has {n_finished} finished trials, must have at most one"
    if row.state != DONE:
        # A running cell's trial may have been told an instant ago; the holder is about to copy it.
        return "has a finished trial, but no result" if n_finished and row.state != State.RUNNING else None
    if own is None:
        return f"names trial id {row.trial_id}, which is not a finished trial of this cell"
    if own.state.name != row.result:
        return f"says {row.result}, but trial {own.number} is {own.state.name}"
    if own.value != row.value:
        return f"has the value {row.value!r}, but trial {own.number} has {own.value!r}"
    if not same_params(own.params, decode_params(row.params)):
        return f"has other parameters than trial {own.number}: {own.params}"
    return None


def _surplus(rows: list[StoredRow], trials: list[FrozenTrial]) -> list[FrozenTrial]:
    known = {row.cell_id for row in rows}
    owners = Owners.of((row.token, row.trial_id) for row in rows if row.state in UNFINISHED)

    def is_surplus(trial: FrozenTrial) -> bool:
        token = trial.system_attrs.get(TOKEN)
        if trial.state == TrialState.RUNNING:
            return not owners.own(trial_id_of(trial), token)
        if trial.state == TrialState.WAITING:
            return True
        return trial.state != TrialState.FAIL and trial.system_attrs.get(CELL_ID) not in known

    return [trial for trial in trials if is_surplus(trial)]
