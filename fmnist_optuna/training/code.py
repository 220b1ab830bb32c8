"""Reads the user's code behind a study: sources, Keras' settings, and the model of one cell."""

import json
import re
from collections.abc import Mapping

import keras

from fmnist_optuna.search.cell import Params
from fmnist_optuna.spec.code import CodeRecord
from fmnist_optuna.training.cell_training import build_cell
from fmnist_optuna.training.numerics import read_keras_settings
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.user_modules.sources import read_sources

SEED = 0  # of the build that is described: initializers and layers may keep what they draw in their configuration
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")


def read_code(code: UserCode, cell: Params) -> CodeRecord:
    """Read the code as it is now, with one build of a cell's model.

    Args:
        cell: The point of the grid to describe the model of.

    Raises:
        SpecError: The model cannot be built.
    """
    model = build_cell(code, cell, SEED)
    named = [code.spec.model.architecture, *code.spec.training.callbacks]
    record = CodeRecord(
        sources=read_sources([name.partition(":")[0] for name in named if ":" in name]),
        settings=read_keras_settings(),
        cell=dict(cell),
        model=describe_model(model),
        keras=keras.__version__,
    )
    del model
    code.end()
    return record


def describe_model(model: keras.Model) -> str:
    """A compiled model as JSON, one value a line, the same in every process that builds the same model.

    A model that cannot say what it is made of is described by its layers' classes and its weights.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception as error:  # whatever a layer of the user's lacks
        config = {"class_name": type(model).__name__, "not described": type(error).__name__}
    optimizer = None if model.optimizer is None else type(model.optimizer).__name__
    weights = [[list(weight.shape), str(weight.dtype), bool(weight.trainable)] for weight in model.weights]
    layers = [type(layer).__name__ for layer in model._flatten_layers()]
    content = {"config": _Canonical().walk(config), "optimizer": optimizer, "layers": layers, "weights": weights}
    return json.dumps(content, indent=1, sort_keys=True, default=lambda value: type(value).__name__)


class _Canonical:
    """Rewrites a configuration without what differs from process to process.

    Names that number the objects of a process (`dense_3`) become numbers in order of appearance, which keeps what
    refers to what; objects' ids, addresses and the bytecode of lambdas go.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def walk(self, value: object) -> object:
        if isinstance(value, Mapping):
            if value.get("class_name") == "__lambda__":
                return "a lambda"  # its text stands in the source
            return {
                str(key): self._number(item) if key == "name" and isinstance(item, str) else self.walk(item)
                for key, item in value.items()
                if key != "shared_object_id"
            }
        if isinstance(value, list | tuple):
            # [layer, node, tensor] is where a tensor comes from.
            is_origin = len(value) == 3 and [type(item) for item in value] == [str, int, int]
            return [self._number(item) if is_origin and item is value[0] else self.walk(item) for item in value]
        return ADDRESS.sub("", value) if isinstance(value, str) else value

    def _number(self, name: str) -> str:
        base = re.sub(r"_\d+$", "", name)
        return f"{base} #{self._numbers.setdefault(name, len(self._numbers))}"
