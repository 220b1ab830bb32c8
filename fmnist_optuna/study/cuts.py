"""The cuts of a study derived anew: from the epochs of its cells, by its rule, decision by decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.rungs import DecidedRung
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.ladder import LadderRule, Standing, describe_cut, stand_at
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import Verification, verify
from fmnist_optuna.wording import count, format_params


def verify_study(session: Session) -> Verification:
    """Compare the cells of a study with its trials, and its cuts, if it has rungs, with what its rule gives."""
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
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
    values = [epoch.val_accuracy for epoch in session.history.curve(trial_id)]
    return Cuts(session.ladder, [cell], {cell.cell_id: values}, session.rungs.decided()).explain(cell)


@dataclass(frozen=True)
class Cuts:
    """What the rungs of a study have made of its cells.

    Args:
        rule: Of the study.
        cells: All of them.
        values: val_accuracy of the epochs of each cell's trial, by cell_id; NaN where one was not finite.
        decisions: In the order in which they were made.
    """

    rule: LadderRule
    cells: Sequence[Cell]
    values: Mapping[str, Sequence[float]]
    decisions: Sequence[DecidedRung]

    @classmethod
    def read(cls, session: Session, rule: LadderRule) -> "Cuts":
        """Of a study as it is now."""
        decided, cells = session.rungs.decided(), session.history.cells()
        while (again := session.rungs.decided()) != decided:  # one was made in between
            decided, cells = again, session.history.cells()
        curves = session.history.curves([cell.trial_id for cell in cells if cell.trial_id is not None])
        values = {cell.cell_id: [epoch.val_accuracy for epoch in curves.get(cell.trial_id or 0, ())] for cell in cells}
        return cls(rule, cells, values, decided)

    def explain(self, cell: Cell) -> str:
        """Why a cell was cut: `cut at epoch 4: 86.1 % and gaining 0.9 a doubling, the best had 87.9 %`."""
        rung = cell.cut_at or 0
        leader = next((each.leader_value for each in self.decisions if each.decision_id == cell.decision_id), None)
        return describe_cut(rung, self._stand(cell, rung), leader)

    def find_wrong(self) -> list[str]:
        """One line for each cut, and each cell that went on, that is not what the rule gives."""
        by_id = {each.decision_id: each for each in self.decisions}
        problems = [problem for each in self.decisions if (problem := self._check_leader(each))]
        for cell in self.cells:
            where = f"cell {cell.cell_id[:8]} {format_params(cell.params)}"
            if cell.cut_at is not None:
                decided = by_id.get(cell.decision_id or 0)
                if decided is None or decided.rung != cell.cut_at:
                    problems.append(f"{where}: is cut at epoch {cell.cut_at}, but no decision says so")
                elif not self._is_cut(cell, decided):
                    problems.append(f"{where}: must go on by the rule, but is {self.explain(cell)}")
            problems += [f"{where}: {problem}" for rung in self._passed(cell) if (problem := self._check(cell, rung))]
        return problems

    def _check_leader(self, decided: DecidedRung) -> str | None:
        """What is wrong with the leader, the margin or the number of cuts that a decision is stored with."""
        has, is_known = self._value_of_leader(decided)
        where = f"decision {decided.decision_id} at epoch {decided.rung}"
        if is_known and has != decided.leader_value:
            return (
                f"{where}: says that the best had {decided.leader_value!r}, but cell {decided.leader[:8]} has {has!r}"
            )
        if decided.leader_value is not None and decided.margin != self.rule.margin_below(decided.leader_value):
            return f"{where}: has the margin {decided.margin!r}, but the rule gives another"
        n_cut = sum(cell.decision_id == decided.decision_id for cell in self.cells)
        if n_cut != decided.n_cut:
            return f"{where}: cut {count(decided.n_cut, 'cell')}, but {n_cut} name it"
        return None

    def _value_of_leader(self, decided: DecidedRung) -> tuple[float | None, bool]:
        """What the cell that a decision names has at its rung; unknown while it is trained anew, or has failed."""
        cell = next((cell for cell in self.cells if cell.cell_id == decided.leader), None)
        if cell is None or cell.state is State.FAILED:
            return None, bool(decided.leader) and cell is None
        standing = self._stand(cell, decided.rung)
        if standing.now is None:
            return cell.val_accuracy, cell.state is State.COMPLETE
        return standing.now, True

    def _check(self, cell: Cell, rung: int) -> str | None:
        """Whether a cell that went on from a rung was let go on by a decision."""
        decided = [each for each in self.decisions if each.rung == rung]
        if not decided:
            return f"went on from epoch {rung}, but no decision says so"
        if all(self._is_cut(cell, each) for each in decided):
            return f"must be cut at epoch {rung} by the rule, but went on"
        return None

    def _is_cut(self, cell: Cell, decided: DecidedRung) -> bool:
        return self.rule.is_cut(self._stand(cell, decided.rung), decided.leader_value, decided.kept_from)

    def _passed(self, cell: Cell) -> list[int]:
        """The rungs that a cell is beyond."""
        n_epochs = len(self.values[cell.cell_id])
        return [rung for rung in self.rule.rungs() if rung < min(n_epochs, cell.cut_at or n_epochs)]

    def _stand(self, cell: Cell, rung: int) -> Standing:
        return stand_at(rung, self.values[cell.cell_id])
