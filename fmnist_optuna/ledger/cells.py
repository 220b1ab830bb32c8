"""The cells of one study and every statement that changes one: bind, renew, park, finish, give back, take over.

How one is claimed stands in `claims`, what a failure makes of one in `failures`, which go on from a rung in `rungs`.

The protocol promises that every cell ends with exactly one result whatever is killed, stalled or restarted. Each clause
of it closes a hole that an exhaustive search of a model found, so none is there for looks:

- a change of a cell is one UPDATE with its cell_id and the expected token; no row means "not mine";
- a token is made by the claimer and never used again; time is the database's;
- nothing trains, reports or tells before its trial is bound to the cell;
- a cell that comes back after a loss, a kill or a failure goes behind those that wait; one given back keeps its place;
- a cell is parked under its token; it keeps its trial, with which the next claim goes on;
- a result is first told to Optuna, then copied from the trial to the cell, so whoever finds the cell later finishes
  it the same way.

Works on plain rows: knows no Keras, and of Optuna only what an `Attempt` says.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy import (
    ColumnElement,
    Update,
    and_,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.engine import Connection

from fmnist_optuna.ledger.claims import CLAIMED, Claims
from fmnist_optuna.ledger.epoch_rows import make_row, record_once
from fmnist_optuna.ledger.failures import WAIT_AGAIN, after_failure, after_loss
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.owners import Owners
from fmnist_optuna.ledger.records import Attempt, Claim, HeldCell
from fmnist_optuna.ledger.states import DONE, UNFINISHED, State
from fmnist_optuna.ledger.storage import Storage, insert_or_ignore
from fmnist_optuna.ledger.tables import StoredRow, cells, epochs, studies
from fmnist_optuna.search.cell import Point
from fmnist_optuna.search.metric import Epoch

IsMade = Callable[[int, str], ColumnElement[bool]]

TAKE_OVER_LEASE_SECONDS = 20.0  # for the few statements of a take-over


class Ledger(Claims):
    """All changes of the cells of one study.

    Args:
        is_made: Whether there is a trial with an id that was made under a token, as a condition.
    """

    def __init__(self, storage: Storage, study_id: int, is_made: IsMade = lambda _trial_id, _token: true()) -> None:
        super().__init__(storage, study_id)
        self._is_made = is_made

    def add_cells(self, connection: Connection, points: Iterable[Point]) -> int:
        """Insert a cell for each point that has none yet, within the caller's transaction.

        Returns:
            How many were new.
        """
        (before,) = connection.execute(select(func.count()).where(cells.c.study_id == self.study_id)).one()
        last = select(func.max(cells.c.position)).where(cells.c.study_id == self.study_id)
        first = (connection.execute(last).scalar_one() or 0) + 1  # behind those that came back
        rows = [
            {
                "study_id": self.study_id,
                "cell_id": point.cell_id,
                "position": first + offset,
                "number": point.number,
                "params": json.dumps(point.params),
                "state": State.WAITING,
                "claims": 0,
                "failures": 0,
                "lost": 0,
            }
            for offset, point in enumerate(points)
        ]
        if rows:
            connection.execute(insert_or_ignore(self.storage, cells), rows)
        (after,) = connection.execute(select(func.count()).where(cells.c.study_id == self.study_id)).one()
        return int(after - before)

    @retrying
    def bind(self, claim: Claim, trial_id: int, trial_number: int) -> bool:
        """Tie a trial to the claimed cell; False when the cell is no longer this claim's or has another trial.

        Nor is a trial bound that is not there, or was made under another token: Postgres makes one without waiting for
        its disk, so a crash may have lost it, and the next one may have got its id.
        """
        statement = self._mine(claim.cell_id, claim.token).where(
            or_(cells.c.trial_id.is_(None), cells.c.trial_id == trial_id),
            self._is_made(trial_id, claim.token),
        )
        return self._changes(statement.values(trial_id=trial_id, trial_number=trial_number))

    @retrying
    def renew(self, claim: Claim) -> bool:
        """Extend the lease; False when the cell is no longer this claim's."""
        return self._changes(self._renewal(claim))

    @retrying
    def record_epoch(self, claim: Claim, trial_id: int, epoch: Epoch) -> int | None:
        """Renew the lease, store the epoch and read the stop generation, in one transaction.

        Returns:
            The study's generation, or None when the cell is no longer this claim's (nothing is stored then).
        """
        generation = select(studies.c.generation).where(studies.c.study_id == self.study_id)
        if not self.storage.is_sqlite:
            with self.storage.single() as connection:
                row = make_row(self.study_id, trial_id, epoch)
                return connection.execute(record_once(self._renewal(claim), row, generation)).scalar_one_or_none()
        with self.storage.write() as connection:
            if connection.execute(self._renewal(claim)).rowcount == 0:
                return None
            self._add_epochs(connection, trial_id, [epoch])
            return int(connection.execute(generation).scalar_one())

    @retrying
    def keep_epochs(self, claim: Claim, trial_id: int, kept: Sequence[Epoch]) -> bool:
        """Renew the lease and store epochs that an earlier attempt trained; False when the cell is another's.

        Args:
            kept: At least one.
        """
        with self.storage.write() as connection:
            if connection.execute(self._renewal(claim)).rowcount == 0:
                return False
            self._add_epochs(connection, trial_id, kept)
            return True

    @retrying
    def park(self, claim: Claim, trial_id: int, rung: int) -> bool:
        """Let a cell rest at a rung with its trial; False when it is no longer this claim's.

        Who gets False leaves the trial alone: the cell may be parked already, by a call whose answer was lost, or be
        another worker's by now, with the same trial.

        Args:
            rung: In epochs, of which there is a checkpoint.
        """
        statement = self._mine(claim.cell_id, claim.token).where(cells.c.trial_id == trial_id)
        return self._changes(statement.values(state=State.PARKED, token=None, lease_until=None, rung=rung))

    @retrying
    def finish_cell(self, cell_id: str, token: str, attempt: Attempt) -> bool:
        """Copy a finished attempt to its cell: a result makes it done, a failure makes it wait again or fail.

        Returns:
            False when the cell is no longer under this token.
        """
        statement = self._mine(cell_id, token)
        if not attempt.state.has_result:
            return self._lets_go(statement, after_failure(self.study_id, attempt))
        done = statement.where(cells.c.trial_id == attempt.trial_id).values(
            state=DONE,
            result=attempt.state.optuna_name,
            value=attempt.value,
            val_accuracy=attempt.attributes.val_accuracy,
            error=None,
            finished_at=self.storage.now,
        )
        return self._changes(done) or self._is_result(cell_id, attempt.trial_id)

    def _is_result(self, cell_id: str, trial_id: int) -> bool:
        """Whether the cell is done with this very trial: an earlier try committed, or another finished it."""
        where = and_(
            cells.c.study_id == self.study_id,
            cells.c.cell_id == cell_id,
            cells.c.state == DONE,
            cells.c.trial_id == trial_id,
        )
        with self.storage.read() as connection:
            return connection.execute(select(cells.c.cell_id).where(where)).one_or_none() is not None

    @retrying
    def give_back(self, cell_id: str, token: str, *, count_lost: bool) -> bool:
        """Let a cell without a trial wait again; one that lost its workers too often fails."""
        counted = after_loss(self.study_id) if count_lost else {}
        return self._lets_go(self._mine(cell_id, token), {**WAIT_AGAIN, **counted})

    @retrying
    def take_over(self, held: HeldCell, worker: str, token: str) -> bool:
        """Put a cell under the taker's own token for a short while; False when it changed since it was seen.

        A trial that was bound meanwhile is a change as well: a taker that does not know of it would leave it running.
        """
        statement = (
            self._mine(held.cell_id, held.token)
            .where(cells.c.lease_until == held.lease_until, cells.c.trial_id.is_not_distinct_from(held.trial_id))
            .values(token=token, worker=worker, lease_until=self.storage.now + TAKE_OVER_LEASE_SECONDS)
        )
        if self._changes(statement):
            return True
        with self.storage.read() as connection:  # an ambiguous commit of this very take-over
            return connection.execute(CLAIMED, {"token_": token}).one_or_none() is not None

    @retrying
    def held_cells(self, worker: str | None = None, *, as_writer: bool = False) -> list[HeldCell]:
        """All running cells, or those of one worker.

        Args:
            as_writer: Look only when a holder could write too. On SQLite readers wait for no lock, renewals do; a
                standby of Postgres can be read, and then shows no cell.
        """
        query = select(
            cells.c.cell_id,
            cells.c.token,
            cells.c.worker,
            cells.c.lease_until,
            cells.c.trial_id,
            (cells.c.lease_until < self.storage.now).label("is_expired"),
            cells.c.lost,
            cells.c.trial_number,
        ).where(cells.c.study_id == self.study_id, cells.c.state == State.RUNNING)
        if worker is not None:
            query = query.where(cells.c.worker == worker)
        if as_writer and not self.storage.is_sqlite:
            query = query.where(~func.pg_is_in_recovery())
        with self.storage.single() if as_writer else self.storage.look() as connection:
            return [_held(row) for row in connection.execute(query)]

    @retrying
    def owners(self) -> Owners:
        """Which running trials have an owner: one that a cell names, or that is about to be bound to one."""
        query = select(cells.c.token, cells.c.trial_id).where(
            cells.c.study_id == self.study_id, cells.c.state.in_(UNFINISHED)
        )
        with self.storage.read() as connection:
            return Owners.of((token, trial_id) for token, trial_id in connection.execute(query))

    @retrying
    def climbed_cells(self) -> dict[str, int]:
        """The rungs of the cells without a result that have come to one, by cell_id."""
        query = select(cells.c.cell_id, cells.c.rung).where(
            cells.c.study_id == self.study_id, cells.c.state.in_(UNFINISHED), cells.c.rung > 0
        )
        with self.storage.read() as connection:
            return {row.cell_id: row.rung for row in connection.execute(query)}

    @retrying
    def generation(self) -> int | None:
        """The stop generation; None when the study was deleted."""
        query = select(studies.c.generation).where(studies.c.study_id == self.study_id)
        with self.storage.look() as connection:
            return connection.execute(query).scalar_one_or_none()

    @retrying
    def retry_failed(self) -> int:
        """Let failed cells wait again with their counters at 0; returns how many."""
        statement = (
            update(cells)
            .where(cells.c.study_id == self.study_id, cells.c.state == State.FAILED)
            .values(**WAIT_AGAIN, failures=0, lost=0, error=None)
        )
        with self.storage.write() as connection:
            return connection.execute(statement).rowcount

    def _mine(self, cell_id: str, token: str) -> Update:
        return update(cells).where(
            cells.c.study_id == self.study_id,
            cells.c.cell_id == cell_id,
            cells.c.token == token,
            cells.c.state == State.RUNNING,
        )

    def _renewal(self, claim: Claim) -> Update:
        lease_until = self.storage.now + self.storage.timing.lease_seconds
        return self._mine(claim.cell_id, claim.token).values(lease_until=lease_until)

    def _add_epochs(self, connection: Connection, trial_id: int, measured: Sequence[Epoch]) -> None:
        """Store epochs of a trial that are not there yet."""
        rows = [make_row(self.study_id, trial_id, epoch) for epoch in measured]
        connection.execute(insert_or_ignore(self.storage, epochs), rows)

    def _lets_go(self, statement: Update, values: Mapping[str, object]) -> bool:
        """Change a cell that has no holder any more: its lease ends now, which tells how long the study took."""
        return self._changes(statement.values({**values, "lease_until": self.storage.now}))

    def _changes(self, statement: Update) -> bool:
        with self.storage.single() as connection:
            return connection.execute(statement).rowcount == 1


def _held(row: StoredRow) -> HeldCell:
    seen = row.cell_id, row.token, row.worker, row.lease_until, row.trial_id
    return HeldCell(*seen, bool(row.is_expired), row.lost, None if row.trial_id is None else row.trial_number)
