"""Where points stand at a rung whose cells are several: at their means, so that the rule cuts all of them or none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmnist_optuna.search.ladder import LadderRule, Standing
from fmnist_optuna.search.point_standings import NOWHERE, ended_at, mean_standing, with_means

RULE = LadderRule(first_rung=2, kappa=1.0, margin=1.0, n_validation=1000, max_epochs=16, keep=2)
SHARES = st.floats(0.0, 1.0)


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        ([Standing(0.5, 0.25), Standing(1.0, 0.75)], Standing(0.75, 0.5)),
        ([Standing(0.5, None), Standing(1.0, None)], Standing(0.75, None)),
        ([Standing(0.5, 0.25), ended_at(1.0)], Standing(0.75, 0.625)),
        ([Standing(0.5, 0.25), NOWHERE], NOWHERE),
        ([ended_at(None), Standing(0.5, 0.25)], NOWHERE),
        ([], None),
    ],
)
def test_a_point_stands_at_the_mean_of_its_cells(standings: list[Standing], expected: Standing | None) -> None:
    """One without a value leaves it none."""
    assert mean_standing(standings) == expected


def test_each_cell_stands_where_its_point_does() -> None:
    """One that has failed has no say; one that diverged or was cut has."""
    standings = {"a1": Standing(0.5, 0.25), "b1": Standing(0.5, 0.5), "c1": Standing(0.5, 0.5)}
    points = {"a1": "a", "a2": "a", "b1": "b", "c1": "c", "c2": "c"}
    found = with_means(standings, {"a2": 0.75}, ["c2"], points)
    assert found == (
        {"a1": Standing(0.625, 0.5), "b1": Standing(0.5, 0.5), "c1": NOWHERE},
        {"a2": 0.625},
    )


@given(st.lists(st.lists(st.tuples(SHARES, SHARES), min_size=2, max_size=2), min_size=1, max_size=8))
def test_all_cells_of_a_point_go_on_or_none(values: list[list[tuple[float, float]]]) -> None:
    """Whatever they have; the best few points go on anyway."""
    standings = {
        f"{point}-{cell}": Standing(max(pair), min(pair))
        for point, pairs in enumerate(values)
        for cell, pair in enumerate(pairs)
    }
    means, _ = with_means(standings, {}, [], {cell: cell.partition("-")[0] for cell in standings})
    decision = RULE.decide(means, {})  # `keep` counts cells: one point of two
    cut = {cell.partition("-")[0] for cell in decision.cut}
    assert {cell for cell in standings if cell.partition("-")[0] in cut} == set(decision.cut)
    best = max(range(len(values)), key=lambda point: means[f"{point}-0"].now or -math.inf)
    assert str(best) not in cut
