"""Whether a cell that was paused goes on as without a pause, tried out before a study that pauses its cells begins.

What a checkpoint cannot hold shows here: random numbers of `tf.random` within a graph, whose state no program can read,
variables of a module, or what a callback looks up elsewhere.
"""

import tempfile
from pathlib import Path

import numpy as np

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import Params
from fmnist_optuna.training.cell_training import begin_cell, go_on_with_cell
from fmnist_optuna.training.checkpoint import Identity
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.running_cell import CellTraining
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.user_modules.functions import as_spec_error
from fmnist_optuna.wording import format_params

N_EPOCHS = 2  # the pause is after the first
REMEDY = "use the pruner median (--pruner median), which pauses none"


def check_pause(code: UserCode, params: Params, seed: int, data: ResidentData) -> None:
    """Train a cell for two epochs, and again with a pause and a checkpoint after the first: the weights must be equal.

    The built-in architecture is not tried: the tests of this package do that.

    Raises:
        SpecError: They are not, or the cell cannot be stored or go on.
    """
    if not code.is_users:
        return
    rule = f"{code.architecture.name} must go on after a pause as without one, with {format_params(params)}"
    with as_spec_error(f"{rule}, but raised", "while it trains"):
        straight = _close_after(begin_cell(code, params, seed, data, []))
        paused = _close_after(_resume(code, params, seed, data, rule))
    different = [
        variable.path
        for variable, other in zip(straight.model.variables, paused.model.variables, strict=True)
        if np.asarray(variable.numpy()).tobytes() != np.asarray(other.numpy()).tobytes()
    ]
    if different:
        raise SpecError(
            f"{rule}, but {different[0]} is another then; draw random numbers by keras.random, and count in variables "
            f"of layers and attributes of callbacks, or {REMEDY}."
        )


def _close_after(cell: CellTraining) -> CellTraining:
    """Train a cell up to the last epoch of this check."""
    try:
        cell.run(N_EPOCHS)
    finally:
        cell.close()
    return cell


def _resume(code: UserCode, params: Params, seed: int, data: ResidentData, rule: str) -> CellTraining:
    """The cell stored after its first epoch, in a model that was built anew."""
    identity = Identity("rehearsal", seed, "", "")
    with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as folder:
        file = Path(folder) / "checkpoint"
        first = begin_cell(code, params, seed, data, [])
        try:
            first.run(1)
            first.save(file, identity)
        finally:
            first.close()
        cell = go_on_with_cell(code, params, data, [], identity, checkpoint=file)
    if cell.unusable:
        cell.close()
        raise SpecError(f"{rule}, but its checkpoint {cell.unusable}; {REMEDY}.")
    return cell
