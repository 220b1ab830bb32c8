"""The ladder as a pruner of Optuna: each trial is compared when it comes to a rung, with what others had there."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from statistics import stdev

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fmnist_optuna.errors import UsageError
from fmnist_optuna.search.ladder import LadderRule, stand_at

COUNTING = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)  # a trial that failed says nothing


class LadderPruner(BasePruner):
    """Ends a trial that at a rung (its 2nd, 4th, 8th, ... report) cannot reach the best with the gain that it makes.

    A trial goes on while its best value, plus `kappa` times what the last doubling of its reports brought, is no worse
    than the best that any trial had at the same rung, but for a margin. So a slow trial that still gains goes on, and a
    fast one that has stopped gaining does not. It works in both directions, and with any objective that reports.

    Each trial is compared once a rung, with those that came there before it, so that the order of trials matters: the
    first of a study is never pruned. A trial that ended by then counts with its final value.

    Args:
        first_rung: Number of reports at the first rung, >= 1; each further rung has twice as many.
        kappa: How many times the last gain is trusted to come again, >= 0; more is more cautious.
        margin: >= 0; a number of standard errors of the best value if `n_validation` is given, else of standard
            deviations of the best trial's reports since the rung before, at least its last two.
        n_validation: Number of examples that an accuracy or a share of errors, 0..1, is counted over, >= 1; None for
            other values, as a loss.
        max_reports: Of a trial, >= 1: its last report is no rung. None if trials have no common number.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        pruner = LadderPruner(margin=1.0, n_validation=12_000, max_reports=30)
        study = optuna.create_study(direction="maximize", pruner=pruner)
    """

    def __init__(
        self,
        first_rung: int = 2,
        kappa: float = 1.0,
        margin: float = 0.0,
        n_validation: int | None = None,
        max_reports: int | None = None,
    ) -> None:
        _check("first_rung", first_rung, 1)
        _check("kappa", kappa, 0)
        _check("margin", margin, 0)
        _check("n_validation", 1 if n_validation is None else n_validation, 1)
        _check("max_reports", 1 if max_reports is None else max_reports, 1)
        limit = sys.maxsize if max_reports is None else max_reports
        self._rule = LadderRule(first_rung, kappa, margin, n_validation, limit)
        self._rungs = frozenset(self._rule.rungs())

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to end here.

        Raises:
            UsageError: `n_validation` is given, but the best value is no share.
        """
        rung = len(trial.intermediate_values)
        if rung not in self._rungs:
            return False
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        standing = stand_at(rung, _read_reports(trial, sign))
        others = study.get_trials(deepcopy=False, states=COUNTING)
        ranked = [(_value_at(rung, other, sign), other) for other in others if other.number != trial.number]
        values = [(value, each) for value, each in [*ranked, (standing.now, trial)] if value is not None]
        leader, leading = max(values, key=itemgetter(0), default=(None, trial))
        if leader is not None and self._rule.n_validation is not None and not 0 <= sign * leader <= 1:
            raise UsageError(
                f"LadderPruner: with n_validation values must be from 0 to 1, but the best at report {rung} is "
                f"{sign * leader:g}; leave n_validation out, and margin is counted in the spread of the values."
            )
        return self._rule_for(_read_reports(leading, sign)[:rung]).is_cut(standing, leader)

    def _rule_for(self, reports: Sequence[float]) -> LadderRule:
        """The rule with its margin in the unit of the values: those that the best trial reported up to the rung."""
        if self._rule.n_validation is not None or self._rule.margin == 0:
            return self._rule
        last = [value for value in reports[-max(2, len(reports) // 2) :] if math.isfinite(value)]
        return replace(self._rule, margin=self._rule.margin * (stdev(last) if len(last) > 1 else 0.0))


def _check(name: str, value: float, lowest: int) -> None:
    if not lowest <= value < math.inf:
        raise UsageError(f"LadderPruner: {name} must be finite and at least {lowest}, but got {value}.")


def _read_reports(trial: FrozenTrial, sign: float) -> Sequence[float]:
    """What a trial reported, in the order of steps, whatever the numbers of these; the larger one is better."""
    return [sign * value for _, value in sorted(trial.intermediate_values.items())]


def _value_at(rung: int, trial: FrozenTrial, sign: float) -> float | None:
    """What a trial is compared by at a rung; None if it was not there, or had no finite value."""
    if trial.state is TrialState.COMPLETE and len(trial.intermediate_values) <= rung:
        return sign * trial.value if trial.value is not None and math.isfinite(trial.value) else None
    return stand_at(rung, _read_reports(trial, sign)).now
