"""Totals of the studies of a storage, for whoever asks again and again: three statements in one transaction."""

from dataclasses import dataclass, field

from sqlalchemy import func, select

from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import Query, StoredRow, cells, epochs, studies, workers


@dataclass
class StudyTotals:
    """What has come of a study so far.

    Args:
        study_id: Optuna's.
        name: Of the study.
        cells: Number of cells by state.
        n_trials: Trials that have begun at its cells.
        n_lost: Of these, lost with their lease or killed; of cells that `retry` was called for, since then.
        n_epochs: Of all trials.
        n_workers: Seen within a lease.
        values: Smallest and largest value of a complete cell; None before the first.
    """

    study_id: int
    name: str
    cells: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    n_trials: int = 0
    n_lost: int = 0
    n_epochs: int = 0
    n_workers: int = 0
    values: tuple[float, float] | None = None

    def add(self, row: StoredRow) -> None:
        """Add cells that are in one state."""
        if row.state is None:  # no cell yet
            return
        state = State.of_cell(row.state, row.result)
        self.cells[state] += row.n_cells
        self.n_trials += int(row.n_trials)
        self.n_lost += int(row.n_lost)
        if state is State.COMPLETE and row.least is not None:
            self.values = row.least, row.most


@retrying
def read_totals(storage: Storage, name: str | None = None) -> list[StudyTotals]:
    """The totals of all studies, the oldest first.

    Args:
        name: Of the only study that is wanted; None for all.

    Raises:
        MismatchError: A cell is in no state that there is.
    """
    is_wanted = studies.c.study_id.is_not(None) if name is None else studies.c.study_name == name
    wanted = select(studies.c.study_id).where(is_wanted)
    is_fresh = workers.c.last_seen > storage.now - storage.timing.lease_seconds
    n_epochs = select(epochs.c.study_id, func.count()).group_by(epochs.c.study_id)
    n_workers = select(workers.c.study_id, func.count()).where(is_fresh).group_by(workers.c.study_id)
    found: dict[int, StudyTotals] = {}
    with storage.read() as connection:
        for row in connection.execute(_by_state().where(is_wanted)):
            found.setdefault(row.study_id, StudyTotals(row.study_id, row.study_name)).add(row)
        for study_id, n in connection.execute(n_epochs.where(epochs.c.study_id.in_(wanted))):
            if study_id in found:  # else it is newer than the first statement
                found[study_id].n_epochs = n
        for study_id, n in connection.execute(n_workers.where(workers.c.study_id.in_(wanted))):
            if study_id in found:
                found[study_id].n_workers = n
    return [found[study_id] for study_id in sorted(found)]


def _by_state() -> Query:
    """Cells by study and state."""
    group = studies.c.study_id, studies.c.study_name, cells.c.state, cells.c.result
    return (
        select(
            *group,
            func.count().label("n_cells"),
            func.sum(cells.c.claims).label("n_trials"),
            func.sum(cells.c.lost).label("n_lost"),
            func.min(cells.c.value).label("least"),
            func.max(cells.c.value).label("most"),
        )
        .select_from(studies.outerjoin(cells, cells.c.study_id == studies.c.study_id))
        .group_by(*group)
    )
