"""From the name of an architecture to a compiled Keras model: "dense", or a user's "package.module:function"."""

import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from fmnist_optuna.errors import SpecError
from fmnist_optuna.grid import OF_TRAINING, Cell, Params, make_cells
from fmnist_optuna.learning.model import IMAGE_SHAPE, N_CLASSES, create_model
from fmnist_optuna.spec import StudySpec, bind_parameters

DECLARED_TYPES = (bool, int, float, str)


@dataclass(frozen=True)
class Architecture:
    """A function that returns a compiled model, and the parameters that it accepts.

    Args:
        name: As the study file has it.
        function: Takes the parameters by name.
        parameters: Declared type by name; None where the function declares none of bool, int, float, str.
        required: Names without a default.
    """

    name: str
    function: Callable[..., keras.Model]
    parameters: dict[str, type | None]
    required: frozenset[str]


def load_architecture(name: str) -> Architecture:
    """Find an architecture by name; a user's module is imported.

    Raises:
        SpecError: The module or function does not exist, or its import fails.
    """
    function = create_model if name == "dense" else load_function(name, "model.architecture")
    signature = inspect.signature(function)
    hints = _type_hints(function)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    accepted = {p.name: p for p in signature.parameters.values() if p.kind in named}
    return Architecture(
        name=name,
        function=function,
        parameters={key: hints.get(key) for key in accepted},
        required=frozenset(key for key, parameter in accepted.items() if parameter.default is parameter.empty),
    )


def load_function(name: str, key: str) -> Callable[..., Any]:
    """Import a function by "package.module:function".

    Args:
        key: Key of the study file that names it, for errors.

    Raises:
        SpecError: There is no such module or function, or the import fails.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise SpecError(f"{key} must name an importable module, but {module_name}: {_describe(error)}.") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SpecError(f"{key} must name a function, but module {module_name} has no function {function_name}.")
    return typing.cast(Callable[..., Any], function)


def build_model(architecture: Architecture, spec: StudySpec, params: Params) -> keras.Model:
    """Call the architecture for one point of the grid.

    Args:
        params: The cell's parameters; those of the training are left out.

    Returns:
        A compiled model with its weights built.

    Raises:
        SpecError: The function raises, or returns something that is not a compiled Keras model.
    """
    arguments = {**spec.model.arguments, **{name: value for name, value in params.items() if name not in OF_TRAINING}}
    call = f"{architecture.name}({', '.join(f'{name}={value!r}' for name, value in sorted(arguments.items()))})"
    try:
        model = architecture.function(**arguments)
    except Exception as error:
        raise SpecError(f"model.architecture must return a model, but {call} raised {_describe(error)}.") from error
    if not isinstance(model, keras.Model):
        raise SpecError(f"model.architecture must return a keras.Model, but {call} returned {type(model).__name__}.")
    if not model.compiled or model.optimizer is None:
        raise SpecError(f"model.architecture must return a compiled model, but {call} returned one without compile().")
    return model


def prepare_spec(spec: StudySpec) -> StudySpec:
    """Check a specification against its architecture and callbacks, with one build of the smallest cell.

    Returns:
        The specification with every value in its declared type.

    Raises:
        SpecError: Anything that would fail every trial.
    """
    architecture = load_architecture(spec.model.architecture)
    bound = bind_parameters(spec, architecture.parameters, architecture.required)
    model = build_model(architecture, bound, smallest_cell(bound).params)
    _check_output(model, architecture.name)
    load_callbacks(bound)
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
    try:
        output = model(images, training=False)
        loss = float(model.compute_loss(x=images, y=np.zeros(2, np.int32), y_pred=output))
    except Exception as error:
        raise SpecError(f"{rule} raised {_describe(error)}.") from error
    shape = tuple(getattr(output, "shape", ()))
    if shape != (2, N_CLASSES):
        raise SpecError(f"{rule} gives {('n', *shape[1:]) if shape else type(output).__name__}.")
    if loss != loss:
        raise SpecError(f"{rule} has a loss of NaN on black images.")


def load_callbacks(spec: StudySpec) -> list[keras.callbacks.Callback]:
    """Fresh callbacks of the user's functions, for one training run.

    Raises:
        SpecError: A function does not return Keras callbacks, or one has a batch hook: the epoch runs inside the graph.
    """
    callbacks: list[keras.callbacks.Callback] = []
    for name in spec.training.callbacks:
        try:
            made = load_function(name, "training.callbacks")()
        except SpecError:
            raise
        except Exception as error:
            raise SpecError(
                f"training.callbacks must return a callback, but {name} raised {_describe(error)}."
            ) from error
        for callback in made if isinstance(made, list | tuple) else [made]:
            if not isinstance(callback, keras.callbacks.Callback):
                raise SpecError(
                    f"training.callbacks must return keras.callbacks.Callback, but {name} "
                    f"returned {type(callback).__name__}."
                )
            _refuse_batch_hook(callback, name)
            callbacks.append(callback)
    return callbacks


def _refuse_batch_hook(callback: keras.callbacks.Callback, name: str) -> None:
    if "epoch" in (getattr(callback, "save_freq", None), getattr(callback, "update_freq", None)):
        return  # Keras' ModelCheckpoint and TensorBoard: their batch hooks do nothing then
    for hook in ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"):
        # Keras marks its own empty hooks so that it need not call them.
        if not getattr(getattr(callback, hook), "_is_default", False):
            raise SpecError(
                f"training.callbacks must have epoch hooks only, as batches run inside the graph, but {name} "
                f"returned {type(callback).__name__} with {hook}."
            )


def _type_hints(function: Callable[..., Any]) -> dict[str, type]:
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # annotations that do not resolve say nothing about types
        hints = {}
    return {name: hint for name, hint in hints.items() if hint in DECLARED_TYPES}


def _describe(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
