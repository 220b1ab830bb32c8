"""Repeats: cells of one point, what is known of it, and what is refused in one line."""

import tomllib

import pytest

from fmnist_optuna.errors import SpecError
from fmnist_optuna.ledger.leaders import as_point
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.known import KnownCell, Standing
from fmnist_optuna.search.repeats import Repeats, known_points
from fmnist_optuna.search.sampling import NO_POINT, Search, Stage
from fmnist_optuna.search.space import Dimension
from fmnist_optuna.spec.reading import parse_spec, restore_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.stages import ordered_points, search_of

GRID = "[search]\nrepeats = 3\n[grid]\nhidden_size = [64, 128]\ndropout_rate = [0.0, 0.5]\n"
RANDOM = '[search]\nsampler = "random"\nn_trials = 5\nrepeats = 2\n[space]\nhidden_size = {low = 1, high = 512}\n'
SPACE = {"rate": Dimension(low=0.0, high=1.0)}


def read(text: str) -> StudySpec:
    """A study file."""
    return parse_spec(tomllib.loads(text), "study.toml")


@pytest.mark.parametrize(("text", "n_points", "n_cells"), [(GRID, 4, 12), (RANDOM, 5, 10)])
def test_each_point_has_as_many_cells_as_repeats(text: str, n_points: int, n_cells: int) -> None:
    """And the study that is stored says the same when it is read again."""
    spec = read(text)
    assert (spec.n_points, spec.n_cells, spec.pruner.name) == (n_points, n_cells, "ladder")
    assert spec.ladder_rule().keep == spec.pruner.keep * spec.search.repeats
    assert restore_spec(spec.model_dump(mode="json"), "stored") == spec


@pytest.mark.parametrize("text", ["", "[search]\nrepeats = 1"])
def test_one_repeat_is_the_study_of_before(text: str) -> None:
    """Nothing of it is stored, so that older studies are joined."""
    spec = read(text)
    assert (spec, spec.digest) == (StudySpec(), StudySpec().digest)
    assert "search" not in spec.model_dump(mode="json")
    assert spec.cell_grid == spec.grid


def test_another_number_of_repeats_is_another_study() -> None:
    """A join compares what is fixed."""
    assert read(GRID).fixed_part()["search"] == {"repeats": 3}
    assert read(RANDOM).fixed_part()["search"] == {"sampler": "random", "seed": 0, "repeats": 2}
    assert "search" not in read(GRID).trained_part()


def test_the_repeats_of_a_point_of_a_grid_are_neighbours() -> None:
    """In the order of claims, the points in the order that they have without repeats."""
    alone = [point.params for point in ordered_points(read(GRID.replace("3", "1", 1)))]
    repeated = [point.params for point in ordered_points(read(GRID))]
    assert repeated == [{**params, "training_seed": seed} for params in alone for seed in (1, 2, 3)]


def test_repeats_of_a_search_have_the_point_of_its_number() -> None:
    """The points are those without repeats, each as often as it is repeated."""
    alone, repeated = search_of([read(RANDOM.replace("repeats = 2", ""))]), search_of([read(RANDOM)])
    assert repeated.n_cells == 10
    for number in range(10):
        point = alone.point(number // 2)
        assert repeated.point(number) == {**point, "training_seed": number % 2 + 1}


def test_further_trials_come_after_all_repeats() -> None:
    """A stage that adds points leaves the cells that are there."""
    first, wider = Stage(2, SPACE), Stage(4, {"rate": Dimension(low=0.0, high=9.0)}, [{"rate": 7.0}])
    before, after = Search("random", 0, [first], Repeats(3)), Search("random", 0, [first, wider], Repeats(3))
    assert [after.point(number) for number in range(6)] == [before.point(number) for number in range(6)]
    assert [after.point(number)["rate"] for number in (6, 7, 8)] == [7.0, 7.0, 7.0]
    assert Search("tpe", 0, [first], Repeats(3)).point(4) is NO_POINT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[search]\nrepeats = 0", "search.repeats must be at least 1, but got 0"),
        ("[search]\nrepeats = 1001", "search.repeats must be at most 1000, but got 1001"),
        ("[search]\nrepeats = 2.0", "search.repeats must be an integer, but got 2.0"),
        (
            "[search]\nrepeats = 2\n[grid]\nhidden_size = [64]\ntraining_seed = [1, 2]",
            "search.repeats must be 1 where training_seed is searched, as repeats are such seeds, but is 2; remove one",
        ),
        (
            RANDOM + "training_seed = {low = 1, high = 9}",
            "search.repeats must be 1 where training_seed is searched, as repeats are such seeds, but is 2; remove one",
        ),
        (
            GRID + '[pruner]\nname = "median"',
            'pruner.name must be "ladder" or "none" with search.repeats = 3, as "median" compares single trials, whose '
            "point would lose its mean with one of them; leave it out",
        ),
    ],
)
def test_what_does_not_fit_repeats_is_refused(text: str, expected: str) -> None:
    """In one line."""
    with pytest.raises(SpecError) as refused:
        read(text)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def known(number: int, standing: Standing, value: float | None = None) -> KnownCell:
    """A repeat, two of which are a point."""
    return KnownCell(number, {"rate": number // 2 / 10, "training_seed": number % 2 + 1}, standing, 0, value)


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [
        ([known(4, "complete", 0.5), known(5, "complete", 0.25)], ("complete", 0.375)),
        ([known(4, "complete", 0.5), known(5, "running")], ("complete", 0.5)),
        ([known(4, "complete", 0.5), known(5, "pruned", 0.125)], ("pruned", 0.125)),
        ([known(4, "running"), known(5, "running")], ("running", None)),
        ([known(4, "climbing", 0.5), known(5, "climbing", 0.25)], ("climbing", 0.375)),
        ([known(4, "pruned", 0.5), known(5, "pruned", 0.25)], ("pruned", 0.375)),
        ([known(5, "running")], ("running", None)),
    ],
)
def test_what_is_known_of_a_point_is_its_mean(
    repeats: list[KnownCell], expected: tuple[Standing, float | None]
) -> None:
    """Of the repeats that are complete; with one that diverged it is a bad one."""
    assert known_points(repeats, 2) == [KnownCell(2, {"rate": 0.2}, expected[0], 0, expected[1])]


def cell(seed: int, state: State, value: float | None = None) -> Cell:
    """A repeat of a point of a grid."""
    params = {"hidden_size": 64, "training_seed": seed}
    return Cell(f"cell{seed}", params, state, value=value, accuracy=None if value is None else value / 2)


def test_a_point_has_the_means_of_its_repeats() -> None:
    """And the trial of the first, whichever is best."""
    point = as_point([cell(1, State.COMPLETE, 0.5), cell(2, State.COMPLETE, 1.0)])
    assert (point.cell_id, point.params) == ("cell1", {"hidden_size": 64})
    assert (point.value, point.val_accuracy, point.state) == (0.75, 0.375, State.COMPLETE)


@pytest.mark.parametrize("state", [State.WAITING, State.RUNNING, State.PRUNED, State.FAILED])
def test_a_point_without_all_repeats_has_no_value(state: State) -> None:
    """It stands as the repeat that is not complete."""
    point = as_point([cell(1, State.COMPLETE, 0.5), cell(2, state)])
    assert (point.cell_id, point.state, point.value, point.val_accuracy) == ("cell2", state, None, None)
