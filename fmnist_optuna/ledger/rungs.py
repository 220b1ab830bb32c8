"""The rungs of one study: which of the parked cells go on is decided for a whole rung in one locked transaction.

The cells of the lowest rung at which any are parked are decided together, once no other cell is on its way to that
rung. What is decided is a pure function of the rows, so it is of no account who decides, when, or how many workers
there are. A decision that is repeated finds nothing that is parked at that rung.

While a worker has nothing to do, cells that go on whatever the last ones to come will have are let on ahead of that
decision. It then counts them among those that are beyond the rung, so it cuts the same cells as without.

Where points are trained over several seeds, each cell stands where the mean of its point does: all cells of a point go
on, or none does.

A run that has given a cell up, because its workers die of it again and again, decides without waiting for it. The
decision says so; should that cell come to the rung one day, it is decided alone, as one of a grid that has grown is.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import fields

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update
from sqlalchemy.engine import Connection

from fmnist_optuna.ledger.leaders import point_key
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.part import ComparedPart
from fmnist_optuna.ledger.rung_records import CellsAtRung, DecidedRung, OpenCells
from fmnist_optuna.ledger.states import DONE, UNFINISHED, State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import StoredRow, cells, decisions, epochs, ids_by_query, studies
from fmnist_optuna.search.ladder import Decision, LadderRule, Standing, stand_at
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.search.point_standings import with_means

OF_FIELD = ("cell_id", "trial_id", "result", "value")
OF_POINT = ("number", "params")
NOT_A_NUMBER = float("nan")  # an epoch's value that is NULL in the table


class Rungs(ComparedPart):
    """Decisions over parked cells, and what is known of the cells at each rung.

    Args:
        storage: Where the study lives.
        study_id: Optuna's id of the study.
        metric: By which its cells are compared: their scores of it.
        n_cells: Of each point; with several, each cell stands where the mean of its point does.
    """

    def __init__(self, storage: Storage, study_id: int, metric: Metric = VAL_ACCURACY, n_cells: int = 1) -> None:
        super().__init__(storage, study_id, metric)
        self._n_each = n_cells
        self._looked_at: list[tuple[object, ...]] | None = None  # how the cells stood when none could be let on

    @retrying
    def decide(self, rule: LadderRule, given_up: Collection[str] = ()) -> DecidedRung | None:
        """Decide the lowest rung at which cells are parked; None while others are on their way to it, or none is.

        Args:
            given_up: cell_ids of cells that are not waited for.
        """
        with self.storage.read() as connection:  # a look without a lock, as whoever waits looks often
            if self._find_ready(connection, given_up) is None:
                return None
        with self.storage.write() as connection:
            self._lock(connection)
            rung = self._find_ready(connection, given_up)
            if rung is None:
                return None
            field = self._read_field(connection, rung)
            if self._lacks_one(connection, rung, field, given_up):
                return None
            absent = self._racing(connection) & set(given_up) - field.standings.keys()
            decision = rule.decide(field.standings, field.finished_scores)
            # On Postgres a cell that was given up may have been parked since the values were read: it is decided alone.
            late = set(given_up) - field.standings.keys()
            parked = [cell_id for cell_id in self._parked(connection, rung) if cell_id not in late]
            return self._apply(connection, rung, decision, parked, sorted(absent))

    @retrying
    def let_on_ahead(self, rule: LadderRule) -> DecidedRung | None:
        """Let cells go on that the decision of their rung cannot cut any more; None if there are none.

        For workers that would only wait: the best few of a rung are known when all but one or two have come. They ask
        again and again, so all values are read only if a cell has moved since. Where points are repeated nobody goes
        ahead, as the mean of a point is known when all its cells have come.
        """
        if self._n_each > 1:
            return None
        with self.storage.read() as connection:
            cells_stand = self._count_standing(connection)
            if cells_stand == self._looked_at:
                return None
            if self._find_ahead(connection, rule) is None:
                self._looked_at = cells_stand
                return None
        with self.storage.write() as connection:
            self._lock(connection)
            found = self._find_ahead(connection, rule)
            return None if found is None else self._apply(connection, *found)

    @retrying
    def field(self, rung: int) -> CellsAtRung:
        """All cells as a rung has them now."""
        with self.storage.read() as connection:
            return self._read_field(connection, rung)

    @retrying
    def decided(self, after: int = 0) -> list[DecidedRung]:
        """Every decision whose decision_id is greater, in the order in which they were made."""
        query = select(*_DECIDED).where(decisions.c.study_id == self.study_id, decisions.c.decision_id > after)
        with self.storage.read() as connection:
            return [_decided(row) for row in connection.execute(query.order_by(decisions.c.decision_id))]

    @retrying
    def open_cells(self) -> list[OpenCells]:
        """The cells that are still in the race, by the rung at which they were parked last, ascending."""
        is_parked = cells.c.state == State.PARKED
        query = (
            select(cells.c.rung, func.count().filter(is_parked), func.count().filter(~is_parked))
            .where(*self._is_racing())
            .group_by(cells.c.rung)
            .order_by(cells.c.rung)
        )
        with self.storage.read() as connection:
            return [OpenCells(*row) for row in connection.execute(query)]

    @retrying
    def epochs_trained(self) -> dict[int, int]:
        """How many cells have trained each epoch (0-based), lost attempts aside."""
        query = (
            select(epochs.c.epoch, func.count())
            .join(cells, (cells.c.study_id == epochs.c.study_id) & (cells.c.trial_id == epochs.c.trial_id))
            .where(epochs.c.study_id == self.study_id)
            .group_by(epochs.c.epoch)
        )
        with self.storage.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    @retrying
    def n_climbed(self) -> int:
        """The epochs of the rungs that all cells have come to, summed up: it grows whenever one is parked."""
        query = select(func.coalesce(func.sum(cells.c.rung), 0)).where(cells.c.study_id == self.study_id)
        with self.storage.read() as connection:
            return int(connection.execute(query).scalar_one())

    @retrying
    def resting_trials(self) -> dict[int, int]:
        """The rung at which a trial was cut, or rests and nobody trains it, by trial id."""
        query = select(cells.c.trial_id, func.coalesce(cells.c.cut_at, cells.c.rung)).where(
            cells.c.study_id == self.study_id,
            cells.c.trial_id.is_not(None),
            or_(
                cells.c.state.in_((State.PARKED, State.WAITING)),
                and_(cells.c.state == DONE, cells.c.cut_at.is_not(None)),
            ),
        )
        with self.storage.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _lock(self, connection: Connection) -> None:
        """On Postgres one at a time; on SQLite every transaction that writes has the database for itself."""
        study = select(studies.c.study_id).where(studies.c.study_id == self.study_id)
        connection.execute(study.with_for_update(key_share=True))

    def _find_ready(self, connection: Connection, given_up: Collection[str]) -> int | None:
        """The lowest rung at which a cell is parked, if none is below it that was not cut."""
        lowest = select(func.min(cells.c.rung)).where(*self._is_parked())
        rung: int | None = connection.execute(lowest).scalar()
        # Parked ones too: on Postgres one may have been parked below since the first statement.
        return None if rung is None or self._count_below(connection, rung, given_up) else rung

    def _find_ahead(self, connection: Connection, rule: LadderRule) -> tuple[int, Decision, list[str]] | None:
        """The lowest rung with parked cells that go on in any case, its decision so far, and who they are."""
        parked_at = select(cells.c.rung).where(*self._is_parked()).distinct().order_by(cells.c.rung)
        for rung in connection.execute(parked_at).scalars().all():
            if self._count_below(connection, rung) >= rule.keep:
                return None  # and at each higher rung there are more
            # Read first: on Postgres one may come to the rung meanwhile, and then counts as one that is still to come.
            racing = self._racing(connection)
            field = self._read_field(connection, rung)
            n_to_come = len(racing - field.standings.keys())
            decision = rule.decide_ahead(field.standings, field.finished_scores, n_to_come)
            kept = {cell_id for cell_id, standing in field.standings.items() if decision.keeps(standing)}
            if ahead := [cell_id for cell_id in self._parked(connection, rung) if cell_id in kept]:
                return rung, decision, ahead
        return None

    def _count_standing(self, connection: Connection) -> list[tuple[object, ...]]:
        """How many cells are in each state, by the rung that they have come to."""
        stand = select(cells.c.rung, cells.c.state, func.count()).where(cells.c.study_id == self.study_id)
        rows = connection.execute(stand.group_by(cells.c.rung, cells.c.state).order_by(cells.c.rung, cells.c.state))
        return [tuple(row) for row in rows]

    def _racing(self, connection: Connection) -> set[str]:
        """The cells that have no result and were not cut."""
        return set(connection.execute(select(cells.c.cell_id).where(*self._is_racing())).scalars())

    def _is_racing(self) -> tuple[ColumnElement[bool], ...]:
        """Of a cell: it has no result, and was not cut."""
        return cells.c.study_id == self.study_id, cells.c.state.in_(UNFINISHED), cells.c.cut_at.is_(None)

    def _is_parked(self) -> tuple[ColumnElement[bool], ...]:
        return cells.c.study_id == self.study_id, cells.c.state == State.PARKED

    def _count_below(self, connection: Connection, rung: int, given_up: Collection[str] = ()) -> int:
        """How many cells may still come to a rung, those that were given up aside."""
        others = cells.c.cell_id.not_in(sorted(given_up))
        below = select(func.count()).where(*self._is_racing(), cells.c.rung < rung, others)
        return int(connection.execute(below).scalar_one())

    def _lacks_one(self, connection: Connection, rung: int, field: CellsAtRung, given_up: Collection[str]) -> bool:
        """Whether a cell that was beyond a rung is trained anew and has not come there again: its value is missing."""
        beyond = select(cells.c.cell_id).where(
            cells.c.study_id == self.study_id,
            cells.c.state.in_((State.WAITING, State.RUNNING)),
            cells.c.rung >= rung,
        )
        return bool(set(connection.execute(beyond).scalars()) - field.standings.keys() - set(given_up))

    def _parked(self, connection: Connection, rung: int) -> list[str]:
        """The cells that are parked at a rung."""
        parked = select(cells.c.cell_id).where(*self._is_parked(), cells.c.rung == rung)
        return list(connection.execute(parked).scalars())

    def _read_field(self, connection: Connection, rung: int) -> CellsAtRung:
        # One that failed counts where it had been parked: who is compared with it may have come earlier or later.
        names = OF_FIELD if self._n_each == 1 else (*OF_FIELD, *OF_POINT)
        own = select(*(cells.c[name] for name in names)).where(
            cells.c.study_id == self.study_id,
            cells.c.trial_id.is_not(None),
            or_(cells.c.state != State.FAILED, cells.c.rung >= rung),
        )
        curves: dict[int, list[float]] = defaultdict(list)
        reached = (
            select(epochs.c.trial_id, self._measured)
            .where(epochs.c.study_id == self.study_id, epochs.c.epoch < rung)
            .order_by(epochs.c.trial_id, epochs.c.epoch)
        )
        for trial_id, value in connection.execute(reached):
            curves[trial_id].append(NOT_A_NUMBER if value is None else self._metric.score(value))
        standings: dict[str, Standing] = {}
        finished: dict[str, float | None] = {}
        points: dict[str, str | int] = {}
        pruned = []
        for row in connection.execute(own):
            points[row.cell_id] = point_key(row.number, row.params, self._n_each) if self._n_each > 1 else row.cell_id
            if len(curves[row.trial_id]) >= rung:
                standings[row.cell_id] = stand_at(rung, curves[row.trial_id])
            elif row.result == State.COMPLETE.optuna_name:
                finished[row.cell_id] = self._score(row.value)
            elif row.result == State.PRUNED.optuna_name:
                pruned.append(row.cell_id)
        if self._n_each == 1:
            return CellsAtRung(standings, finished)
        return CellsAtRung(*with_means(standings, finished, pruned, points))

    def _apply(
        self,
        connection: Connection,
        rung: int,
        decision: Decision,
        found: Collection[str],
        absent: Collection[str] = (),
    ) -> DecidedRung:
        """Let parked cells of a rung wait again: some to go on, the others to be pruned where they stand."""
        made = insert(decisions).values(
            study_id=self.study_id,
            rung=rung,
            decided_at=self.storage.now,
            n_parked=len(found),
            n_cut=sum(cell_id in decision.cut for cell_id in found),
            leader=decision.leading_cell or "",
            leader_value=decision.leader,
            margin=decision.margin,
            kept_from=decision.kept_from,
            absent=json.dumps(list(absent)),
        )
        decided = _decided(connection.execute(made.returning(*_DECIDED)).one())
        for is_cut in (False, True):
            how = {"cut_at": rung, "decision_id": decided.decision_id} if is_cut else {}
            those = [cell_id for cell_id in found if (cell_id in decision.cut) == is_cut]
            for some in ids_by_query(those):
                waits = update(cells).where(cells.c.study_id == self.study_id, cells.c.cell_id.in_(some))
                connection.execute(waits.values(state=State.WAITING, **how))
        return decided


def _decided(row: StoredRow) -> DecidedRung:
    values = dict(zip((column.name for column in _DECIDED), row, strict=True))
    return DecidedRung(**{**values, "absent": tuple(json.loads(row.absent))})


_DECIDED = [decisions.c[field.name] for field in fields(DecidedRung)]  # the columns of the record, in its order
