"""The queue of one study: how a worker claims the next cell that waits."""

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningUpdate

from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.part import StudyPart
from fmnist_optuna.ledger.points import UNDECIDED, Proposal
from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import StoredRow, cells, studies

_CLAIM = [cells.c[name] for name in ("cell_id", "params", "claims", "trial_id", "trial_number", "rung", "cut_at")]
CLAIMED = select(*_CLAIM).where(cells.c.token == bindparam("token_"))  # a claim, or a take-over, by its token


class Claims(StudyPart):
    """Claims of the cells of one study."""

    def claim(
        self,
        worker: str,
        generation: int,
        preferred: Collection[str] = (),
        given_up: Collection[str] = (),
        proposal: Proposal | None = None,
    ) -> Claim | None:
        """Take the next waiting cell, or None when none waits or the study was stopped since `generation`.

        A cell without a point is taken only with a proposal for it, which then is its point.

        Args:
            preferred: Cells that this worker takes first, as it has their trainings in memory.
            given_up: Cells that it does not take.
            proposal: A point for one of the cells, used if that is what is taken and nobody has given it one meanwhile.
        """
        token = uuid.uuid4().hex
        return self._claim(worker, generation, token, preferred, given_up, proposal)

    @retrying
    def _claim(
        self,
        worker: str,
        generation: int,
        token: str,
        preferred: Collection[str] = (),
        given_up: Collection[str] = (),
        proposal: Proposal | None = None,
    ) -> Claim | None:
        parameters: dict[str, object] = {
            "study": self.study_id,
            "worker_": worker,
            "token_": token,
            "generation_": generation,
            **({} if proposal is None else {f"{name}_": value for name, value in vars(proposal).items()}),
        }
        if preferred or self.storage.is_sqlite:
            statements = self._claim_statements(preferred, given_up, proposal is not None)
            with self.storage.write() as connection:
                row = _claim_first(connection, statements, parameters)
        else:
            is_any = not given_up and proposal is None
            once = self._next if is_any else self._claim_once(given_up, proposal is not None)
            with self.storage.single() as connection:
                row = connection.execute(once, parameters).one_or_none()
        return None if row is None else _claim_of(row, token)

    @cached_property
    def _next(self) -> Executable:
        """The claim of whatever waits; it is made once, as that takes a tenth of a trial's time here."""
        return self._claim_once((), has_proposal=False)

    def _claim_once(self, given_up: Collection[str], has_proposal: bool) -> Executable:
        """A claim, and the look for its token before it, in one statement, as Postgres takes it."""
        (statement,) = self._claim_statements((), given_up, has_proposal)
        found = CLAIMED.cte("found")
        claimed = statement.where(~exists(select(found.c.cell_id))).cte("claimed")
        return union_all(select(found), select(claimed))

    def _claim_statements(
        self, preferred: Collection[str], given_up: Collection[str], has_proposal: bool
    ) -> list[ReturningUpdate[StoredRow]]:
        """Of those that are preferred, if there are any, and then of all: each finds its cell through an index."""
        has_point = cells.c.params != UNDECIDED
        others = [or_(has_point, cells.c.cell_id == bindparam("cell_id_")) if has_proposal else has_point]
        others += [cells.c.cell_id.not_in(sorted(given_up))] if given_up else []
        fixed = {
            name: case((cells.c.params == UNDECIDED, bindparam(f"{name}_")), else_=cells.c[name])
            for name in ("params", "known")
        }
        values = fixed if has_proposal else {}
        of_some = [self._claim_statement(values, cells.c.cell_id.in_(sorted(preferred)), *others)] if preferred else []
        return [*of_some, self._claim_statement(values, *others)]

    def _claim_statement(
        self, fixed: Mapping[str, ColumnElement[str]], *conditions: ColumnElement[bool]
    ) -> ReturningUpdate[StoredRow]:
        study: BindParameter[int] = bindparam("study")
        next_cell = (
            select(cells.c.cell_id)
            .where(cells.c.study_id == study, cells.c.state == State.WAITING, *conditions)
            .order_by(cells.c.position)
            .limit(1)
            .with_for_update(skip_locked=True)  # Postgres; SQLite has one writer at a time
        )
        is_current = exists().where(studies.c.study_id == study, studies.c.generation == bindparam("generation_"))
        return (
            update(cells)
            .where(
                cells.c.study_id == study,
                cells.c.cell_id == next_cell.scalar_subquery(),
                cells.c.state == State.WAITING,
                is_current,
            )
            .values(
                **fixed,
                state=State.RUNNING,
                token=bindparam("token_"),
                worker=bindparam("worker_"),
                lease_until=self.storage.now + self.storage.timing.lease_seconds,
                first_claimed_at=func.coalesce(cells.c.first_claimed_at, self.storage.now),
                claimed_at=self.storage.now,
                claims=cells.c.claims
                + case((cells.c.trial_id.is_(None), 1), else_=0),  # attempts, however often paused
            )
            .returning(*_CLAIM)
        )


def _claim_first(
    connection: Connection, statements: Sequence[Executable], parameters: Mapping[str, object]
) -> StoredRow | None:
    """What the first of some claims takes that finds a cell."""
    # After a lost connection the claim may have happened: the token tells.
    row: StoredRow | None = connection.execute(CLAIMED, {"token_": parameters["token_"]}).one_or_none()
    for statement in statements:
        row = row or connection.execute(statement, parameters).one_or_none()
    return row


def _claim_of(row: StoredRow, token: str) -> Claim:
    going_on = (row.trial_id, row.trial_number, row.rung, row.cut_at)
    return Claim(row.cell_id, token, json.loads(row.params), row.claims, *going_on)
