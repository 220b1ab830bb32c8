"""What a study has so far, as rows to read: progress, curves and the leader.

Reads our tables only, so that `status` and `best` need no Optuna.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Row, Select, column, exists, func, select, table

from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.part import StudyPart
from fmnist_optuna.ledger.records import Epoch
from fmnist_optuna.ledger.tables import OWN_ATTRIBUTES, cells, epochs, workers
from fmnist_optuna.search.cell import Params, decode_params

IDS_A_QUERY = 500  # SQLite takes some thousand parameters
EPOCH = [epochs.c[field.name] for field in fields(Epoch)]  # the columns of the record, in its order
FRESH_SECONDS = 120.0  # a worker says every few seconds that it is there
# Two of Optuna's tables, named here so that Optuna need not be imported.
_trials = table("trials", column("trial_id"), column("study_id"))
_attributes = table("trial_system_attributes", column("trial_id"), column("key"))


@dataclass(frozen=True)
class CellCounts:
    """Number of cells by state; complete and pruned add up to done."""

    total: int
    waiting: int
    running: int
    done: int
    complete: int
    pruned: int
    failed: int

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.waiting == 0 and self.running == 0


@dataclass(frozen=True)
class RunningCell:
    """A cell that is being trained, with its latest epochs."""

    worker: str
    trial_id: int | None
    trial_number: int | None
    params: Params
    seconds: float  # since it was claimed
    n_epochs: int
    val_accuracies: tuple[float, ...]  # one an epoch


@dataclass(frozen=True)
class FinishedCell:
    """A cell with its result."""

    trial_id: int
    trial_number: int
    params: Params
    result: str  # COMPLETE or PRUNED
    value: float | None  # val_accuracy, 0..1
    n_epochs: int
    seconds: float  # of its epochs
    finished_at: float  # seconds since 1970 UTC


@dataclass(frozen=True)
class GridCell:
    """A cell of the grid as it stands.

    Args:
        state: "waiting", "running", "complete", "pruned" or "failed".
        value: val_accuracy, 0..1, once it is done.
    """

    params: Params
    state: str
    trial_number: int | None
    value: float | None
    error: str | None


@dataclass(frozen=True)
class WorkerRow:
    """A worker as it last said it was there."""

    worker_id: str
    host: str
    pid: int
    seconds_since_seen: float


class History(StudyPart):
    """Readings of one study."""

    @retrying
    def counts(self) -> CellCounts:
        """Number of cells by state."""
        query = (
            select(cells.c.state, cells.c.result, func.count())
            .where(cells.c.study_id == self.study_id)
            .group_by(cells.c.state, cells.c.result)
        )
        with self.storage.read() as connection:
            rows = list(connection.execute(query))

        def count(state: str, result: str | None = None) -> int:
            return sum(n for row_state, row_result, n in rows if row_state == state and result in (None, row_result))

        return CellCounts(
            total=sum(n for _, _, n in rows),
            waiting=count("waiting"),
            running=count("running"),
            done=count("done"),
            complete=count("done", "COMPLETE"),
            pruned=count("done", "PRUNED"),
            failed=count("failed"),
        )

    @retrying
    def running(self) -> list[RunningCell]:
        """The cells in training, in the order of their workers' names."""
        query = (
            select(cells, (self.storage.now - cells.c.claimed_at).label("seconds"))
            .where(cells.c.study_id == self.study_id, cells.c.state == "running")
            .order_by(cells.c.worker)
        )
        with self.storage.read() as connection:
            rows = list(connection.execute(query))
            trial_ids = [row.trial_id for row in rows if row.trial_id is not None]
            curves: dict[int, list[float]] = {}
            latest = select(epochs.c.trial_id, epochs.c.val_accuracy).where(epochs.c.trial_id.in_(trial_ids))
            for trial_id, value in connection.execute(latest.order_by(epochs.c.trial_id, epochs.c.epoch)):
                curves.setdefault(trial_id, []).append(value if value is not None else float("nan"))
        return [
            RunningCell(
                worker=row.worker,
                trial_id=row.trial_id,
                trial_number=row.trial_number,
                params=decode_params(row.params),
                seconds=max(0.0, row.seconds),
                n_epochs=len(curves.get(row.trial_id, ())),
                val_accuracies=tuple(curves.get(row.trial_id, ())),
            )
            for row in rows
        ]

    @retrying
    def finished(self, since: float = 0.0) -> list[FinishedCell]:
        """Cells that are done, in the order in which they were finished.

        Args:
            since: Only those finished after this time of the database's clock.
        """
        query = self._finished().where(cells.c.finished_at > since)
        with self.storage.read() as connection:
            rows = connection.execute(query.order_by(cells.c.finished_at, cells.c.trial_number))
            return [_finished(row) for row in rows]

    def best(self) -> FinishedCell | None:
        """The COMPLETE cell with the best val_accuracy; of equals the earlier trial."""
        return next(iter(self.leaders(1)), None)

    @retrying
    def best_value(self) -> float | None:
        """The best val_accuracy of a COMPLETE cell; None before the first."""
        query = select(func.max(cells.c.value)).where(cells.c.study_id == self.study_id, cells.c.result == "COMPLETE")
        with self.storage.read() as connection:
            value: float | None = connection.execute(query).scalar()
        return value

    @retrying
    def leaders(self, n_cells: int) -> list[FinishedCell]:
        """The COMPLETE cells with the best val_accuracy, the best first; of equals the earlier trial."""
        query = (
            self._finished().where(cells.c.result == "COMPLETE").order_by(cells.c.value.desc(), cells.c.trial_number)
        )
        with self.storage.read() as connection:
            return [_finished(row) for row in connection.execute(query.limit(n_cells))]

    @retrying
    def finished_by(self, trial_number: int) -> FinishedCell | None:
        """The cell whose result is this trial, or None."""
        with self.storage.read() as connection:
            row = connection.execute(self._finished().where(cells.c.trial_number == trial_number)).one_or_none()
        return None if row is None else _finished(row)

    def _finished(self) -> Select[Any]:
        own = epochs.c.trial_id == cells.c.trial_id
        return select(
            cells,
            select(func.count()).where(own).scalar_subquery().label("n_epochs"),
            select(func.sum(epochs.c.seconds)).where(own).scalar_subquery().label("seconds"),
        ).where(cells.c.study_id == self.study_id, cells.c.state == "done")

    @retrying
    def last_finished_at(self) -> float:
        """When the newest result came, by the database's clock; 0.0 before the first."""
        query = select(func.max(cells.c.finished_at)).where(cells.c.study_id == self.study_id)
        with self.storage.read() as connection:
            return float(connection.execute(query).scalar() or 0.0)

    @retrying
    def failed(self) -> list[tuple[Params, str]]:
        """Parameters and error of the cells that failed for good."""
        query = (
            select(cells.c.params, cells.c.error)
            .where(cells.c.study_id == self.study_id, cells.c.state == "failed")
            .order_by(cells.c.position)
        )
        with self.storage.read() as connection:
            return [(decode_params(params), error or "") for params, error in connection.execute(query)]

    @retrying
    def grid(self) -> list[GridCell]:
        """Every cell, in the order of claims."""
        query = select(cells).where(cells.c.study_id == self.study_id).order_by(cells.c.position, cells.c.cell_id)
        with self.storage.read() as connection:
            return [
                GridCell(
                    params=decode_params(row.params),
                    state=row.state if row.result is None else row.result.lower(),
                    trial_number=row.trial_number,
                    value=row.value,
                    error=row.error,
                )
                for row in connection.execute(query)
            ]

    @retrying
    def curves(self, trial_ids: Sequence[int]) -> dict[int, list[Epoch]]:
        """The epochs of several trials, by trial id; a value that was not finite is NaN."""
        found: dict[int, list[Epoch]] = {trial_id: [] for trial_id in trial_ids}
        curves = select(epochs.c.trial_id, *EPOCH).order_by(epochs.c.trial_id, epochs.c.epoch)
        with self.storage.read() as connection:
            for begin in range(0, len(trial_ids), IDS_A_QUERY):
                some = epochs.c.trial_id.in_(trial_ids[begin : begin + IDS_A_QUERY])
                for row in connection.execute(curves.where(some)):
                    found[row.trial_id].append(_epoch(row))
        return found

    @retrying
    def curve(self, trial_id: int) -> list[Epoch]:
        """The epochs of a trial; a value that was not finite is NaN."""
        query = select(epochs.c.trial_id, *EPOCH).where(epochs.c.trial_id == trial_id).order_by(epochs.c.epoch)
        with self.storage.read() as connection:
            return [_epoch(row) for row in connection.execute(query)]

    @retrying
    def epoch_totals(self) -> dict[int, tuple[int, float]]:
        """Number of epochs and their seconds, by trial id, of every attempt of the study."""
        query = (
            select(epochs.c.trial_id, func.count(), func.sum(epochs.c.seconds))
            .where(epochs.c.study_id == self.study_id)
            .group_by(epochs.c.trial_id)
        )
        with self.storage.read() as connection:
            return {trial_id: (n, seconds) for trial_id, n, seconds in connection.execute(query)}

    @retrying
    def n_foreign(self) -> int:
        """Number of trials that other programs added to the study, counted in Optuna's tables."""
        is_own = exists().where(_attributes.c.trial_id == _trials.c.trial_id, _attributes.c.key.in_(OWN_ATTRIBUTES))
        query = select(func.count()).where(_trials.c.study_id == self.study_id, ~is_own)
        with self.storage.read() as connection:
            return int(connection.execute(query).scalar_one())

    @retrying
    def elapsed_seconds(self) -> float:
        """From the first claim to the last event, or to now while a cell runs; 0.0 before the first claim."""
        n_running = func.count().filter(cells.c.state == "running")
        last_events = func.max(cells.c.finished_at), func.max(cells.c.claimed_at)
        query = select(func.min(cells.c.claimed_at), *last_events, n_running, self.storage.now).where(
            cells.c.study_id == self.study_id
        )
        with self.storage.read() as connection:
            began, finished, claimed, n, now = connection.execute(query).one()
        if began is None:
            return 0.0
        return float((now if n else max(finished or claimed, claimed)) - began)

    @retrying
    def workers(self) -> list[WorkerRow]:
        """The workers that were seen of late, by name."""
        age = (self.storage.now - workers.c.last_seen).label("age")
        query = (
            select(workers.c.worker_id, workers.c.host, workers.c.pid, age)
            .where(workers.c.study_id == self.study_id, workers.c.last_seen > self.storage.now - FRESH_SECONDS)
            .order_by(workers.c.worker_id)
        )
        with self.storage.read() as connection:
            return [WorkerRow(*row) for row in connection.execute(query)]


def _epoch(row: Row[Any]) -> Epoch:
    """From a trial id and the columns `EPOCH`."""
    numbers: list[Any] = list(row)[1:]
    values: list[Any] = [float("nan") if number is None else number for number in numbers]
    return Epoch(*values)


def _finished(row: Row[Any]) -> FinishedCell:
    return FinishedCell(
        trial_id=row.trial_id,
        trial_number=row.trial_number,
        params=decode_params(row.params),
        result=row.result,
        value=row.value,
        n_epochs=row.n_epochs or 0,
        seconds=row.seconds or 0.0,
        finished_at=row.finished_at,
    )
