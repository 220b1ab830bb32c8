"""The decisions over the rungs of a study derived anew, from what all attempts at its cells have measured.

What a decision knew is not stored, but follows from the rows in most cases. One over a whole rung knew every cell that
was there: it must be what the rule gives. One that let cells on ahead of it knew some of them, and one that met a cell
which was lost, failed or retried may have met other values than those of now: these are held to what is true of any
decision, so that no correct study is ever accused.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fmnist_optuna.ledger.rung_records import DecidedRung
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.ladder import Decision, LadderRule
from fmnist_optuna.study.measured import Measured
from fmnist_optuna.wording import count


class Kind(enum.Enum):
    """What a decision was about."""

    WHOLE = "whole"  # every cell that was there had come to the rung, or had ended
    AHEAD = "ahead"  # some were still to come
    UNKNOWN = "unknown"  # either


@dataclass(frozen=True)
class Decisions:
    """Every decision of a study, and what it may have known.

    Args:
        rule: Of the study.
        measured: All cells.
        decided: In the order in which they were made.
        has_grown: Whether cells were added to the study's first grid.
        overlap_seconds: How much later than its time a change of a cell may show: by then a decision may be made.
    """

    rule: LadderRule
    measured: Sequence[Measured]
    decided: Sequence[DecidedRung]
    has_grown: bool
    overlap_seconds: float = 0.0

    def may_know(self, decided: DecidedRung, measured: Measured) -> bool:
        """Whether a decision waited for a cell; one of a larger grid may have come later, one was given up."""
        is_waited_for = measured.cell.cell_id not in decided.absent
        return is_waited_for and (not self.has_grown or _was_claimed(measured, decided))

    def kind(self, decided: DecidedRung) -> Kind:
        """What a decision was about."""
        return self._kinds[decided.decision_id]

    @cached_property
    def _kinds(self) -> dict[int, Kind]:
        return {each.decision_id: self._find_kind(each) for each in self.decided}

    def _find_kind(self, decided: DecidedRung) -> Kind:
        """Only a decision over a whole rung cuts; of one that cuts nobody the rows may say what it was about."""
        if decided.n_cut:
            return Kind.WHOLE
        known = [each for each in self.measured if self.may_know(decided, each)]
        earlier = [each for each in self._at(decided.rung) if each.decision_id <= decided.decision_id]
        n_to_park = sum(each.cell.rung >= decided.rung for each in known)
        if sum(each.n_parked for each in earlier) < n_to_park:
            # A cell that had failed and was retried is parked after a decision that it was no part of.
            return Kind.AHEAD if all(each.is_certain for each in known) else Kind.UNKNOWN
        others = [each for each in self.measured if each.cell.cell_id not in decided.absent]
        is_over = all(self._had_come_or_ended(decided, each) for each in others)
        return Kind.WHOLE if is_over else Kind.UNKNOWN

    def find_wrong(self) -> list[str]:
        """One line for each decision that is not what the rule gives, or cannot be."""
        problems = [
            f"decision {each.decision_id} at epoch {each.rung}: {problem}"
            for each in self.decided
            if (problem := self._check(each))
        ]
        for rung in sorted({each.rung for each in self.decided}):
            n_decided = sum(each.n_parked for each in self._at(rung))
            # A cell is parked at a rung once, however often it is lost afterwards.
            n_parked = sum(_has_left(each, rung) for each in self.measured)
            if n_decided != n_parked:
                problems.append(f"decisions at epoch {rung}: are about {n_decided} cells, but {n_parked} were there")
        return problems

    def _at(self, rung: int) -> list[DecidedRung]:
        return [each for each in self.decided if each.rung == rung]

    def _check(self, decided: DecidedRung) -> str | None:
        return (
            self._check_itself(decided)
            or self._check_leader(decided)
            or self._check_kept(decided)
            or self._check_rule(decided)
        )

    def _check_itself(self, decided: DecidedRung) -> str | None:
        """What a decision says of itself, and the cells that name it."""
        leader = decided.leader_value
        margin = 0.0 if leader is None else self.rule.margin_below(leader)
        if decided.margin != margin:
            return f"has the margin {decided.margin!r}, but the rule gives {margin!r}"
        is_expected = leader is not None and self.rule.keep > 0
        if (decided.kept_from is not None) != is_expected:
            return (
                f"keeps whoever had {decided.kept_from!r}, but {'somebody' if is_expected else 'nobody'} must be kept"
            )
        n_cut = sum(each.cell.decision_id == decided.decision_id for each in self.measured)
        if n_cut != decided.n_cut:
            return f"cut {count(decided.n_cut, 'cell')}, but {n_cut} name it"
        return None

    def _check_leader(self, decided: DecidedRung) -> str | None:
        """Whether the cell that a decision names has, or had, the value that it says."""
        if (decided.leader_value is None) != (not decided.leader):
            return f"says that the best had {decided.leader_value!r}, but names cell {decided.leader[:8] or 'none'}"
        if not decided.leader:
            return None
        leader = next((each for each in self.measured if each.cell.cell_id == decided.leader), None)
        if leader is not None and not leader.can_tell(decided.rung):
            return None
        values = set() if leader is None else leader.values(decided.rung)
        if decided.leader_value in values:
            return None
        has = " or ".join(map(repr, sorted(values))) or "none"
        return f"says that the best had {decided.leader_value!r}, but cell {decided.leader[:8]} has {has}"

    def _check_kept(self, decided: DecidedRung) -> str | None:
        """Whether the bound of those that go on anyway is the value of a cell, and not above the leader's."""
        kept, leader = decided.kept_from, decided.leader_value
        if kept is None or leader is None or not all(each.can_tell(decided.rung) for each in self.measured):
            return None
        if kept > leader or not any(kept in each.values(decided.rung) for each in self.measured):
            return f"keeps whoever had {kept!r}, which no cell has"
        return None

    def _check_rule(self, decided: DecidedRung) -> str | None:
        """What the rule gives for all cells that a decision must have known, against what it says."""
        known = [each for each in self.measured if self.may_know(decided, each)]
        certain = [each for each in known if each.is_certain]
        expected, n_values = self._derive(certain, decided.rung)
        kind = self.kind(decided)
        if kind is Kind.WHOLE and len(certain) == len(known):
            return _compare(decided, expected)
        # More cells only raise the leader and, once there are enough of them, the bound; cells that are still to come
        # are counted in the bound as if they were the best.
        if kind is Kind.WHOLE and expected.leader is not None and _is_below(decided.leader_value, expected.leader):
            return f"says that the best had {decided.leader_value!r}, but another cell has {expected.leader!r}"
        is_bound = expected.kept_from is not None and n_values >= self.rule.keep
        if is_bound and expected.kept_from is not None and _is_below(decided.kept_from, expected.kept_from):
            return f"keeps whoever had {decided.kept_from!r}, but the rule gives at least {expected.kept_from!r}"
        return None

    def _derive(self, measured: Sequence[Measured], rung: int) -> tuple[Decision, int]:
        """What the rule gives for some cells, all of whose attempts agree, and how many of them have a value."""
        standings, finished = {}, {}
        for each in measured:
            if found := each.standings(rung):
                standings[each.cell.cell_id] = found[0]
            elif each.cell.state is State.COMPLETE:
                finished[each.cell.cell_id] = each.score(rung)
        return self.rule.decide(standings, finished), sum(bool(each.values(rung)) for each in measured)

    def _had_come_or_ended(self, decided: DecidedRung, measured: Measured) -> bool:
        """Whether nothing more was to be expected of a cell when a decision was made, given that who parks has parked.

        False where the rows do not say so.
        """
        cell = measured.cell
        if not _was_claimed(measured, decided):
            return False
        if cell.rung >= decided.rung:
            return len(measured.curves) == 1  # one that was lost beyond the rung may have been on its way there again
        if cell.cut_at is not None:
            return cell.decision_id is not None and cell.decision_id < decided.decision_id
        ended = cell.finished_at if cell.state.has_result else None
        return ended is not None and ended + self.overlap_seconds < decided.decided_at


def _was_claimed(measured: Measured, decided: DecidedRung) -> bool:
    """Whether a cell was claimed before a decision was made: one that is decided was, well before."""
    began = measured.cell.first_claimed_at
    return began is not None and began < decided.decided_at


def _has_left(measured: Measured, rung: int) -> bool:
    """Whether a cell was parked at a rung, and is no more."""
    cell = measured.cell
    return cell.rung > rung or (cell.rung == rung and cell.state is not State.PARKED)


def _is_below(value: float | None, bound: float) -> bool:
    return value is None or value < bound


def _compare(decided: DecidedRung, expected: Decision) -> str | None:
    """How a decision differs from what the rule gives."""
    pairs = {
        "leader": (decided.leader, expected.leading_cell or ""),
        "leader_value": (decided.leader_value, expected.leader),
        "kept_from": (decided.kept_from, expected.kept_from),
    }
    wrong = [
        f"has {name} {has!r}, but the rule gives {gives!r}" for name, (has, gives) in pairs.items() if has != gives
    ]
    return "; ".join(wrong) or None
