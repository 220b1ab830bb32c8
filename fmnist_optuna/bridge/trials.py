"""Optuna's side of a cell: the grid sampler, the distributions, and the trial that one attempt makes.

Every attempt is an ordinary Optuna trial, so stock Optuna and optuna-dashboard read the study as a grid study.
"""

import functools
import json
import math
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import GridSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmnist_optuna.bridge.attributes import is_foreign, stored_attributes
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.ledger.tables import CELL_ID, TOKEN
from fmnist_optuna.search.cell import (
    LEARNING_RATE,
    Grid,
    Params,
    ParamValue,
    canonical_json,
    newest_grid_with,
)
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.spec.values import INTEGERS

FLOATS = ("dropout_rate", LEARNING_RATE)
N_STEPS = 50  # that Optuna's PED-ANOVA cuts a range into


class LedgerGridSampler(GridSampler):
    """GridSampler that leaves the end of the study to the ledger.

    Stock GridSampler stops the study from within `tell`, which is an error outside `optimize`.
    """

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Do nothing: the ledger knows when the grid is done."""

    def grid_id(self, params: Params) -> int:
        """Index of a point in the order that a stock GridSampler of the same grid and seed gives it."""
        return self._grid_ids[tuple(params[name] for name in self._param_names)]

    @functools.cached_property
    def _grid_ids(self) -> dict[tuple[object, ...], int]:
        return {tuple(point): index for index, point in enumerate(self._all_grids)}

    @property
    def search_space(self) -> Mapping[str, Sequence[object]]:
        """Values by parameter, names sorted."""
        return self._search_space


class LedgerMedianPruner(MedianPruner):
    """MedianPruner that compares with trials of the ledger only: what another program added prunes nothing."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to end here."""
        return super().prune(_OwnTrials(study), trial)


class _OwnTrials(optuna.Study):
    """A study without the trials of other programs; all else is that of the given one."""

    def __init__(self, study: optuna.Study) -> None:
        vars(self).update(vars(study))

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in super().get_trials(deepcopy, states) if not is_foreign(trial)]


@dataclass(frozen=True)
class Outcome:
    """How a training ended: with a value, pruned, or diverged; or that it is parked.

    Args:
        state: Complete, pruned or parked.
        value: Of the study's metric, of the weights that are kept; None when pruned.
        reason: Why it was cut, when pruned.
        val_accuracy: Of the same weights, 0..1, where the value is of another metric.
    """

    state: State
    value: float | None = None
    reason: Reason | None = None
    val_accuracy: float | None = None


def make_sampler(grid: Grid) -> LedgerGridSampler:
    """The sampler of a study: stock GridSampler's order with its default seed."""
    return LedgerGridSampler({name: list(values) for name, values in grid.items()})


def sampler_for(params: Params, grids: Sequence[Grid]) -> LedgerGridSampler:
    """The sampler of the newest of the accepted grids that has this point; made once a grid, as none ever goes."""
    return _sampler_of(json.dumps(grids[newest_grid_with(params, grids)]))


@functools.lru_cache(maxsize=16)
def _sampler_of(grid: str) -> LedgerGridSampler:
    return make_sampler(json.loads(grid))


def make_pruner(spec: StudySpec) -> BasePruner:
    """The pruner that a study file names."""
    pruner = spec.pruner
    if pruner.name in ("none", "ladder"):  # with the ladder, the ledger decides for a whole rung
        return NopPruner()
    return LedgerMedianPruner(
        n_startup_trials=pruner.n_startup_trials,
        n_warmup_steps=pruner.n_warmup_steps,
        interval_steps=pruner.interval_steps,
        n_min_trials=pruner.n_min_trials,
    )


def make_distributions(
    grids: Sequence[Grid], logarithmic: Collection[str] = frozenset()
) -> dict[str, BaseDistribution]:
    """One distribution a parameter: of numbers the range of all accepted grids; categorical for strings and booleans.

    Importances cut a range into `N_STEPS`, so a range wider than the grids would put all its values into one.

    Args:
        grids: All of the same parameters, at least one; a parameter of strings has the same values in each.
        logarithmic: Numbers that have a logarithmic range, unless one of them is not positive.
    """
    return {
        name: _make_distribution(name, [value for grid in grids for value in grid[name]], name in logarithmic)
        for name in grids[0]
    }


def _make_distribution(name: str, values: Sequence[ParamValue], is_logarithmic: bool) -> BaseDistribution:
    if all(isinstance(value, bool) for value in values):
        return CategoricalDistribution((False, True))
    numbers = [value for value in values if not isinstance(value, str)]
    if not numbers:
        return CategoricalDistribution(tuple(dict.fromkeys(values)))
    low, high, is_log = min(numbers), max(numbers), is_logarithmic and min(numbers) > 0
    if _has_integers(name, numbers):
        return IntDistribution(int(low), int(high), log=is_log)
    return FloatDistribution(float(low), float(high), log=is_log)


def _has_integers(name: str, numbers: Sequence[int | float]) -> bool:
    return name in INTEGERS or (name not in FLOATS and all(isinstance(value, int) for value in numbers))


def find_logarithmic(grid: Grid) -> set[str]:
    """The parameters of a grid of which Optuna's importances tell more values apart by their logarithms."""
    found = set()
    for name, values in grid.items():
        numbers = [value for value in values if not isinstance(value, str | bool)]
        if numbers and min(numbers) > 0 and (name == LEARNING_RATE or _is_told_apart_by_logarithm(name, numbers)):
            found.add(name)
    return found


def _is_told_apart_by_logarithm(name: str, numbers: Sequence[int | float]) -> bool:
    """Whether the values share fewer steps of a logarithmic range; with integers that has fewer steps."""
    low, high = min(numbers), max(numbers)
    n_steps = n_logarithmic = N_STEPS
    if _has_integers(name, numbers):
        n_steps = int(min(N_STEPS, high - low + 1))
        n_logarithmic = min(N_STEPS, math.ceil(math.log2(high - low + 1)) + 1)
    return _count_steps([math.log(value) for value in numbers], n_logarithmic) > _count_steps(numbers, n_steps)


def _count_steps(values: Sequence[float], n_steps: int) -> int:
    """Into how many steps values fall when their range is cut into so many."""
    low, width = min(values), max(values) - min(values)
    return len({math.ceil((value - low) / width * (n_steps - 1) - 0.5) for value in values}) if width else 1


def make_template(
    cell_id: str,
    token: str,
    params: Params,
    notes: Mapping[str, object],
    distributions: Mapping[str, BaseDistribution],
    attributes: TrialAttributes,
) -> FrozenTrial:
    """A RUNNING trial of one cell, complete with what ties it to its claim: creating it is one transaction.

    Args:
        notes: What a stock sampler would have noted on it.
        distributions: Of all parameters that a cell of the study may have.
    """
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(params),
        distributions={name: distributions[name] for name in distributions if name in params},
        user_attrs=stored_attributes(attributes),
        system_attrs={
            CELL_ID: cell_id,
            TOKEN: token,
            "fixed_params": dict(params),
            **notes,
        },
    )


def tell(study: optuna.Study, trial: optuna.Trial, outcome: Outcome) -> None:
    """Finish a trial; one that somebody has finished or deleted stays as it is (re-read it to see whose it is)."""
    try:
        if outcome.state is State.COMPLETE and outcome.value is not None:  # `Study.tell` reads the trial twice besides
            study._storage.set_trial_state_values(trial_id_of(trial), TrialState.COMPLETE, [outcome.value])
        else:
            study.tell(trial, outcome.value, state=TrialState[outcome.state.optuna_name])
    except KeyError:  # deleted
        return
    except (ValueError, RuntimeError) as error:  # "Cannot tell a FAIL trial", UpdateFinishedTrialError
        if not study._storage.get_trial(trial_id_of(trial)).state.is_finished():
            raise RuntimeError(f"trial {trial.number} could not be finished") from error


def note(trial: optuna.Trial, attributes: TrialAttributes) -> None:
    """Note something on a running trial."""
    for key, value in stored_attributes(attributes).items():
        trial.set_user_attr(key, value)


def same_params(first: Params, second: Params) -> bool:
    """Whether two sets of parameters are one point of the grid."""
    return canonical_json(dict(first)) == canonical_json(dict(second))
