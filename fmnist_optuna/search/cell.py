"""The grid as numbers: its points, the identity of their cells, the seed of its training.

Knows no study file, no Keras, no Optuna, no database.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fmnist_optuna.errors import SpecError

ParamValue = bool | int | float | str
Params = Mapping[str, ParamValue]
Grid = Mapping[str, Sequence[ParamValue]]

MAX_INTEGER = 2**53  # Optuna keeps parameters as float64, exact for integers up to here
MAX_FLOAT = 1e300  # distributions have fixed ends, and float64 ends soon after
LEARNING_RATES = (1e-12, 1e6)  # the same for learning rates, whose distribution is logarithmic
LEARNING_RATE = "learning_rate"
BATCH_SIZE = "batch_size"
TRAINING_SEED = "training_seed"  # sets runs of one model apart, and nothing else
VALIDATION_FOLD = "validation_fold"  # of training images, from 1, by which a cell is validated; in no grid of a file
OF_TRAINING = frozenset({BATCH_SIZE, TRAINING_SEED, VALIDATION_FOLD})  # parameters that are not the architecture's


def canonical_json(value: object) -> str:
    """JSON with sorted names and no spaces, in which an integral float and the integer are one (0.0 is written 0)."""
    return json.dumps(_normalise(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _normalise(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INTEGER:
        return int(value)
    if isinstance(value, Mapping):
        return {name: _normalise(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normalise(item) for item in value]
    return value


@dataclass(frozen=True)
class Point:
    """A cell to be: of a grid its id is the SHA-256 of the canonical JSON of its parameters.

    Args:
        params: Empty where they are not known before the cell is claimed.
        number: Within a search that is no grid, of which alone the id then is; None of a grid.
    """

    cell_id: str
    params: Params
    number: int | None = None


def make_point(params: Params) -> Point:
    """Give parameters their identity: 0 and 0.0 are one, the order of names is of no account."""
    return Point(hashlib.sha256(canonical_json(params).encode()).hexdigest(), params)


def make_points(grid: Grid) -> list[Point]:
    """All points of a grid, parameters in the grid's order, the last one's values running fastest."""
    names = list(grid)
    combinations = itertools.product(*(grid[name] for name in names))
    return [make_point(dict(zip(names, values, strict=True))) for values in combinations]


def newest_grid_with(params: Params, grids: Sequence[Grid]) -> int:
    """Index of the newest of the accepted grids that has this point.

    Raises:
        SpecError: None has it.
    """
    for index in reversed(range(len(grids))):
        grid = grids[index]
        if grid.keys() == params.keys() and all(params[name] in values for name, values in grid.items()):
            return index
    raise SpecError(f"A cell must be a point of an accepted grid, but {dict(params)} is of none.")


def trial_seed(study_seed: int, cell_id: str) -> int:
    """Seed of a cell's training, 0 <= seed < 2**32: of the study's seed and the cell alone, so that neither worker
    nor order nor the number of workers matters."""
    return int.from_bytes(hashlib.sha256(f"{study_seed}:{cell_id}".encode()).digest()[:4], "big")


def decode_params(text: str) -> Params:
    """Parameters from the JSON that the ledger keeps."""
    params: Params = json.loads(text)
    return params
