"""The points of the cells of a search: of seed and number alone, stage by stage."""

from dataclasses import replace

import numpy as np
import pytest

from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.known import Base, Known, KnownCell, KnownTexts
from fmnist_optuna.search.sampling import (
    NO_POINT,
    Search,
    Stage,
    is_same_point,
    number_id,
    random_shares,
    sobol_shares,
)
from fmnist_optuna.search.space import Dimension, Space

SPACE: Space = {"rate": Dimension(low=0.0, high=1.0), "units": Dimension(low=1, high=1000)}
RANDOM_SHARES = [0.014067035665647709, 0.2577672456246177]
SOBOL_SHARES = [[0.40994958858937025, 0.9641202185302973], [0.7219116594642401, 0.10752477683126926]]
WIDER: Space = {**SPACE, "units": Dimension(low=1, high=10_000)}


def search(sampler: str, *stages: Stage, seed: int = 0) -> Search:
    """A search of these stages."""
    samplers = {"random": Search("random", seed, stages), "qmc": Search("qmc", seed, stages)}
    return samplers.get(sampler, Search("tpe", seed, stages))


def params(found: Search, n: int) -> list[Params]:
    """The points of the first cells."""
    return [point.params for point in found.points(range(n))]


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_more_trials_extend_the_same_points(sampler: str) -> None:
    """A study of 300 begins with the points of one of 20."""
    few, many = search(sampler, Stage(20, SPACE)), search(sampler, Stage(300, SPACE))
    assert params(many, 20) == params(few, 20)
    assert len({point["rate"] for point in params(many, 300)}) == 300


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_another_seed_gives_other_points(sampler: str) -> None:
    """Every one of them."""
    one, other = search(sampler, Stage(50, SPACE)), search(sampler, Stage(50, SPACE), seed=1)
    assert not any(first == second for first, second in zip(params(one, 50), params(other, 50), strict=True))


def test_points_stay_what_they_were_in_this_version() -> None:
    """What a later version draws must be the same, or `verify` accuses studies of before."""
    assert random_shares(0, 0, 2).tolist() == RANDOM_SHARES
    assert sobol_shares(0, 2, 2).tolist() == SOBOL_SHARES


def test_random_points_fill_the_space_evenly() -> None:
    """Of 4,000 shares a tenth is in each tenth, give or take four standard deviations."""
    shares = np.array([random_shares(0, number, 2) for number in range(2000)])
    counts, _ = np.histogram(shares, bins=10, range=(0, 1))
    assert abs(counts - 400).max() < 4 * (4000 * 0.1 * 0.9) ** 0.5


def test_quasi_random_points_leave_no_gap() -> None:
    """Of 64 points each 64th of every axis has exactly one, which is what the sequence is for."""
    shares = sobol_shares(3, 64, 3)
    assert all(sorted((64 * column).astype(int)) == list(range(64)) for column in shares.T)


def test_a_later_stage_changes_no_cell_of_an_earlier_one() -> None:
    """Cells of a wider space are those that come with it; the same share then gives a larger number."""
    before = search("random", Stage(10, SPACE))
    after = search("random", Stage(10, SPACE), Stage(20, WIDER))
    assert params(after, 10) == params(before, 10)
    narrow = params(search("random", Stage(20, SPACE)), 20)[10:]
    for old, new in zip(narrow, params(after, 20)[10:], strict=True):
        assert old["rate"] == new["rate"]
        assert new["units"] == pytest.approx(10 * int(old["units"]), abs=10)


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_enqueued_points_come_first_in_each_stage(sampler: str) -> None:
    """The first cells of a stage are what it has enqueued beyond the stage before; what they leave open is drawn."""
    first: list[Params] = [{"units": 7}, {"units": 8, "rate": 0.5}]
    found = search(sampler, Stage(3, SPACE, first), Stage(5, SPACE, [*first, {"units": 9}]))
    assert [found.given(number) for number in range(5)] == [*first, None, {"units": 9}, None]
    assert [found.point(number)["units"] for number in (0, 1, 3)] == [7, 8, 9]
    assert found.point(1) == {"rate": 0.5, "units": 8}
    assert 0 <= float(found.point(0)["rate"]) < 1


def test_tpe_leaves_points_open_until_a_claim() -> None:
    """All but those that are enqueued."""
    found = search("tpe", Stage(3, SPACE, [{"units": 7, "rate": 0.5}]))
    assert params(found, 3) == [{"rate": 0.5, "units": 7}, NO_POINT, NO_POINT]


def test_cells_of_equal_points_are_distinct() -> None:
    """The id is of the number: two choices give no more than two points, but as many cells as there are trials."""
    found = search("random", Stage(20, {"act": Dimension(choices=("relu", "gelu"))})).points(range(20))
    assert len({point.cell_id for point in found}) == 20
    assert {str(point.params) for point in found} == {"{'act': 'relu'}", "{'act': 'gelu'}"}
    assert [point.cell_id for point in found] == [number_id(number) for number in range(20)]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"rate": 0.1 + 1e-13, "units": 7}, True),  # another library's logarithm
        ({"rate": 0.1001, "units": 7}, False),
        ({"rate": 0.1, "units": 8}, False),
        ({"rate": 0.1}, False),
        ({"rate": 0.1, "units": 7.0}, True),
    ],
)
def test_points_are_compared_but_for_last_digits(other: Params, expected: bool) -> None:
    """Of floats alone."""
    assert is_same_point({"rate": 0.1, "units": 7}, other) is expected


KNOWN_CELLS = [
    *(KnownCell(number, {"units": number}, "complete", 0, 0.5) for number in (0, 1, 2, 5)),
    KnownCell(3, {"units": 3}, "pruned", 4, 0.25),
    KnownCell(7, {"units": 7}, "climbing", 2, 0.125),
    KnownCell(8, {"units": 8}, "climbing", 2, None),
    *(KnownCell(number, {"units": number}, "running") for number in (9, 11)),
]


def read(text: str) -> Known:
    """What a text says that is based on no other."""
    return KnownTexts({0: text}).read(0)


def test_what_was_known_is_read_as_it_was_written() -> None:
    """In whatever order the cells were read."""
    known = Known.of("5.0.0", 1, reversed(KNOWN_CELLS))
    assert known == Known("5.0.0", 1, (0, 1, 2, 3, 5), ((7, 2, 0.125), (8, 2, None)), (9, 11))
    assert read(known.to_text()) == known
    assert read(replace(known, done=(), running=()).to_text()).done == ()


def test_what_was_known_is_kept_as_its_changes() -> None:
    """What has come to a rung since, has come further, got a result or began anew; the rest is that of the time before.

    A text in full, as all were at first, is read likewise.
    """
    known = [
        Known("5.0.0", 0, (), ((1, 2, 0.5), (2, 2, 0.25), (3, 2, None)), ()),
        Known("5.0.0", 0, (2,), ((1, 4, 0.75), (4, 2, 0.125)), (3,)),
        Known("5.0.0", 0, (2,), ((1, 4, 0.75), (3, 2, 0.5), (4, 2, 0.125)), ()),
    ]
    second, third = known[1].to_text(Base(7, known[0])), known[2].to_text(Base(8, known[1], 1))
    assert "0.75" not in third
    texts = KnownTexts({7: known[0].to_text(), 8: second, 9: third})
    assert [texts.read(number) for number in (9, 7, 8)] == [known[2], known[0], known[1]]


def test_changes_of_nothing_are_damaged() -> None:
    """A base that is not there, or that rests on what rests on it, is no endless search."""
    known = Known("5.0.0", 0, (), (), ())
    for number in (7, 8):
        with pytest.raises(ValueError, match="what was known is"):
            KnownTexts({7: known.to_text(Base(number, known))}).read(7)


def test_a_thousand_finished_cells_take_a_line() -> None:
    """What is done never changes, so that its numbers are enough, and those in a row are two."""
    cells = [KnownCell(number, {}, "complete", 0, 0.5) for number in range(1000)]
    assert len(Known.of("5.0.0", 0, cells).to_text()) < 100


@pytest.mark.parametrize("text", ["{}", "[]", "3", "no JSON", '{"optuna": "5", "stage": 0, "done": "x"}', "null"])
def test_damaged_knowledge_is_refused(text: str) -> None:
    """By an error that `verify` turns into a line."""
    with pytest.raises(ValueError, match="what was known is"):
        read(text)
