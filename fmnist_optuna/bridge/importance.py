"""Which parameters of a grid set its best cells apart: PED-ANOVA over the COMPLETE cells. Knows no figure."""

import math
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import canonical_json
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric

MIN_CELLS = 8  # complete ones, of which importances say something
# Optuna's own default, the best tenth, is three cells of 27: chance decides what they have in common. With the best
# quarter, at least three, a planted answer got 79 % or more on ten shapes of grid, 95 % on most (measured 2026-11-25).
BEST_SHARE = 0.25
MIN_BEST = 3


def find_importances(cells: Sequence[Cell], metric: Metric = VAL_ACCURACY) -> dict[str, float]:
    """Share of each parameter (0..1, together 1) in what sets the best quarter of the COMPLETE cells apart.

    Values of a parameter count by their place in the grid, or among those that were tried: by their size, PED-ANOVA
    would put all that lie closer than a fiftieth of the range into one.

    Args:
        metric: By which the cells are compared.

    Returns:
        The shares, of parameters that every cell has; empty where they say nothing: fewer than eight cells, a single
        parameter, equal values.
    """
    complete = [cell for cell in cells if cell.state is State.COMPLETE and cell.value is not None]
    places = _places(cells)
    if len(complete) < MIN_CELLS or len(places) < 2:
        return {}
    n_best = max(MIN_BEST, math.ceil(BEST_SHARE * len(complete)))
    values = sorted((cell.value for cell in complete if cell.value is not None), key=metric.rank)
    if values[n_best - 1] == values[-1]:  # the best are all of them
        return {}
    study = optuna.create_study(direction=metric.direction)
    distributions = {name: _distribution(name, cells, len(place)) for name, place in places.items()}
    for cell in complete:
        params = {name: place[canonical_json(cell.params[name])] for name, place in places.items()}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=cell.value))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=n_best / len(complete))
    return get_param_importances(study, evaluator=evaluator, params=list(places))


def _places(cells: Sequence[Cell]) -> dict[str, dict[str, int]]:
    """The place of each value among all of its parameter, by its JSON; only of parameters with several values."""
    found: dict[str, dict[str, int]] = {}
    cells = [cell for cell in cells if cell.params]
    shared = [name for name in (cells[0].params if cells else ()) if all(name in cell.params for cell in cells)]
    for name in shared:
        values = {canonical_json(cell.params[name]): cell.params[name] for cell in cells}
        ordered = sorted(values, key=lambda text: (isinstance(values[text], str), values[text]))
        if len(ordered) > 1:
            found[name] = {text: place for place, text in enumerate(ordered)}
    return found


def _distribution(name: str, cells: Sequence[Cell], n_values: int) -> BaseDistribution:
    if any(isinstance(cell.params.get(name), str | bool) for cell in cells):  # no value lies between two others
        return CategoricalDistribution(tuple(range(n_values)))
    return IntDistribution(0, n_values - 1)
