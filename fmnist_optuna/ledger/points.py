"""The points of cells that are decided when they are first claimed: which cell is next, what is known by then.

A look locks nothing: the claim fixes the point, if nobody has meanwhile.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, or_, select

from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.part import ComparedPart
from fmnist_optuna.ledger.progress import OVERLAP_SECONDS, is_since
from fmnist_optuna.ledger.states import DONE, UNFINISHED, State
from fmnist_optuna.ledger.tables import StoredRow, cells, epochs
from fmnist_optuna.search.cell import Params, decode_params
from fmnist_optuna.search.known import KnownCell

UNDECIDED = "{}"  # parameters of a cell whose point its first claim fixes


@dataclass(frozen=True)
class Upcoming:
    """The cell that a claim would take now.

    Args:
        number: Within its search; None of a grid.
        has_point: Whether it is decided what it trains.
    """

    cell_id: str
    number: int | None
    has_point: bool


@dataclass(frozen=True)
class Proposal:
    """A point for a cell that has none.

    Args:
        params: JSON in the declared types.
        known: JSON of what it was suggested by.
    """

    cell_id: str
    params: str
    known: str


class Points(ComparedPart):
    """What there is to know before the point of a cell is decided."""

    @retrying
    def find_next(self, preferred: Collection[str] = (), given_up: Collection[str] = ()) -> Upcoming | None:
        """The cell that a claim with the same arguments would take, if no other worker is faster; None for none."""
        waiting = (
            select(cells.c.cell_id, cells.c.number, (cells.c.params != UNDECIDED).label("has_point"))
            .where(cells.c.study_id == self.study_id, cells.c.state == State.WAITING)
            .order_by(cells.c.position)
            .limit(1)
        )
        if given_up:
            waiting = waiting.where(cells.c.cell_id.not_in(sorted(given_up)))
        queries = [waiting.where(cells.c.cell_id.in_(sorted(preferred)))] if preferred else []
        with self.storage.read() as connection:
            for query in [*queries, waiting]:
                if (row := connection.execute(query).one_or_none()) is not None:
                    return Upcoming(row.cell_id, row.number, bool(row.has_point))
        return None

    @retrying
    def read_known(self, since: float = 0.0) -> tuple[list[KnownCell], float]:
        """The cells that have a point and have not failed.

        Args:
            since: Leave out what got its result well before this time of the database's clock.

        Returns:
            The cells, and the time to ask with next.
        """
        own = epochs.c.trial_id == cells.c.trial_id
        best_so_far = select(self._best(self._measured)).where(own, epochs.c.epoch < cells.c.rung)
        query = select(
            *(cells.c[name] for name in ("number", "params", "state", "result", "value", "rung", "finished_at")),
            select(func.count()).where(own).scalar_subquery().label("n_epochs"),
            best_so_far.scalar_subquery().label("best_so_far"),
            self.storage.now.label("now"),
        ).where(
            cells.c.study_id == self.study_id,
            cells.c.number.is_not(None),
            cells.c.params != UNDECIDED,
            or_(cells.c.state.in_(UNFINISHED), (cells.c.state == DONE) & is_since(self.storage, since)),
        )
        with self.storage.read() as connection:
            rows: list[StoredRow] = list(connection.execute(query))
        latest = max((row.finished_at or 0.0 for row in rows if row.state == DONE), default=0.0)
        if not rows:
            return [], since
        # The clock may have been set back: what comes next must not be left out.
        asked = min(rows[0].now, max(since + OVERLAP_SECONDS, latest))
        return [self._known(row) for row in rows], asked - OVERLAP_SECONDS

    @retrying
    def read_point(self, number: int) -> Params | None:
        """The parameters of the cell of a number; None where its point is not fixed yet, or there is no such cell."""
        query = select(cells.c.params).where(cells.c.study_id == self.study_id, cells.c.number == number)
        with self.storage.read() as connection:
            text: str | None = connection.execute(query).scalar_one_or_none()
        return None if text is None or text == UNDECIDED else decode_params(text)

    @retrying
    def read_fixed(self) -> dict[int, str | None]:
        """Of each cell of a search, by its number, what its point was suggested by; None where nothing was."""
        query = select(cells.c.number, cells.c.known).where(
            cells.c.study_id == self.study_id, cells.c.number.is_not(None)
        )
        with self.storage.read() as connection:
            return {row.number: row.known for row in connection.execute(query)}

    def _known(self, row: StoredRow) -> KnownCell:
        """A cell with the score of its value, of which the larger one is always better."""
        params = decode_params(row.params)
        if row.state == DONE and row.result == State.COMPLETE.optuna_name:
            return KnownCell(row.number, params, "complete", 0, self._score(row.value))
        if row.state == DONE:
            return KnownCell(row.number, params, "pruned", row.n_epochs, self._score(row.value))
        if row.rung > 0:
            return KnownCell(row.number, params, "climbing", row.rung, self._score(row.best_so_far))
        return KnownCell(row.number, params, "running")
