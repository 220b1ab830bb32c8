"""What a study has so far, to read: progress, cells, curves and the leader.

Reads our tables only, so that `status` and `best` need no Optuna.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import fields, replace

from sqlalchemy import ColumnElement, exists, func, or_, select

from fmnist_optuna.ledger.leaders import Leaders
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.records import Cell, CellCounts, WorkerRow
from fmnist_optuna.ledger.states import DONE, UNFINISHED, State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import Query, StoredRow, cells, decisions, epochs, ids_by_query, workers
from fmnist_optuna.search.metric import Epoch

EPOCH = [epochs.c[field.name] for field in fields(Epoch)]  # the columns of the record, in its order
OVERLAP_SECONDS = 5.0  # of two looks: two results may come at one time, or be committed out of order


class History(Leaders):
    """Readings of one study."""

    @retrying
    def counts(self, without: Collection[str] = (), *, only_unfinished: bool = False) -> CellCounts:
        """Number of cells by state, in one statement.

        Args:
            without: cell_ids that are not counted.
            only_unfinished: Whether to leave out those that are done or failed, however many: what waiting workers ask.
        """
        states = UNFINISHED if only_unfinished else (*UNFINISHED, DONE, State.FAILED)
        query = (
            select(cells.c.state, cells.c.result, func.count(), func.count(cells.c.cut_at))
            .where(cells.c.study_id == self.study_id, cells.c.state.in_(states))
            .group_by(cells.c.state, cells.c.result)
        )
        query = query.where(cells.c.cell_id.not_in(sorted(without))) if without else query
        n_cells, n_cut = dict.fromkeys(State, 0), dict.fromkeys(State, 0)
        with self.storage.look() as connection:
            for state, result, n, n_marked in connection.execute(query):
                n_cells[State.of_cell(state, result)] += n
                n_cut[State.of_cell(state, result)] += n_marked
        return CellCounts(
            total=sum(n_cells.values()),
            waiting=n_cells[State.WAITING],
            running=n_cells[State.RUNNING],
            parked=n_cells[State.PARKED],
            done=n_cells[State.COMPLETE] + n_cells[State.PRUNED],
            complete=n_cells[State.COMPLETE],
            pruned=n_cells[State.PRUNED],
            cut=n_cut[State.PRUNED],
            failed=n_cells[State.FAILED],
        )

    @retrying
    def is_over(self) -> bool:
        """Whether nothing is left to do, or the study was deleted: `counts` without counting."""
        unfinished = exists().where(cells.c.study_id == self.study_id, cells.c.state.in_(UNFINISHED))
        with self.storage.look() as connection:
            return not connection.execute(select(unfinished)).scalar_one()

    def running(self) -> list[Cell]:
        """The cells in training, in the order of their workers' names."""
        return self._read_cells(self._select(cells.c.state == State.RUNNING).order_by(cells.c.worker))

    def finished(self, since: float = 0.0) -> list[Cell]:
        """Cells that have a result, in the order in which they got it.

        Args:
            since: Only those finished after this time of the database's clock.
        """
        recent = self._select(cells.c.state == DONE, is_since(self.storage, since))
        return self._read_cells(recent.order_by(cells.c.finished_at, cells.c.trial_number))

    def finished_by(self, trial_number: int) -> Cell | None:
        """The cell whose result is this trial, or None."""
        return next(
            iter(self._read_cells(self._select(cells.c.state == DONE, cells.c.trial_number == trial_number))), None
        )

    @retrying
    def resting(self, cell_ids: Collection[str]) -> dict[str, int]:
        """The rung at which each of some cells rests, by cell_id; those that go no further or train are left out."""
        query = select(cells.c.cell_id, cells.c.rung).where(
            cells.c.study_id == self.study_id,
            cells.c.cell_id.in_(sorted(cell_ids)),
            cells.c.state.in_((State.PARKED, State.WAITING)),
            cells.c.cut_at.is_(None),
        )
        with self.storage.read() as connection:
            return {row.cell_id: row.rung for row in connection.execute(query)}

    @retrying
    def cut(self, cell_ids: Collection[str]) -> dict[str, int]:
        """The epochs after which each of some cells was cut, by cell_id; the others are left out."""
        query = select(cells.c.cell_id, cells.c.cut_at).where(
            cells.c.study_id == self.study_id, cells.c.cell_id.in_(sorted(cell_ids)), cells.c.cut_at.is_not(None)
        )
        with self.storage.read() as connection:
            return {row.cell_id: row.cut_at for row in connection.execute(query)}

    def failed(self) -> list[Cell]:
        """The cells that failed for good, in the order of claims."""
        return self._read_cells(self._select(cells.c.state == State.FAILED).order_by(cells.c.position))

    @retrying
    def last_finished_at(self) -> float:
        """When the newest result came, by the database's clock; 0.0 before the first."""
        query = select(func.max(cells.c.finished_at)).where(cells.c.study_id == self.study_id)
        with self.storage.read() as connection:
            return float(connection.execute(query).scalar() or 0.0)

    @retrying
    def curves(self, trial_ids: Sequence[int]) -> dict[int, list[Epoch]]:
        """The epochs of several trials, by trial id; a value that was not finite is NaN."""
        found: dict[int, list[Epoch]] = {trial_id: [] for trial_id in trial_ids}
        curves = select(epochs.c.trial_id, *EPOCH).order_by(epochs.c.trial_id, epochs.c.epoch)
        with self.storage.read() as connection:
            for some in ids_by_query(trial_ids):
                for row in connection.execute(curves.where(epochs.c.trial_id.in_(some))):
                    found[row.trial_id].append(_epoch(row))
        return found

    @retrying
    def curve(self, trial_id: int) -> list[Epoch]:
        """The epochs of a trial; a value that was not finite is NaN."""
        query = select(epochs.c.trial_id, *EPOCH).where(epochs.c.trial_id == trial_id).order_by(epochs.c.epoch)
        with self.storage.look() as connection:
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
    def elapsed_seconds(self) -> float:
        """From the first claim to the last event, or to now while anybody is at work; 0.0 before the first claim."""
        n_racing = func.count().filter(cells.c.state.in_(UNFINISHED))
        n_held = func.count().filter(cells.c.state == State.RUNNING, cells.c.lease_until > self.storage.now)
        let_go = func.max(cells.c.lease_until).filter(cells.c.state.in_((State.WAITING, State.FAILED)))
        known = func.max(cells.c.finished_at), func.max(cells.c.claimed_at), let_go
        query = select(func.min(cells.c.first_claimed_at), *known, n_racing, n_held, self.storage.now).where(
            cells.c.study_id == self.study_id
        )
        at_work = select(func.count()).select_from(workers).where(*self._is_at_work())
        with self.storage.read() as connection:
            began, *events, n_racing, n_held, now = connection.execute(query).one()
            if began is None:
                return 0.0
            if n_held or (n_racing and connection.execute(at_work).scalar_one()):
                return float(now - began)
            if n_racing:
                events += connection.execute(self._last_events()).one()
        return float(min(now, max(event for event in events if event is not None)) - began)

    def _last_events(self) -> Query:
        """When a rung was decided last, a worker was seen last, and the last of the parked cells came to its rung.

        The third is not stored, but follows from the claim and what was trained since.
        """
        below = select(func.max(decisions.c.rung)).where(
            decisions.c.study_id == self.study_id, decisions.c.rung < cells.c.rung
        )
        trained = select(func.sum(epochs.c.seconds)).where(
            epochs.c.trial_id == cells.c.trial_id,
            epochs.c.epoch >= func.coalesce(below.correlate(cells).scalar_subquery(), 0),
        )
        parked_at = func.max(cells.c.claimed_at + trained.correlate(cells).scalar_subquery())
        is_parked = cells.c.study_id == self.study_id, cells.c.state == State.PARKED
        return select(
            select(func.max(decisions.c.decided_at)).where(decisions.c.study_id == self.study_id).scalar_subquery(),
            select(func.max(workers.c.last_seen)).where(workers.c.study_id == self.study_id).scalar_subquery(),
            select(parked_at).where(*is_parked).scalar_subquery(),
        )

    @retrying
    def workers(self) -> list[WorkerRow]:
        """The workers that are at work, by name."""
        told = workers.c.worker_id, workers.c.host, workers.c.pid, workers.c.version, workers.c.device
        ages = [(self.storage.now - since).label(since.name) for since in (workers.c.started, workers.c.last_seen)]
        query = select(*told, *ages).where(*self._is_at_work()).order_by(workers.c.worker_id)
        with self.storage.read() as connection:
            return [WorkerRow(*row) for row in connection.execute(query)]

    def _is_at_work(self) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        """Of a worker: it was seen within a lease, or holds a cell with a lease, which may be a longer one."""
        holds = exists().where(
            cells.c.study_id == self.study_id,
            cells.c.worker == workers.c.worker_id,
            cells.c.state == State.RUNNING,
            cells.c.lease_until > self.storage.now,
        )
        is_fresh = workers.c.last_seen > self.storage.now - self.storage.timing.lease_seconds
        return workers.c.study_id == self.study_id, or_(is_fresh, holds)


def is_since(storage: Storage, time: float) -> ColumnElement[bool]:
    """Of a result: it came after a time of the database's clock; all may have where that clock was set back."""
    return or_(cells.c.finished_at > time, storage.now < time + OVERLAP_SECONDS)


class NewResults:
    """The cells that got their result since the last look, each given once.

    Args:
        history: Of the study.
        since: Where the first look begins: seconds since 1970 UTC, by the database's clock.
    """

    def __init__(self, history: History, since: float = 0.0) -> None:
        self._history = history
        self._until = since
        self._given: set[int | None] = set()

    def read(self) -> list[Cell]:
        """Those that are new, in the order in which they got their result."""
        recent = self._history.finished(since=self._until - OVERLAP_SECONDS)
        new = [cell for cell in recent if cell.trial_id not in self._given]
        self._given.update(cell.trial_id for cell in new)
        self._until = max([self._until, *(cell.finished_at or 0.0 for cell in new)])
        return new


def _epoch(row: StoredRow) -> Epoch:
    """From a trial id and the columns `EPOCH`."""
    _, epoch, *measured, objective = list(row)
    return replace(Epoch(epoch, *(math.nan if each is None else each for each in measured)), objective=objective)
