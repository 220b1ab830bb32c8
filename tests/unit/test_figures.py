"""What figures make of names that look like something else, and of many parameters."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.ledger.records import Attempt, Cell, CellCounts, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.confusion_matrix import draw_confusion_matrix
from fmnist_optuna.pages.figures.curves import draw_curves
from fmnist_optuna.pages.figures.heat_map import draw_heat_map
from fmnist_optuna.pages.figures.learning_curve import draw_learning_curve
from fmnist_optuna.pages.figures.parallel_coordinates import draw_parallel_coordinates
from fmnist_optuna.pages.figures.slices import draw_slices
from fmnist_optuna.pages.figures.style import find_color_range
from fmnist_optuna.pages.overview import Overview
from fmnist_optuna.results.evaluation import ClassResult, Evaluation
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.records import StudyRecord

GRID = {"a": [1, 2, 3], "b": [1, 2, 3, 4], "c": [1, 2, 3], "d": [1, 2, 3, 4], "e": [1, 2]}
INFO = DatasetInfo("made up", (4,), "float32", (0.0, 1.0), ("yes", "no"))


def test_classes_named_by_digits_are_all_on_the_axes() -> None:
    """Names such as "7" are names: no axis of numbers, on which every other one would be missing."""
    classes = tuple(ClassResult(str(number), 1, 1.0, 1.0) for number in range(10))
    confusion = tuple(tuple(int(row == column) for column in range(10)) for row in range(10))
    figure = draw_confusion_matrix(Evaluation(1.0, (0.7, 1.0), 10, classes, confusion))
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert (axis.type, axis.dtick) == ("category", 1)


def value_of(params: Params) -> float:
    """Different for each point of the grid."""
    return sum(float(value) / 7.0**place for place, value in enumerate(params.values(), start=1)) / 2


def made_up(content: Mapping[str, object], points: Sequence[Params], importances: dict[str, float]) -> Overview:
    """A study whose cells are all complete."""
    spec = StudySpec.model_validate({"name": "made-up", **content})
    record = StudyRecord(1, "made-up", spec, (spec,), "synthetic", "0" * 64, INFO, 0, 0.0)
    cells = tuple(
        Cell(f"cell{n}", params, State.COMPLETE, value=value_of(params)) for n, params in enumerate(points)
    )  # fmt: skip
    counts = CellCounts(len(cells), 0, 0, 0, len(cells), len(cells), 0, 0, 0)
    return Overview(record, "", counts, 0.0, cells, (), None, None, (), importances, 0)


def grid(names: Sequence[str], importances: dict[str, float]) -> Overview:
    """A grid of some of the parameters."""
    chosen = {name: GRID[name] for name in names}
    points = [dict(zip(names, values, strict=True)) for values in itertools.product(*chosen.values())]
    return made_up({"grid": chosen}, points, importances)


def test_the_two_most_important_are_the_axes() -> None:
    """The third has the facets, and each square the best value over those that would make too many of them."""
    overview = grid("abcde", {"c": 0.6, "a": 0.3, "d": 0.05, "b": 0.03, "e": 0.02})
    figure, note = draw_heat_map(overview)
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("c", "a")
    assert [title.text for title in figure.layout.annotations] == ["d 1", "d 2", "d 3", "d 4"]
    assert note == "Each square is the best cell over b, e; the pointer tells which."
    for facet, trace in enumerate(figure.data, start=1):
        best = [[100 * value_of({"a": a, "b": 4, "c": c, "d": facet, "e": 2}) for a in GRID["a"]] for c in GRID["c"]]
        assert [list(row) for row in trace.z] == best


def test_every_cell_is_shown_where_facets_are_few() -> None:
    """A facet for each combination of the rest, in the order of importance, and nothing to be said."""
    figure, note = draw_heat_map(grid("abce", {"e": 0.5, "b": 0.3, "c": 0.2, "a": 0.0}))
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("e", "b")
    assert [title.text for title in figure.layout.annotations][:4] == [
        "c 1<br>a 1",
        "c 1<br>a 2",
        "c 1<br>a 3",
        "c 2<br>a 1",
    ]
    assert (len(figure.data), note) == (9, "")


def test_without_importances_the_file_says_the_axes() -> None:
    """The first two parameters, unless they are known better."""
    figure, note = draw_heat_map(grid("abc", {}))
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("a", "b")
    assert (len(figure.data), note) == (3, "")


def test_the_scale_stands_beside_a_facet_with_values() -> None:
    """Plotly draws none at a trace without a value, as where all cells of the first facet were cut."""
    overview = grid("abc", {})
    cells = [replace(cell, state=State.PRUNED) if cell.params["c"] == 1 else cell for cell in overview.cells]
    figure, _ = draw_heat_map(replace(overview, cells=tuple(cells)))
    (scaled,) = [trace for trace in figure.data if trace.showscale]
    assert any(value is not None for row in scaled.z for value in row)


def test_values_differ_in_colour_where_half_are_equal() -> None:
    """A fence of no width would give the worst one the colour of all others."""
    assert find_color_range([0.97, 0.98, 0.98, 0.98, 0.99]) == (0.97, 0.99)
    assert find_color_range([0.1, 0.96, 0.97, 0.98, 0.99])[0] == pytest.approx(0.96 - 1.5 * 0.02)


def test_equal_values_have_one_tick() -> None:
    """Plotly's own range about them goes on beyond 100 %."""
    overview = grid("abc", {})
    figure, _ = draw_parallel_coordinates(replace(overview, cells=tuple(replace(c, value=1.0) for c in overview.cells)))
    assert figure is not None
    assert figure.data[0].dimensions[-1].tickvals == (100.0,)


def search(names: Sequence[str], importances: dict[str, float]) -> Overview:
    """A random search over ranges, of nine cells."""
    points = [{name: 0.01 * (n + place) for place, name in enumerate(names)} for n in range(9)]
    space = {name: {"low": 0.0, "high": 1.0} for name in names}
    return made_up({"search": {"sampler": "random", "n_trials": 9}, "space": space}, points, importances)


def test_lines_go_through_seven_parameters_at_most() -> None:
    """The most important ones, in the order of the study file; the others are named below."""
    names = [f"p{n}" for n in range(20)]
    figure, note = draw_parallel_coordinates(search(names, {"p19": 0.7, "p7": 0.2}))
    assert figure is not None
    axes = [dimension.label for dimension in figure.data[0].dimensions]
    assert axes == ["p0", "p1", "p2", "p3", "p4", "p7", "p19", "val acc, %"]
    assert note.startswith("Without an axis, as less important: p5, p6, p8, ")


def test_a_search_has_twelve_slices_at_most() -> None:
    """The most important parameters first; the others are named below."""
    names = [f"p{n}" for n in range(20)]
    figure, note = draw_slices(search(names, {"p19": 0.7, "p7": 0.2}))
    assert figure is not None
    shown = [figure.layout[f"xaxis{place if place > 1 else ''}"].title.text for place in range(1, 13)]
    first = [name for name in names if name not in ("p7", "p19")]
    assert shown == ["p19", "p7", *first[:10]]
    assert "xaxis13" not in figure.layout
    assert note == f"Without a picture, as less important: {', '.join(first[10:])}."


def test_texts_at_the_lines_are_as_they_are() -> None:
    """Plotly takes nothing there for HTML, and would show `&lt;`; a long one is cut, and has the room that it takes."""
    values = ["<b>|x", "y" * 80]
    cells = tuple(Cell(f"cell{n}", {"a": a}, State.COMPLETE, value=0.1 * n) for n, a in enumerate(values))
    overview = replace(made_up({"grid": {"a": values}}, [], {}), cells=cells)
    figure, _ = draw_parallel_coordinates(replace(overview, cells=cells))
    assert figure is not None
    assert figure.data[0].dimensions[0].ticktext == ("<b>|x", "y" * 33 + "...")
    assert figure.layout.margin.l > 36 * 6


def attempt_of(accuracies: Sequence[float]) -> Attempt:
    """A complete trial that kept its last epoch."""
    epochs = tuple(Epoch(n, 1.0, value, 1.0, value, 1.0) for n, value in enumerate(accuracies))
    kept = TrialAttributes(best_epoch=len(epochs) - 1)
    return Attempt(1, 0, "c", {}, State.COMPLETE, accuracies[-1], kept, epochs=epochs)


def test_a_training_of_one_epoch_is_seen() -> None:
    """A line of one point is nothing: it has a dot, in the picture of a note and in both halves of the figure."""
    attempt = attempt_of([0.83])
    assert draw_learning_curve(attempt).count("<circle") == 2
    assert 'text-anchor="start">kept' in draw_learning_curve(attempt)
    figure, _ = draw_curves(replace(grid("ab", {}), attempts=(attempt,)))
    assert [trace.mode for trace in figure.data[:2]] == ["markers", "markers"]
    assert "<circle" not in draw_learning_curve(attempt_of([0.8, 0.83]))


@pytest.mark.parametrize(("value", "axis"), [(1.0, [95, 100]), (0.0, [0, 5]), (0.95, [90, 95])])
def test_equal_accuracies_stay_within_their_axis(value: float, axis: list[int]) -> None:
    """Where all are one of its marks, it goes to the mark below: no accuracy is beyond 100 %."""
    picture = draw_learning_curve(attempt_of([value, value]))
    assert [int(mark) for mark in re.findall(r'text-anchor="end">(\d+)<', picture)] == axis
