"""Cells of one study as records, read by whatever conditions."""

from sqlalchemy import ColumnElement, func, select

from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.part import ComparedPart
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import Query, StoredRow, cells, epochs
from fmnist_optuna.search.cell import decode_params


class CellReading(ComparedPart):
    """Queries for cells of one study."""

    def _select(self, *conditions: ColumnElement[bool]) -> Query:
        """The cells of the study for which some conditions hold, with what `_cell` needs."""
        own = epochs.c.trial_id == cells.c.trial_id
        return select(
            *(column for column in cells.c if column.name != "known"),  # long, and for `verify` alone
            select(func.count()).where(own).scalar_subquery().label("n_epochs"),
            select(func.sum(epochs.c.seconds)).where(own).scalar_subquery().label("seconds"),
            (self.storage.now - cells.c.claimed_at).label("held_seconds"),
        ).where(cells.c.study_id == self.study_id, *conditions)

    @retrying
    def _read_cells(self, query: Query) -> list[Cell]:
        with self.storage.read() as connection:
            return [_cell(row) for row in connection.execute(query)]


def _cell(row: StoredRow) -> Cell:
    """From a row of `CellReading._select`."""
    return Cell(
        cell_id=row.cell_id,
        params=decode_params(row.params),
        state=State.of_cell(row.state, row.result),
        worker=row.worker or "",
        trial_id=row.trial_id,
        trial_number=row.trial_number,
        value=row.value,
        error=row.error,
        n_epochs=row.n_epochs or 0,
        seconds=row.seconds or 0.0,
        held_seconds=max(0.0, row.held_seconds or 0.0),
        finished_at=row.finished_at,
        rung=row.rung,
        cut_at=row.cut_at,
        decision_id=row.decision_id,
        first_claimed_at=row.first_claimed_at,
        number=row.number,
        accuracy=row.val_accuracy,
    )
