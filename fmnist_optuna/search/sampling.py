"""Which point a cell of a search has: of its seed and its number alone, but for what TPE suggests.

A search is accepted in stages: with more trials, a wider space, or further points to try first. Each cell belongs to
the stage that brought it, so what a later stage says changes no cell that is there.

Knows no study file, no Optuna, no database.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.search.cell import Params, Point, canonical_json
from fmnist_optuna.search.repeats import ONCE, Repeats
from fmnist_optuna.search.space import Space, point_at

Sampler = Literal["grid", "random", "tpe", "qmc"]
NO_POINT: Params = {}  # of a cell whose point is fixed when it is first claimed
TOLERANCE = 1e-9  # relative, between a float and the same computed elsewhere, by another logarithm


@dataclass(frozen=True)
class Stage:
    """A search as it was accepted at one time.

    Args:
        n_trials: Number of its points, those of earlier stages among them.
        space: What it samples.
        enqueued: Values to try first, of all stages so far; what they leave open is drawn.
        drawn_by: Version of SciPy that drew its points; "" where that is not known, or drew none.
    """

    n_trials: int
    space: Space
    enqueued: Sequence[Params] = ()
    drawn_by: str = ""


@dataclass(frozen=True)
class Search:
    """The cells of a search, by their numbers from 0.

    Args:
        sampler: Any but "grid".
        seed: Of all that is drawn.
        stages: As they were accepted, at least one; later ones have no fewer trials and enqueued points.
        repeats: Of each point, whose numbers follow one another.
    """

    sampler: Sampler
    seed: int
    stages: Sequence[Stage]
    repeats: Repeats = ONCE

    @property
    def n_cells(self) -> int:
        """Number of all cells."""
        return self.stages[-1].n_trials * self.repeats.n_cells

    def points(self, numbers: Iterable[int]) -> list[Point]:
        """The cells of some numbers, each with its point, or with none where TPE is still to suggest it."""
        return [Point(number_id(number), self.point(number), number) for number in numbers]

    def point(self, number: int) -> Params:
        """The parameters of a cell: its point, and which repeat it is; `NO_POINT` where TPE suggests the point."""
        place, repeat = divmod(number, self.repeats.n_cells)
        point = self._point_at(place)
        return point if point is NO_POINT else self.repeats.cell_of(point, repeat)

    def _point_at(self, number: int) -> Params:
        """The point of a number."""
        stage, given = self.find_stage(number), self.given(number)
        if self.sampler == "tpe" and given is None:
            return NO_POINT
        shares = self._sobol[number] if self.sampler == "qmc" else random_shares(self.seed, number, len(stage.space))
        return point_at(stage.space, list(shares), given or {})

    def find_stage(self, number: int) -> Stage:
        """The stage that brought a point."""
        return next(stage for stage in self.stages if number < stage.n_trials)

    def given(self, number: int) -> Params | None:
        """What a point is to be, if it was enqueued: the first ones of each stage are what that has enqueued."""
        n_cells = n_enqueued = 0
        for stage in self.stages:
            place = n_enqueued + number - n_cells
            if n_cells <= number < stage.n_trials:
                return stage.enqueued[place] if place < len(stage.enqueued) else None
            n_cells, n_enqueued = stage.n_trials, len(stage.enqueued)
        raise IndexError(number)

    @cached_property
    def _sobol(self) -> NDArray[np.float64]:
        return sobol_shares(self.seed, self.stages[-1].n_trials, len(self.stages[-1].space))


def number_id(number: int) -> str:
    """The id of the cell of a number: its point may not be known, and may be that of another cell too."""
    return hashlib.sha256(canonical_json({"number": number}).encode()).hexdigest()


def random_shares(seed: int, number: int, n_dimensions: int) -> NDArray[np.float64]:
    """Evenly spread, 0 <= share < 1, of seed and number alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number]))).random(n_dimensions)


def sobol_shares(seed: int, n_points: int, n_dimensions: int) -> NDArray[np.float64]:
    """The first points of a scrambled Sobol sequence, (n_points, n_dimensions); more points begin with the same."""
    from scipy.stats.qmc import Sobol  # takes 0.3 s, and few studies need it

    sequence = Sobol(n_dimensions, scramble=True, rng=np.random.default_rng(seed))
    return np.asarray(sequence.random_base2(math.ceil(math.log2(max(2, n_points)))))[:n_points]


def sequence_version() -> str:
    """Version of the SciPy here: another one may draw another sequence."""
    return version("scipy")


def suggestion_seed(seed: int, number: int) -> int:
    """What TPE draws with for a cell, 0 <= seed < 2**32."""
    return int.from_bytes(hashlib.sha256(f"tpe:{seed}:{number}".encode()).digest()[:4], "big")


def is_same_point(first: Params, second: Params) -> bool:
    """Whether two points are equal, but for the last digits of their floats."""
    if first.keys() != second.keys():
        return False
    return all(_is_same(first[name], second[name]) for name in first)


def _is_same(first: object, second: object) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=TOLERANCE)
    return canonical_json(first) == canonical_json(second)
