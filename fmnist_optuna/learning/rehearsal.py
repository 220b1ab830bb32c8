"""A study tried out before it begins: what would fail every trial fails here."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from fmnist_optuna.errors import SpecError
from fmnist_optuna.grid import Cell, make_cells
from fmnist_optuna.learning.callbacks import Attempt, make_callbacks
from fmnist_optuna.learning.cell_training import build_cell
from fmnist_optuna.learning.engine import bind_loss
from fmnist_optuna.learning.functions import as_spec_error
from fmnist_optuna.learning.model import IMAGE_SHAPE, N_CLASSES
from fmnist_optuna.learning.user_code import UserCode
from fmnist_optuna.spec import StudySpec


def prepare_spec(spec: StudySpec) -> StudySpec:
    """Check a specification against its architecture and callbacks, with one build of the smallest cell.

    Returns:
        The specification with every value in its declared type.

    Raises:
        SpecError: Anything that would fail every trial.
    """
    code = UserCode(spec)
    bound = code.bind()
    params = smallest_cell(bound).params
    _check_output(build_cell(code, params, bound.training.seed), code.architecture.name)
    with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as folder:
        make_callbacks(code.callbacks, Attempt(0, params, Path(folder)))
    return bound


def smallest_cell(spec: StudySpec) -> Cell:
    """The cell with the smallest numbers: the cheapest to build."""
    numbers = (int, float)

    def size(cell: Cell) -> list[float]:
        return [float(value) if isinstance(value, numbers) else 0.0 for _, value in sorted(cell.params.items())]

    return min(make_cells(spec.grid), key=size)


def _check_output(model: keras.Model, name: str) -> None:
    images = np.zeros((2, *IMAGE_SHAPE), np.uint8)
    rule = f"model.architecture must take uint8 images (n, 28, 28) and give (n, {N_CLASSES}), but {name}"
    with as_spec_error(f"{rule} raised"):
        output = model(images, training=False)
        loss = float(bind_loss(model)(images, np.zeros(2, np.int32), output, True))
    shape = tuple(getattr(output, "shape", ()))
    if shape != (2, N_CLASSES):
        raise SpecError(f"{rule} gives {('n', *shape[1:]) if shape else type(output).__name__}.")
    if loss != loss:
        raise SpecError(f"{rule} has a loss of NaN on black images.")
