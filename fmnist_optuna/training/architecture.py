"""From the name of an architecture to a compiled Keras model: "dense", or a user's "package.module:function"."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import OF_TRAINING, Params
from fmnist_optuna.spec.study_spec import Declared, StudySpec
from fmnist_optuna.training.contract import check_steps
from fmnist_optuna.training.dense import IMAGE_SHAPE, N_CLASSES, create_model
from fmnist_optuna.training.signature import read_signature
from fmnist_optuna.user_modules.functions import as_spec_error, load_function

N_PROBES = 4  # images of noise that a model is tried on
BATCH_TOLERANCE = 0.02  # of the largest output: half precision rounds otherwise in another batch


@dataclass(frozen=True)
class Architecture:
    """A function that returns a compiled model, and the parameters that it accepts.

    Args:
        name: As the study file has it.
        function: Takes the parameters by name.
        parameters: Declared type by name, as `Signature` has it.
        required: Names without a default.
        variable: Such as "**kwargs", which accept any name and so declare none; None without.
    """

    name: str
    function: Callable[..., keras.Model]
    parameters: dict[str, Declared]
    required: frozenset[str]
    variable: str | None = None


def load_architecture(name: str) -> Architecture:
    """Find an architecture by name; a user's module is imported.

    Raises:
        SpecError: The module or function does not exist, its import fails, or it cannot be called by name.
    """
    function = create_model if name == "dense" else load_function(name, "model.architecture")
    signature = read_signature(function, name)
    return Architecture(name, function, signature.parameters, signature.required, signature.variable)


def build_model(architecture: Architecture, spec: StudySpec, params: Params) -> keras.Model:
    """Call the architecture for one point of the grid.

    Args:
        params: The cell's parameters; those of the training are left out.

    Returns:
        A compiled model with its weights built, whose training the compiled epoch can take over from `fit`.

    Raises:
        SpecError: The function raises, or returns something else.
    """
    arguments = {**spec.model.arguments, **{name: value for name, value in params.items() if name not in OF_TRAINING}}
    call = f"{architecture.name}({', '.join(f'{name}={value!r}' for name, value in sorted(arguments.items()))})"
    with as_spec_error(f"model.architecture must return a model, but {call} raised"):
        model = architecture.function(**arguments)
    if not isinstance(model, keras.Model):
        raise SpecError(f"model.architecture must return a keras.Model, but {call} returned {type(model).__name__}.")
    if not model.compiled or model.optimizer is None:
        raise SpecError(f"model.architecture must return a compiled model, but {call} returned one without compile().")
    check_steps(model, call)
    _build_weights(model, architecture.name)
    _check_answers(model, architecture.name)
    if not model.trainable_weights:
        raise SpecError(f"model.architecture must return a model with weights to train, but {call} has none.")
    return model


def _build_weights(model: keras.Model, name: str) -> None:
    """Make the weights of a model that has none before its first call, as `fit` does: without running it."""
    if all(layer.built for layer in model._flatten_layers()):
        return
    try:
        model(keras.KerasTensor((None, *IMAGE_SHAPE), "uint8"), training=False)
    except Exception:  # its code may need to know how many images there are
        _call_model(model, name)


def _check_answers(model: keras.Model, name: str) -> None:
    """Refuse a model of another output, or one whose answer to an image depends on chance or on other images."""
    output, again = _call_model(model, name), _call_model(model, name)
    shape = tuple(getattr(output, "shape", ()))
    if shape != (N_PROBES, N_CLASSES):
        raise SpecError(f"{_rule(name)} gives {('n', *shape[1:]) if shape else type(output).__name__}.")
    if not np.array_equal(output, again, equal_nan=True):
        raise SpecError(
            "model.architecture must give the same answers to the same images outside of training, but "
            f"{name} gives others each time; leave dropout and noise to training=True."
        )
    together, alone = (_as_numbers(answers)[0] for answers in (output, _call_model(model, name, 1)))
    largest = np.abs(together[np.isfinite(together)]).max(initial=0.0)
    if not np.allclose(alone, together, rtol=0, atol=BATCH_TOLERANCE * largest, equal_nan=True):
        raise SpecError(
            "model.architecture must answer each image by itself outside of training, but the answers of "
            f"{name} depend on the other images of a batch; leave means over a batch to training=True."
        )


def _as_numbers(output: Any) -> NDArray[np.float64]:
    return np.asarray(keras.ops.convert_to_numpy(output), np.float64)


def _call_model(model: keras.Model, name: str, n_images: int = N_PROBES) -> Any:
    noise = np.random.default_rng(0).integers(0, 256, (n_images, *IMAGE_SHAPE), dtype=np.uint8)
    with as_spec_error(f"{_rule(name)} raised"):
        return model(noise, training=False)


def _rule(name: str) -> str:
    return f"model.architecture must take uint8 images (n, 28, 28) and give (n, {N_CLASSES}), but {name}"
