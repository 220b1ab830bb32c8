"""The points of a search derived anew: from its seed and their numbers, or from what was known when TPE suggested."""

from dataclasses import dataclass

from fmnist_optuna.bridge.suggestion import OPTUNA, Suggester
from fmnist_optuna.ledger.progress import History
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.known import Known, KnownCell, KnownTexts, repeat_of
from fmnist_optuna.search.repeats import Repeats, known_points, place_of, point_of
from fmnist_optuna.search.sampling import NO_POINT, Search, is_same_point, number_id, sequence_version, suggestion_seed
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.stages import search_of
from fmnist_optuna.wording import count, format_params

UNCHECKED = "was suggested by another version of Optuna, or drawn by another one of SciPy"


@dataclass(frozen=True)
class FoundPoints:
    """What became of comparing points.

    Args:
        problems: One line for each cell that is missing, or whose point is not what its seed and number give.
        n_unchecked: Points of another version of Optuna, which may suggest others, or of SciPy, which has drawn others.
    """

    problems: tuple[str, ...] = ()
    n_unchecked: int = 0


def check_points(session: Session) -> FoundPoints:
    """Compare the points of the cells of a search; of a grid, whose points name their cells, only count repeats."""
    record = session.record
    if record.is_search and record.spec.search.is_grid and record.spec.repeats.n_cells > 1:
        return FoundPoints(tuple(_find_incomplete(session.history, record.spec.repeats)))
    if record.spec.search.is_grid or not record.is_search or not record.accepted:
        return FoundPoints()
    return _Check(session, search_of(record.accepted, record.drawn_by)).find_wrong()


def _find_incomplete(history: History, repeats: Repeats) -> list[str]:
    """A line for each point of a grid that has other repeats than it must have."""
    expected = [place_of(repeats.cell_of({}, place)) for place in range(repeats.n_cells)]
    of_each = [f"{name} 1 to {len(values)}" for name, values in repeats.axes.items()]
    problems = []
    for of_point in history.group(history.cells()):
        if [place_of(cell.params) for cell in of_point] != expected:
            names = [", ".join(f"{cell.params.get(name)}" for name in repeats.axes) for cell in of_point]
            point = format_params(point_of(of_point[0].params))
            problems.append(f"point {point}: must have {' and '.join(of_each)}, but has {'; '.join(names)}")
    return problems


class _Check:
    """One comparison.

    Args:
        search: As the study has accepted it.
    """

    def __init__(self, session: Session, search: Search) -> None:
        self._search = search
        before = session.points.read_fixed()
        self._cells = {cell.number: cell for cell in session.history.cells()}
        self._fixed = session.points.read_fixed()
        # Claimed between these looks, so that they may tell of different moments.
        self._moved = {number for number, text in self._fixed.items() if before.get(number) != text}
        self._done = {cell.number: cell for cell in session.points.read_known()[0] if cell.is_done}
        self._points = {number: cell.params for number, cell in self._cells.items() if cell.params}
        self._suggesters: dict[int, Suggester] = {}
        self._known = KnownTexts(self._fixed)
        self._drawn_here = sequence_version()

    def find_wrong(self) -> FoundPoints:
        """All that is wrong."""
        expected = range(self._search.n_cells)
        found = {number: self._check_cell(number) for number in expected}
        problems = [problem for problem in found.values() if problem not in (None, UNCHECKED)]
        if n_more := len(self._cells.keys() - set(expected)):
            problems.append(f"{count(n_more, 'cell')} of the study must be one of the search, but has no number of it")
        return FoundPoints(tuple(filter(None, problems)), list(found.values()).count(UNCHECKED))

    def _check_cell(self, number: int) -> str | None:
        """What is wrong with the cell of a number, in one line."""
        cell = self._cells.get(number)
        if cell is None or cell.cell_id != number_id(number):
            return f"cell {number} of the search is missing"
        problem = None if number in self._moved else self._check(number, cell.params)
        if problem in (None, UNCHECKED):
            return problem
        return f"cell {cell.cell_id[:8]} {format_params(cell.params)}: {problem}"

    def _check(self, number: int, params: Params) -> str | None:
        point, text = self._search.point(number), self._fixed.get(number)
        if point is not NO_POINT:
            if is_same_point(point, params):
                return None
            stage = self._search.find_stage(number // self._search.repeats.n_cells)
            # Of old stages it is not known what drew them, and so they must come out again.
            of_another = self._search.sampler == "qmc" and stage.drawn_by not in ("", self._drawn_here)
            return UNCHECKED if of_another else f"has not the point of its number, {format_params(point)}"
        if not params:
            return None if text is None else "says what its point rests on, but has none"
        if (first := number - number % self._search.repeats.n_cells) != number:
            return self._check_repeat(number, params, first, text)
        if text is None:
            return "does not say what its point rests on"
        try:
            known = self._known.read(number)
        except ValueError as error:
            return f"does not say what its point rests on: {error}"
        if known.optuna != OPTUNA:
            return UNCHECKED
        return self._check_suggestion(number, params, known)

    def _check_repeat(self, number: int, params: Params, first: int, text: str | None) -> str | None:
        """Whether a later repeat has the point of the first."""
        point = self._points.get(first)
        if point is None:
            return "has a point, which the first of its repeats has not"
        if text != repeat_of(first):
            return "does not say what its point rests on"
        is_right = is_same_point(self._search.repeats.cell_of(point, number - first), params)
        return None if is_right else f"has not the point of the first of its repeats, {format_params(point)}"

    def _check_suggestion(self, number: int, params: Params, known: Known) -> str | None:
        """Suggest the point once more by what was known."""
        cells = self._cells_of(known)
        if cells is None or not 0 <= known.stage < len(self._search.stages):
            return "says that its point rests on cells that are not there"
        repeats = self._search.repeats
        seed = suggestion_seed(self._search.seed, number // repeats.n_cells)
        point = self._suggester(known.stage).suggest(seed, known_points(cells, repeats.n_cells))
        suggested = repeats.cell_of(point, 0)
        is_right = is_same_point(suggested, params)
        return None if is_right else f"has not the point that was suggested, {format_params(suggested)}"

    def _suggester(self, stage: int) -> Suggester:
        if stage not in self._suggesters:
            self._suggesters[stage] = Suggester(self._search.stages[stage].space)
        return self._suggesters[stage]

    def _cells_of(self, known: Known) -> list[KnownCell] | None:
        """The cells as they were known; None if one of them is not what it then was."""
        named = {*known.done, *known.running, *(number for number, _, _ in known.climbing)}
        if not named <= self._points.keys() or not all(number in self._done for number in known.done):
            return None
        return [
            *(self._done[number] for number in known.done),
            *(
                KnownCell(number, self._points[number], "climbing", rung, value)
                for number, rung, value in known.climbing
            ),
            *(KnownCell(number, self._points[number], "running") for number in known.running),
        ]
