"""The ladder as a pruner of Optuna: each trial is compared when it comes to a rung, with what others had there."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from statistics import stdev

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.errors import UsageError
from fmnist_optuna.search.ladder import LadderRule, stand_at

COUNTING = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)  # a trial that failed says nothing
COMPARED = "ladder:compared"  # system attribute of a trial: how many reports it had when it was compared last


class LadderPruner(BasePruner):
    """Ends a trial that at a rung (its 2nd, 4th, 8th, ... report) cannot reach the best with the gain that it makes.

    A trial goes on while its best value, plus `kappa` times what the last doubling of its reports brought, is no worse
    than the best that any trial had at the same rung, but for a margin. So a slow trial that still gains goes on, and a
    fast one that has stopped gaining does not. It works in both directions, and with any objective that reports.

    Each trial is compared once a rung, with those that came there before it, so that the order of trials matters: the
    first of a study is never pruned. A trial that ended by then counts with its final value. An objective that asks
    only now and then is compared at the highest rung that it has passed since.

    With `keep=3`, `margin=1.0` and `n_validation` this is the rule by which a study of ours decides by default.

    Args:
        first_rung: Number of reports at the first rung, >= 1; each further rung has twice as many.
        kappa: How many times the last gain is trusted to come again, >= 0; more is more cautious.
        margin: >= 0; a number of standard errors of the best value if `n_validation` is given, else of standard
            deviations of the best trial's reports since the rung before, at least its last two.
        n_validation: Number of examples that an accuracy or a share of errors, 0..1, is counted over, >= 1; None for
            other values, as a loss.
        max_reports: Of a trial, >= 1: with its last report it is pruned no more. None if trials have no common number.
        keep: How many of the best at a rung go on whatever they promise, >= 0; the first so many of a study always do.

    Raises:
        UsageError: An argument is out of its range, or a number of something is no integer.

    Example:
        pruner = LadderPruner(margin=1.0, n_validation=12_000, max_reports=30, keep=3)
        study = optuna.create_study(direction="maximize", pruner=pruner)
    """

    def __init__(
        self,
        first_rung: int = 2,
        kappa: float = 1.0,
        margin: float = 0.0,
        n_validation: int | None = None,
        max_reports: int | None = None,
        keep: int = 0,
    ) -> None:
        _check_count("first_rung", first_rung, 1)
        _check("kappa", kappa, 0)
        _check("margin", margin, 0)
        _check_count("n_validation", 1 if n_validation is None else n_validation, 1)
        _check_count("max_reports", 1 if max_reports is None else max_reports, 1)
        _check_count("keep", keep, 0)
        limit = sys.maxsize if max_reports is None else max_reports
        self._rule = LadderRule(first_rung, kappa, margin, n_validation, limit, keep)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to end here.

        Raises:
            UsageError: `n_validation` is given, but the best value is no share.
        """
        rung = self._find_rung(trial)
        if rung is None:
            return False
        study._storage.set_trial_system_attr(trial_id_of(trial), COMPARED, len(trial.intermediate_values))
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        trials = {str(each.number): each for each in study.get_trials(deepcopy=False, states=COUNTING)}
        trials[str(trial.number)] = trial
        values = {number: _value_at(rung, each, sign) for number, each in trials.items()}
        best = self._rule.decide_ahead({}, values, 0)
        if best.leader is not None and self._rule.n_validation is not None and not 0 <= sign * best.leader <= 1:
            raise UsageError(
                f"LadderPruner: with n_validation values must be from 0 to 1, but the best at report {rung} is "
                f"{sign * best.leader:g}; leave n_validation out, and margin is counted in the spread of the values."
            )
        leading = trials[best.leading_cell or str(trial.number)]
        rule = self._rule_for(_read_reports(leading, sign)[:rung])
        return rule.is_cut(stand_at(rung, _read_reports(trial, sign)), best.leader, best.kept_from)

    def _find_rung(self, trial: FrozenTrial) -> int | None:
        """The highest rung that a trial has passed, unless it was compared since; asked twice, it is compared twice."""
        n_reports, n_compared = len(trial.intermediate_values), trial.system_attrs.get(COMPARED, 0)
        rung = max((rung for rung in self._rule.rungs() if rung <= n_reports), default=None)
        if rung is None or rung <= n_compared < n_reports or n_reports >= self._rule.max_epochs:
            return None
        return rung

    def _rule_for(self, reports: Sequence[float]) -> LadderRule:
        """The rule with its margin in the unit of the values: those that the best trial reported up to the rung."""
        if self._rule.n_validation is not None or self._rule.margin == 0:
            return self._rule
        last = [value for value in reports[-max(2, len(reports) // 2) :] if math.isfinite(value)]
        return replace(self._rule, margin=self._rule.margin * (stdev(last) if len(last) > 1 else 0.0))


def _check(name: str, value: float, lowest: int) -> None:
    if not lowest <= value < math.inf:
        raise UsageError(f"LadderPruner: {name} must be finite and at least {lowest}, but got {value}.")


def _check_count(name: str, value: float, lowest: int) -> None:
    _check(name, value, lowest)
    if not isinstance(value, Integral):
        raise UsageError(f"LadderPruner: {name} must be an integer, but got {value}.")


def _read_reports(trial: FrozenTrial, sign: float) -> Sequence[float]:
    """What a trial reported, in the order of steps, whatever the numbers of these; the larger one is better."""
    return [sign * value for _, value in sorted(trial.intermediate_values.items())]


def _value_at(rung: int, trial: FrozenTrial, sign: float) -> float | None:
    """What a trial is compared by at a rung; None if it was not there, or had no finite value."""
    if trial.state is TrialState.COMPLETE and len(trial.intermediate_values) <= rung:
        return sign * trial.value if trial.value is not None and math.isfinite(trial.value) else None
    return stand_at(rung, _read_reports(trial, sign)).now
