"""What of a model's initial values depends on the seed: a confirmation over fresh seeds must start from fresh ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import Params
from fmnist_optuna.training.cell_training import build_cell
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.user_modules.shared_state import hash_value

N_NAMED = 4  # layers in one message


@dataclass(frozen=True)
class InitialValue:
    """One variable of a model before its training.

    Args:
        layer: The layer that it is of.
        is_random_state: Whether random numbers are drawn from it.
        is_weight: Whether it is trained and its numbers differ from one another: zeros and ones depend on no seed.
        digest: Hash of the value.
    """

    layer: str
    is_random_state: bool
    is_weight: bool
    digest: str


class InitialValues(keras.callbacks.Callback):
    """Notes the values with which a training begins."""

    def __init__(self) -> None:
        super().__init__()
        self.values: tuple[InitialValue, ...] = ()

    def on_train_begin(self, logs: object = None) -> None:
        """Read them."""
        self.values = read_initial_values(self.model)


def read_initial_values(model: keras.Model) -> tuple[InitialValue, ...]:
    """Every variable of a model that was just built."""
    random = {
        id(generator.state): layer.name for layer in model._flatten_layers() for generator in layer._seed_generators
    }
    own = f"{model.name}/"  # which begins the paths in it
    return tuple(
        _read(variable, random.get(id(variable)), variable.path.removeprefix(own)) for variable in model.variables
    )


def _read(variable: keras.Variable, drawing_layer: str | None, path: str) -> InitialValue:
    value = variable.numpy()
    return InitialValue(
        layer=drawing_layer or path.rpartition("/")[0] or path,
        is_random_state=drawing_layer is not None,
        is_weight=bool(variable.trainable and value.size and np.any(value != value.flat[0])),
        digest=hash_value(variable),
    )


@dataclass(frozen=True)
class FixedParts:
    """What of a model is the same under two seeds.

    Args:
        name: Of the architecture.
        weights: Layers whose initial weights are the same.
        random_states: Layers that draw the same random numbers.
        is_all: Whether no layer's initial weights differ, though there are some.
    """

    name: str
    weights: tuple[str, ...]
    random_states: tuple[str, ...]
    is_all: bool

    def describe(self) -> str | None:
        """One line for a person, or None where everything follows the seed."""
        if self.is_all:
            return (
                f"{self.name} gives the same initial weights under every seed, so that fresh seeds would confirm "
                f"nothing and `confirm` would refuse it; {_REMEDY}."
            )
        parts = [
            *([f"the same initial weights in {_list(self.weights)}"] if self.weights else []),
            *([f"the same random numbers in {_list(self.random_states)}"] if self.random_states else []),
        ]
        if not parts:
            return None
        return f"{self.name} gives {' and '.join(parts)} under every seed, so that fresh seeds vary less; {_REMEDY}."


_REMEDY = "leave seeds to the study: no set_random_seed and no seed= in the function, and weights drawn in it by Keras"
_UNSEEDED = "so that no trial can be reproduced; draw numbers by Keras, random or np.random, which each trial seeds"


def _list(names: Sequence[str]) -> str:
    more = [f"{len(names) - N_NAMED} more"] if len(names) > N_NAMED else []
    return ", ".join([*names[:N_NAMED], *more])


def find_fixed_parts(name: str, first: Sequence[InitialValue], second: Sequence[InitialValue]) -> FixedParts:
    """Compare the values of one cell's model under two seeds.

    Models of different variables have nothing in common that could be named.
    """
    is_one_model = [value.layer for value in first] == [value.layer for value in second]
    pairs = list(zip(first, second, strict=True)) if is_one_model else []
    weights = [(then, now) for then, now in pairs if then.is_weight or now.is_weight]
    equal = [then for then, now in weights if then.digest == now.digest]
    states = [then for then, now in pairs if then.is_random_state and then.digest == now.digest]
    return FixedParts(
        name=name,
        weights=_distinct(value.layer for value in equal),
        random_states=_distinct(value.layer for value in states),
        is_all=bool(weights) and len(equal) == len(weights),
    )


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def compare_seeds(code: UserCode, cells: Sequence[tuple[Params, int, int]]) -> FixedParts | None:
    """Build cells under two seeds each; the first whose model has a part that no seed changes, worst first.

    Args:
        cells: Parameters and two seeds, each.

    Raises:
        SpecError: A model cannot be built.
    """
    found: list[FixedParts] = []
    for params, *seeds in cells:
        first, second = (read_initial_values(build_cell(code, params, seed)) for seed in seeds)
        fixed = find_fixed_parts(code.architecture.name, first, second)
        if fixed.is_all:
            return fixed
        found += [fixed] if fixed.describe() else []
    return found[0] if found else None


def describe_unseeded(code: UserCode, params: Params, seed: int) -> str | None:
    """One line for a person if the model of a cell begins otherwise under one and the same seed; None if it does not.

    Raises:
        SpecError: The model cannot be built.
    """
    first, second = (read_initial_values(build_cell(code, params, seed)) for _ in range(2))
    if [value.layer for value in first] != [value.layer for value in second]:
        return f"{code.architecture.name} gives other layers each time it is called, {_UNSEEDED}."
    changed = _distinct(then.layer for then, now in zip(first, second, strict=True) if then.digest != now.digest)
    if not changed:
        return None
    return f"{code.architecture.name} gives other initial values in {_list(changed)} under the same seed, {_UNSEEDED}."


def refuse_fixed_weights(code: UserCode, cells: Sequence[tuple[Params, int, int]]) -> str | None:
    """Refuse a confirmation whose seeds would start from equal weights.

    A model whose initial weights are all zeros or ones is let through: there is nothing to draw. Weights that the
    function loads are refused, as they cannot be told from those of a fixed seed.

    Returns:
        A warning where only a part of the model is the same under every seed.

    Raises:
        SpecError: No initial weight depends on the seed.
    """
    fixed = compare_seeds(code, cells)
    if fixed is not None and fixed.is_all:
        raise SpecError(
            f"model.architecture must start from fresh weights for each seed of a confirmation, but {fixed.name} gives "
            f"the same under every seed; {_REMEDY}."
        )
    return None if fixed is None else fixed.describe()
