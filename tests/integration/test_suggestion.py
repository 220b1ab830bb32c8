"""Suggestions of TPE: of a seed and what is known alone, those of the stock sampler, quick enough beside a training."""

import random
import time
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.samplers import TPESampler

from fmnist_optuna.bridge.spaces import make_distribution
from fmnist_optuna.bridge.suggestion import Suggester
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.known import KnownCell
from fmnist_optuna.search.sampling import Search, Stage
from fmnist_optuna.search.space import Dimension, Space

SPACE: Space = {
    "units": Dimension(low=32, high=512, step=32),
    "rate": Dimension(low=1e-4, high=0.1, log=True),
    "act": Dimension(choices=("relu", "gelu")),
    "single": Dimension(low=3, high=3),
    **{f"x{number}": Dimension(low=0.0, high=1.0) for number in range(6)},
}
CONDITIONAL: Space = {**SPACE, "alpha": Dimension(low=0.0, high=1.0, when={"act": ("gelu",)})}
SECONDS_AT_MOST = 0.2  # of the processor: 0.02 were measured, and what a test may hold on any machine is more


def known_cells(space: Space, n_cells: int) -> list[KnownCell]:
    """Complete cells, then some that were pruned, stand at a rung or run."""
    points = Search("random", 7, [Stage(n_cells + 6, space)]).points(range(n_cells + 6))
    values = random.Random(0)
    cells = [KnownCell(point.number or 0, point.params, "complete", 0, values.random()) for point in points[:n_cells]]
    for point in points[n_cells::3]:
        cells.append(KnownCell(point.number or 0, point.params, "pruned", 2, values.random()))
    for point in points[n_cells + 1 :: 3]:
        cells.append(KnownCell(point.number or 0, point.params, "climbing", 2, values.random()))
    for point in points[n_cells + 2 :: 3]:
        cells.append(KnownCell(point.number or 0, point.params, "running"))
    return cells


def suggest_as_stock(space: Space, seed: int, cells: Sequence[KnownCell]) -> dict[str, Any]:
    """What an ordinary study of Optuna with these trials is told."""
    distributions = {name: make_distribution(dimension) for name, dimension in space.items()}
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=seed))
    states = {"complete": optuna.trial.TrialState.COMPLETE, "running": optuna.trial.TrialState.RUNNING}
    for cell in cells:
        state = states.get(cell.standing, optuna.trial.TrialState.PRUNED)
        study.add_trial(
            optuna.create_trial(
                state=state,
                params=dict(cell.params),
                distributions={name: distributions[name] for name in cell.params},
                value=cell.value if cell.standing == "complete" else None,
                intermediate_values={} if cell.standing in states else {cell.n_epochs: cell.value or 0.0},
            )
        )
    return study.ask(dict(sorted(distributions.items()))).params


@pytest.mark.parametrize("n_cells", [0, 5, 30])
def test_suggestions_are_those_of_the_stock_sampler(n_cells: int) -> None:
    """With no cell, with too few, and with enough: what stands at a rung is pruned there, what runs is a liar."""
    cells = known_cells(SPACE, n_cells)
    suggester = Suggester(SPACE)
    for seed in range(5):
        assert suggester.suggest(seed, cells) == suggest_as_stock(SPACE, seed, cells)


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL])
def test_a_suggestion_is_of_seed_and_knowledge_alone(space: Space) -> None:
    """Not of the order in which cells were read, nor of what the same suggester has suggested before."""
    cells = known_cells(space, 30)
    suggester = Suggester(space)
    found: list[Params] = [suggester.suggest(seed, cells) for seed in range(5)]
    assert len({str(params) for params in found}) == 5
    assert suggester.suggest(0, cells) == found[0]
    assert Suggester(space).suggest(0, list(reversed(cells))) == found[0]


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL])
def test_the_order_of_the_space_changes_no_suggestion(space: Space) -> None:
    """A study file whose keys stand in another order asks for the same points, in which they stand likewise."""
    moved = dict(reversed(list(space.items())))
    first = Suggester(space).suggest(0, known_cells(space, 30))
    second = Suggester(moved).suggest(0, known_cells(moved, 30))
    assert second == first
    assert list(first) == [name for name in space if name in first]
    assert list(second) == [name for name in moved if name in second]


def test_a_cut_point_is_known_by_its_epochs_now() -> None:
    """With repeats they may be fewer at the next look; what was seen before changes no suggestion."""
    space: Space = {"x": Dimension(low=0.0, high=1.0)}

    def cut_after(epochs: Sequence[int]) -> list[KnownCell]:
        return [KnownCell(n, {"x": n / len(epochs)}, "pruned", n_epochs) for n, n_epochs in enumerate(epochs)]

    before, now = cut_after(range(1, 21)), cut_after(range(20, 0, -1))
    suggester = Suggester(space)
    assert suggester.suggest(1, before) != Suggester(space).suggest(1, now)
    assert suggester.suggest(1, now) == Suggester(space).suggest(1, now)


def test_a_conditional_parameter_comes_with_its_choice() -> None:
    """And never without."""
    cells = known_cells(CONDITIONAL, 5)  # too few to learn from
    found = [Suggester(CONDITIONAL).suggest(seed, cells) for seed in range(20)]
    assert {("alpha" in params) == (params["act"] == "gelu") for params in found} == {True}
    assert {params["act"] for params in found} == {"relu", "gelu"}


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL])
def test_a_thousand_cells_are_no_burden(space: Space) -> None:
    """Ten parameters: once the trials are made, a suggestion takes a moment."""
    cells = known_cells(space, 1000)
    suggester = Suggester(space)
    suggester.suggest(0, cells)
    began = time.process_time()
    suggester.suggest(1, cells)
    assert time.process_time() - began < SECONDS_AT_MOST
