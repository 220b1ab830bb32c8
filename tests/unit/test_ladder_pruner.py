"""The ladder as a pruner of plain Optuna studies, with made-up objectives."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import optuna
import pytest
from optuna.trial import TrialState

from fmnist_optuna import LadderPruner
from fmnist_optuna.errors import UsageError

Direction = Literal["maximize", "minimize"]

LEADER = (0.70, 0.80, 0.84, 0.85, 0.85)
FLAT = (0.70, 0.70, 0.70, 0.70, 0.70)
SLOW = (0.50, 0.70, 0.80, 0.84, 0.90)
FALLING = (0.80, 0.10, 0.10, 0.10, 0.10)


def make_study(pruner: LadderPruner, direction: Direction = "maximize") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction=direction, pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))


def train(study: optuna.Study, values: Sequence[float], first_step: int = 0, every: int = 1) -> int | None:
    """Run a trial that reports these values; the number of reports it was pruned at, if it was.

    Args:
        every: It asks whether it is to end after so many reports, and again after as many more.
    """
    trial = study.ask()
    for step, value in enumerate(values):
        trial.report(value, first_step + step)
        if (step + 1) % every == 0 and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return step + 1
    study.tell(trial, values[-1])
    return None


def with_argument(name: str, value: Any) -> Callable[[], LadderPruner]:
    return lambda: LadderPruner(**{name: value})


def test_an_objective_is_pruned_where_it_stops_gaining() -> None:
    """Through `optimize`: the leader and the slow one end, the flat one is cut at the first rung."""
    curves = (LEADER, FLAT, SLOW)

    def objective(trial: optuna.Trial) -> float:
        curve = curves[trial.number]
        for step, value in enumerate(curve):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return curve[-1]

    study = make_study(LadderPruner())
    study.optimize(objective, n_trials=3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert list(study.trials[1].intermediate_values) == [0, 1]
    assert study.best_trial.number == 2


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("first_step", [0, 1, 7])
def test_both_directions_and_any_numbering_of_steps(sign: float, first_step: int) -> None:
    """The second report is a rung, whatever its step is called."""
    study = make_study(LadderPruner(), "maximize" if sign > 0 else "minimize")
    found = [train(study, [sign * value for value in curve], first_step) for curve in (LEADER, FLAT, SLOW)]
    assert found == [None, 2, None]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_margin_is_in_standard_errors_of_shares(direction: Direction) -> None:
    """At 10 % wrong of 10,000, one is 0.3 points; the same for accuracies and for errors."""
    study = make_study(LadderPruner(margin=1.0, n_validation=10_000), direction)
    curves = [(value, value) for value in (0.9, 0.8971, 0.8969)]
    found = [train(study, [value if direction == "maximize" else 1 - value for value in curve]) for curve in curves]
    assert found == [None, None, 2]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_margin_of_other_values_is_in_their_spread(sign: float) -> None:
    """The best trial's third and fourth report differ by 0.2, so that their standard deviation is 0.1414."""
    study = make_study(LadderPruner(kappa=0.0, margin=1.0), "maximize" if sign > 0 else "minimize")
    curves = [(3.0, 4.0, 4.8, 5.0), (3.0, 4.0, 4.859, 4.0), (3.0, 4.0, 4.858, 4.0)]
    found = [train(study, [sign * value for value in (*curve, curve[-1])]) for curve in curves]
    assert found == [None, None, 4]


def test_a_best_trial_of_one_report_has_no_spread() -> None:
    """What is worse by anything is cut."""
    study = make_study(LadderPruner(first_rung=1, margin=9.0))
    assert [train(study, curve) for curve in ((5.0,), (4.99,), (5.0,))] == [None, 1, None]


def test_a_rung_is_compared_with_the_same_rung() -> None:
    """That the first ended at 0.85 takes nothing from one that has as much as it had at its second report."""
    study = make_study(LadderPruner(kappa=0.0))
    assert train(study, LEADER) is None
    assert train(study, (0.10, 0.80, 0.80, 0.80, 0.80)) == 4


def test_a_trial_that_ended_early_counts_with_its_value() -> None:
    """It would have come to the rung with no less."""
    study = make_study(LadderPruner())
    assert train(study, (0.80, 0.90)) is None
    assert train(study, (0.80, 0.86, 0.86, 0.86)) == 4


def test_what_was_pruned_and_what_runs_is_compared_with() -> None:
    """A trial counts as soon as it has come to the rung, and from then on."""
    study = make_study(LadderPruner())
    running = study.ask()
    for step, value in enumerate((0.85, 0.91)):
        running.report(value, step)
    assert not running.should_prune()
    assert train(study, LEADER) == 2  # 0.80, and 0.10 more is less than 0.91
    study.tell(running, state=TrialState.FAIL)
    assert train(study, FLAT) == 2  # below the pruned one


def test_what_failed_is_not_compared_with() -> None:
    """Whatever it reported before."""
    study = make_study(LadderPruner())
    failed = study.ask()
    for step in range(4):
        failed.report(0.99, step)
    study.tell(failed, state=TrialState.FAIL)
    assert train(study, FLAT) is None


def test_the_first_trial_is_never_pruned() -> None:
    """It is its own leader, even when it gets worse; one that is not finite is no leader."""
    assert train(make_study(LadderPruner()), FALLING) is None
    assert train(make_study(LadderPruner()), (0.5, math.nan, 0.6, 0.7)) == 2


def test_between_rungs_and_at_the_end_nothing_is_pruned() -> None:
    """Rungs are 3 and 6 reports; the eighth would be the last."""
    study = make_study(LadderPruner(first_rung=3, max_reports=6))
    assert train(study, (0.9,) * 6) is None
    assert train(study, (0.1, 0.1, 0.9, 0.9, 0.9, 0.9)) is None
    assert train(study, (0.1, 0.1, 0.1, 0.1)) == 3
    later = make_study(LadderPruner(first_rung=3, max_reports=3))
    assert [train(later, curve[:3]) for curve in (LEADER, FLAT)] == [None, None]


@pytest.mark.parametrize(("every", "expected"), [(1, 2), (2, 2), (3, 3), (5, 5), (7, 7), (10, None)])
def test_who_asks_seldom_is_compared_at_the_rung_passed(every: int, expected: int | None) -> None:
    """At the highest one, once; with the last of ten reports nobody is pruned any more."""
    study = make_study(LadderPruner(max_reports=10))
    rising = [0.5 + 0.04 * step for step in range(10)]
    assert train(study, rising) is None
    assert train(study, [0.3] * 10, every=every) == expected


def test_between_two_rungs_the_comparison_is_not_repeated() -> None:
    """Who has passed a rung is not cut there by one that comes later; asked twice, the answer is the same."""
    study = make_study(LadderPruner())
    first = study.ask()
    for step in range(2):
        first.report(0.5, step)
    assert not first.should_prune()
    assert train(study, LEADER) is None
    first.report(0.5, 2)
    assert not first.should_prune()
    first.report(0.5, 3)
    assert [first.should_prune() for _ in range(2)] == [True, True]


def test_the_best_few_go_on() -> None:
    """Whatever they promise: with two kept the first two trials, and later whoever is as good as the second."""
    study = make_study(LadderPruner(keep=2, max_reports=4))
    values = (0.8, 0.5, 0.6, 0.7, 0.65)
    assert [train(study, [value] * 4) for value in values] == [None, None, None, None, 2]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: LadderPruner(first_rung=0), "first_rung must be finite and at least 1, but got 0"),
        (lambda: LadderPruner(kappa=-0.1), "kappa must be finite and at least 0, but got -0.1"),
        (lambda: LadderPruner(kappa=math.nan), "kappa must be finite and at least 0, but got nan"),
        (lambda: LadderPruner(margin=-1), "margin must be finite and at least 0, but got -1"),
        (lambda: LadderPruner(margin=math.inf), "margin must be finite and at least 0, but got inf"),
        (lambda: LadderPruner(n_validation=0), "n_validation must be finite and at least 1, but got 0"),
        (lambda: LadderPruner(max_reports=0), "max_reports must be finite and at least 1, but got 0"),
        (lambda: LadderPruner(keep=-1), "keep must be finite and at least 0, but got -1"),
        *(
            (with_argument(name, 2.5), f"{name} must be an integer, but got 2.5")
            for name in ("first_rung", "n_validation", "max_reports", "keep")
        ),
    ],
)
def test_an_argument_out_of_range_is_refused(make: Callable[[], LadderPruner], expected: str) -> None:
    """In one line that names it."""
    with pytest.raises(UsageError) as error:
        make()
    assert str(error.value) == f"LadderPruner: {expected}."


def test_standard_errors_are_of_shares_only() -> None:
    """A loss of 2.5 has none, and the text says what to leave out."""
    study = make_study(LadderPruner(n_validation=100), "minimize")
    with pytest.raises(UsageError, match=r"values must be from 0 to 1, but the best at report 2 is 2.5; leave n_valid"):
        train(study, (3.0, 2.5))
