"""The cuts of a study derived anew: from the epochs of its cells, by its rule, decision by decision."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fmnist_optuna.ledger.progress import OVERLAP_SECONDS
from fmnist_optuna.ledger.rung_records import DecidedRung
from fmnist_optuna.search.ladder import LadderRule, Standing, describe_cut, stand_at
from fmnist_optuna.study.decisions import Decisions, Kind
from fmnist_optuna.study.fixed_points import check_points
from fmnist_optuna.study.measured import Measured, MeasuredRepeat, read_measured, with_groups
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import Verification, verify
from fmnist_optuna.wording import format_params


def verify_study(session: Session) -> Verification:
    """Compare the cells of a study with its trials.

    Its cuts, if it has rungs, are compared with what its rule gives, and its points, if it has no grid, with what the
    sampler gives.
    """
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    points = check_points(session)
    found = replace(found, problems=(*found.problems, *points.problems), n_unchecked_points=points.n_unchecked)
    if session.ladder is None:
        return found
    return replace(found, problems=(*found.problems, *Cuts.read(session, session.ladder).find_wrong()))


def explain_cut(session: Session, trial_id: int) -> str | None:
    """Why the cell with this trial was cut, in one sentence with the numbers; None if it was not."""
    if session.ladder is None:
        return None
    cell = next((cell for cell in session.history.cells() if cell.trial_id == trial_id and cell.cut_at), None)
    if cell is None:
        return None
    decided, cells = session.rungs.decided(), session.history.repeats_of(cell.cell_id) or [cell]
    measured = with_groups(session, read_measured(session, cells), _list_absent(decided))
    return _explain(next(each for each in measured if each.cell.cell_id == cell.cell_id), decided)


@dataclass(frozen=True)
class Cuts:
    """What the rungs of a study have made of its cells.

    Args:
        rule: Of the study.
        measured: All of its cells.
        decisions: All of them.
    """

    rule: LadderRule
    measured: Sequence[Measured]
    decisions: Decisions

    @classmethod
    def read(cls, session: Session, rule: LadderRule) -> "Cuts":
        """Of a study as it is now."""
        decided, cells = session.rungs.decided(), session.history.cells()
        while (again := session.rungs.decided()) != decided:  # one was made in between
            decided, cells = again, session.history.cells()
        measured = with_groups(session, read_measured(session, cells), _list_absent(decided))
        accepted = session.record.accepted
        has_grown = not accepted or len(cells) > accepted[0].n_cells
        overlap_seconds = 0.0 if session.storage.is_sqlite else OVERLAP_SECONDS
        return cls(rule, measured, Decisions(rule, measured, decided, has_grown, overlap_seconds))

    def find_wrong(self) -> list[str]:
        """One line for each decision, each cut, and each cell that went on, that is not what the rule gives."""
        problems = self.decisions.find_wrong()
        for each in self.measured:
            found = [self._check_cut(each), *(self._check_going_on(each, rung) for rung in self._passed(each))]
            where = f"cell {each.cell.cell_id[:8]} {format_params(each.cell.params)}"
            problems += [f"{where}: {problem}" for problem in found if problem]
        return problems

    def _check_cut(self, measured: Measured) -> str | None:
        """Whether a cell that is cut was cut by a decision, and went no further."""
        cell = measured.cell
        if cell.cut_at is None:
            return None if cell.decision_id is None else f"names decision {cell.decision_id}, but is not cut"
        decided = next((each for each in self.decisions.decided if each.decision_id == cell.decision_id), None)
        if decided is None or decided.rung != cell.cut_at or not self.decisions.may_know(decided, measured):
            return f"is cut at epoch {cell.cut_at}, but no decision says so"
        if cell.n_epochs > cell.cut_at:
            return f"is cut at epoch {cell.cut_at}, but has trained {cell.n_epochs} epochs"
        standings = measured.standings(cell.cut_at)
        if standings and not any(self._is_cut(standing, decided) for standing in standings):
            return f"must go on by the rule, but is {_explain(measured, self.decisions.decided)}"
        return None

    def _check_going_on(self, measured: Measured, rung: int) -> str | None:
        """Whether a cell that went on from a rung was let go on by a decision."""
        decided = [
            each for each in self.decisions.decided if each.rung == rung and self.decisions.may_know(each, measured)
        ]
        if not measured.can_tell(rung):
            return None
        if not decided:
            return f"went on from epoch {rung}, but no decision says so"
        if not any(self._lets_on(each, measured) for each in decided):
            return f"must be cut at epoch {rung} by the rule, but went on"
        return None

    def _lets_on(self, decided: DecidedRung, measured: Measured) -> bool:
        """Whether a decision lets a cell on, which has come to its rung by then."""
        standings = measured.standings(decided.rung)
        if self.decisions.kind(decided) is not Kind.AHEAD:
            return any(not self._is_cut(standing, decided) for standing in standings)
        bound = math.inf if decided.kept_from is None else decided.kept_from
        return any(standing.now is not None and standing.now >= bound for standing in standings)

    def _is_cut(self, standing: Standing, decided: DecidedRung) -> bool:
        return self.rule.is_cut(standing, decided.leader_value, decided.kept_from)

    def _passed(self, measured: Measured) -> list[int]:
        """The rungs that a cell is beyond, those aside at which, or beyond which, it is cut."""
        cell = measured.cell
        end = min(cell.n_epochs, cell.cut_at or cell.n_epochs)
        return [rung for rung in self.rule.rungs() if rung < end]


def _explain(measured: Measured, decisions: Sequence[DecidedRung]) -> str:
    """Why a cell was cut: `cut at epoch 4: 86.1 % and gaining 0.9 a doubling, the best had 87.9 %`.

    Its own trial may have come no more to the rung, or not yet: one that is lost after the decision is trained again.
    """
    rung = measured.cell.cut_at or 0
    own = stand_at(rung, measured.longest)
    means = measured.standings(rung) if isinstance(measured, MeasuredRepeat) else []
    leader = next((each.leader_value for each in decisions if each.decision_id == measured.cell.decision_id), None)
    sentence = describe_cut(rung, means[0] if means else own, leader, measured.metric)
    return f"{sentence}, means of {len(measured.group)} repeats" if isinstance(measured, MeasuredRepeat) else sentence


def _list_absent(decided: Sequence[DecidedRung]) -> frozenset[str]:
    """The cells that some decision did not wait for."""
    return frozenset(cell_id for each in decided for cell_id in each.absent)
