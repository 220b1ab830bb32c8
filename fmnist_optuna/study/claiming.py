"""How a worker claims its next cell; where TPE decides its point, that is thought of first and fixed with the claim."""

import json
from collections.abc import Collection

from fmnist_optuna.bridge.ranges import read_accepted
from fmnist_optuna.bridge.spaces import space_of
from fmnist_optuna.bridge.suggestion import OPTUNA, Suggester
from fmnist_optuna.ledger.points import Proposal, Upcoming
from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.search.known import Base, Known, KnownCell, repeat_of
from fmnist_optuna.search.repeats import known_points
from fmnist_optuna.search.sampling import suggestion_seed
from fmnist_optuna.search.space import Space
from fmnist_optuna.study.session import Session

MAX_TRIES = 20  # others may be faster each time; whoever had no luck looks again a moment later


class Claiming:
    """The claims of one worker.

    Args:
        session: Of the study.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_tpe = session.record.spec.search.sampler == "tpe"
        self._suggester: tuple[Space, Suggester] | None = None
        self._done: dict[int, KnownCell] = {}
        self._since = 0.0
        self._base: Base | None = None

    def claim(self, generation: int, preferred: Collection[str] = ()) -> Claim | None:
        """Take the next waiting cell, or None when none is to be had or the study was stopped since `generation`.

        Args:
            preferred: Cells that this worker takes first, as it has their trainings in memory.
        """
        session = self._session
        if not self._is_tpe:
            return session.ledger.claim(session.name, generation, preferred, session.given_up)
        for _ in range(MAX_TRIES):
            upcoming = session.points.find_next(preferred, session.given_up)
            if upcoming is None:
                return None
            proposal, base = (None, None) if upcoming.has_point else self._propose(upcoming)
            claim = session.ledger.claim(session.name, generation, preferred, session.given_up, proposal)
            if claim and proposal and base and claim.cell_id == proposal.cell_id and claim.attempt == 1:
                self._base = base  # it is what the ledger has, as nobody claimed that cell before
            if claim is not None or session.ledger.generation() != generation:
                return claim
        return None

    def _propose(self, upcoming: Upcoming) -> tuple[Proposal | None, Base | None]:
        """A point for a cell, and what was known for it if it was thought of here; nothing is locked meanwhile."""
        session, number = self._session, upcoming.number
        if number is None:
            raise RuntimeError(f"cell {upcoming.cell_id} has neither a point nor a number")
        repeats = session.record.spec.repeats
        if (first := number - number % repeats.n_cells) != number:
            return self._repeat(upcoming.cell_id, number, first), None
        cells = self._read_known()  # first, so that none is of a space that was accepted later than what is read next
        try:
            accepted = read_accepted(session.storage, session.record.study_id)
        except KeyError:  # the study was deleted
            return None, None
        space = space_of(accepted)
        if space is None:
            raise RuntimeError(f"study {session.record.name} must have a space, but has a grid")
        seed = suggestion_seed(session.record.spec.search.seed, number // repeats.n_cells)
        point = self._find_suggester(space).suggest(seed, known_points(cells, repeats.n_cells))
        base = self._base if self._base is not None and self._base.is_of_use else None
        known = Known.of(OPTUNA, len(accepted) - 1, cells)
        proposal = Proposal(upcoming.cell_id, json.dumps(repeats.cell_of(point, 0)), known.to_text(base))
        return proposal, Base(number, known, 0 if base is None else base.n_changes + 1)

    def _repeat(self, cell_id: str, number: int, first: int) -> Proposal | None:
        """The point of the first repeat, for a later one; None as long as that has none.

        Cells are claimed in the order of their numbers but for those that were claimed before, whose points are fixed.
        """
        params = self._session.points.read_point(first)
        if params is None:
            return None
        cell = self._session.record.spec.repeats.cell_of(params, number - first)
        return Proposal(cell_id, json.dumps(cell), repeat_of(first))

    def _read_known(self) -> list[KnownCell]:
        """Every cell that has a point; of what has a result only the new ones are read."""
        found, self._since = self._session.points.read_known(self._since)
        self._done |= {cell.number: cell for cell in found if cell.is_done}
        return [*self._done.values(), *(cell for cell in found if not cell.is_done)]

    def _find_suggester(self, space: Space) -> Suggester:
        """The same one as long as the space is the same."""
        if self._suggester is None or self._suggester[0] != space:
            self._suggester = space, Suggester(space)
        return self._suggester[1]
