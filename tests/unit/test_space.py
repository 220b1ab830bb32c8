"""The space of a search: the values that a share gives, conditions, and what counts as a wider space."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from fmnist_optuna.bridge.spaces import make_distribution
from fmnist_optuna.search.cell import ParamValue
from fmnist_optuna.search.space import (
    Dimension,
    Space,
    check_given,
    drop_idle,
    in_order,
    point_at,
    points_of_each_choice,
    smallest_point,
)

SHARES = st.floats(0, 1, exclude_max=True)
ALMOST_ONE = math.nextafter(1.0, 0.0)
RATE = Dimension(low=1e-4, high=0.1, log=True)
SPACE: Space = {
    "units": Dimension(low=32, high=128, step=32),
    "act": Dimension(choices=("relu", "gelu")),
    "alpha": Dimension(low=0.0, high=1.0, when={"act": ("gelu",)}),
    "beta": Dimension(choices=(True, False), when={"alpha": (0.5,)}),
}


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        (Dimension(choices=("a", "b")), ["a", "a", "b", "b"]),
        (Dimension(low=1, high=4), [1, 2, 3, 4]),
        (Dimension(low=32, high=128, step=32), [32, 64, 96, 128]),
        (Dimension(low=0.1, high=0.4, step=0.1), [0.1, 0.2, 0.3, 0.4]),
        (Dimension(low=0.0, high=1.0), [0.0, 0.25, 0.5, 0.75]),
        (Dimension(low=5, high=5), [5, 5, 5, 5]),
    ],
)
def test_shares_are_spread_over_all_values(dimension: Dimension, expected: list[ParamValue]) -> None:
    """Quarters of the whole give the values at quarters, each of its own kind."""
    found = [dimension.at(share) for share in (0.0, 0.25, 0.5, 0.75)]
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_half_of_a_logarithmic_range_is_its_geometric_mean() -> None:
    """From 1e-4 to 1e-1 that is 10 ** -2.5; of integers it is rounded."""
    assert RATE.at(0.5) == pytest.approx(10**-2.5)
    assert Dimension(low=1, high=100, log=True).at(0.5) == round(math.sqrt(0.5 * 100.5))


@given(share=SHARES, low=st.integers(1, 50), n_steps=st.integers(0, 50), step=st.integers(1, 9))
def test_every_value_is_one_of_its_dimension(share: float, low: int, n_steps: int, step: int) -> None:
    """Whatever the share: of integers with and without steps or logarithm, and of floats."""
    high = low + n_steps * step
    for dimension in (
        Dimension(low=low, high=high, step=step),
        Dimension(low=low, high=high, log=True),
        Dimension(low=low / 10, high=high / 10, step=step / 10),
        Dimension(low=low / 10, high=low / 10 + n_steps * (step / 10), step=step / 10),  # as a program computes it
        Dimension(low=low / 10, high=high / 10),
    ):
        value = dimension.at(share)
        assert dimension.has(value)
        assert dimension.holds(dimension)
        distribution = make_distribution(dimension)
        assert distribution._contains(distribution.to_internal_repr(value))


@pytest.mark.parametrize(
    ("low", "high", "step", "last"),
    [(0, 3 * 0.3, 0.3, 0.9), (0.1, 0.1 + 0.7, 0.1, 0.8), (0, 0.1 * 3, 0.1, 0.3), (0, 1 - 0.9, 0.1, 0.1)],
)
def test_a_high_that_is_rounded_is_the_last_step(low: float, high: float, step: float, last: float) -> None:
    """Optuna alone would leave the last step out of such a range, and refuse it where a trial has it."""
    dimension = Dimension(low=low, high=high, step=step)
    assert dimension.at(ALMOST_ONE) == dimension.last == last
    assert dimension.has(last)
    assert make_distribution(dimension) == FloatDistribution(low, last, step=step)


def test_the_ends_of_a_range_belong_to_it() -> None:
    """The first share gives the low end, the last one comes up to the high end and not beyond."""
    assert RATE.at(0.0) == pytest.approx(1e-4)
    assert RATE.has(RATE.at(0.0))
    assert RATE.has(RATE.at(ALMOST_ONE))
    assert Dimension(low=1, high=100, log=True).at(ALMOST_ONE) == 100


@pytest.mark.parametrize(("value", "expected"), [(64, True), (65, False), (160, False), (64.0, True), ("64", False)])
def test_a_value_is_told_from_others(value: ParamValue, expected: bool) -> None:
    """By range, step and kind."""
    assert SPACE["units"].has(value) is expected


def test_what_depends_on_a_choice_is_there_beside_it_alone() -> None:
    """And so is what depends on that."""
    values: dict[str, ParamValue] = {"units": 32, "act": "relu", "alpha": 0.5, "beta": True}
    assert drop_idle(SPACE, values) == {"act": "relu", "units": 32}
    assert drop_idle(SPACE, {**values, "act": "gelu"}) == {**values, "act": "gelu"}
    assert drop_idle(SPACE, {**values, "act": "gelu", "alpha": 0.4}) == {"act": "gelu", "alpha": 0.4, "units": 32}


def test_names_come_after_what_they_depend_on() -> None:
    """Sorted otherwise, so that the order in a study file is of no account."""
    space = {"a": Dimension(choices=(1, 2), when={"z": (1,)}), "m": Dimension(high=1), "z": Dimension(choices=(1, 2))}
    assert in_order(space) == ["m", "z", "a"]
    assert in_order(dict(reversed(space.items()))) == ["m", "z", "a"]


def test_a_point_keeps_what_is_given() -> None:
    """The rest is drawn, and what a given choice rules out is left away."""
    assert point_at(SPACE, [0.9] * 4, {"act": "relu"}) == {"act": "relu", "units": 128}
    assert point_at(SPACE, [0.5] * 4, {"units": 64}) == {"act": "gelu", "alpha": 0.5, "beta": False, "units": 64}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"units": 64}, None),
        ({"act": "gelu", "alpha": 0.25}, None),
        ({"unit": 64}, "must name keys of [space], but unit is none"),
        ({"units": 65}, "must have a value of space.units, but has 65"),
        ({"alpha": 0.5}, 'must give alpha together with act = "gelu", on which it depends'),
        ({"act": "relu", "alpha": 0.5}, 'must give alpha together with act = "gelu", on which it depends'),
    ],
)
def test_points_to_try_are_checked(values: dict[str, ParamValue], expected: str | None) -> None:
    """What is wrong is said in words that go on from the place."""
    assert check_given(SPACE, values) == expected


def test_points_have_the_order_of_the_space() -> None:
    """Wherever they are shown, parameters stand as in the study file, whatever they depend on."""
    space: Space = dict(reversed(list(SPACE.items())))
    given: dict[str, ParamValue] = {"alpha": 0.5, "act": "gelu"}
    assert list(point_at(space, [0.5] * 4, given)) == ["beta", "alpha", "act", "units"]
    assert point_at(space, [0.5] * 4, given) == point_at(SPACE, [0.5] * 4, given)


def test_the_smallest_point_has_the_smallest_numbers() -> None:
    """And the first choices."""
    assert smallest_point(SPACE) == {"act": "relu", "units": 32}


def test_every_choice_is_in_one_of_few_points() -> None:
    """With what it depends on, so that it is there at all."""
    space = {
        "act": Dimension(choices=("relu", "gelu")),
        "norm": Dimension(choices=("none", "batch"), when={"act": ("gelu",)}),
    }
    assert points_of_each_choice(space) == [
        {"act": "relu"},
        {"act": "gelu", "norm": "none"},
        {"act": "gelu", "norm": "batch"},
    ]


@pytest.mark.parametrize(
    ("wider", "expected"),
    [
        (Dimension(low=32, high=256, step=32), True),
        (Dimension(low=0, high=128, step=32), True),
        (Dimension(low=16, high=144, step=32), False),  # none of the old values is a whole number of steps away
        (Dimension(low=32, high=256, step=16), False),
        (Dimension(low=64, high=256, step=32), False),
        (Dimension(low=32, high=256), False),
        (Dimension(choices=(32, 64, 96, 128)), False),
    ],
)
def test_a_wider_range_holds_the_old_one(wider: Dimension, expected: bool) -> None:
    """With the same steps, all old values among the new ones."""
    assert wider.holds(SPACE["units"]) is expected
