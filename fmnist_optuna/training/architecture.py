"""From the name of an architecture to a compiled model: one that is built in, or a user's "package.module:function"."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import OF_TRAINING, Params
from fmnist_optuna.spec.binding import Declared
from fmnist_optuna.spec.options import OPTION_TYPES
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.contract import check_steps
from fmnist_optuna.training.conv import create_conv
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.resnet import create_resnet
from fmnist_optuna.training.signature import read_signature
from fmnist_optuna.user_modules.functions import as_spec_error, load_function
from fmnist_optuna.wording import format_shape

BUILT_IN: Mapping[str, Callable[..., keras.Model]] = {
    "dense": create_model,
    "conv": create_conv,
    "resnet": create_resnet,
}
N_PROBES = 4  # images of noise that a model is tried on
HOLD_BYTES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64")  # types with room for 0 to 255
BATCH_TOLERANCE = 0.02  # of the largest output: half precision rounds otherwise in another batch


@dataclass(frozen=True)
class Architecture:
    """A function that returns a compiled model, and the parameters that it accepts.

    Args:
        name: As the study file has it.
        function: Takes the parameters by name.
        parameters: Declared type by name, as `Signature` has it.
        required: Names without a default.
        of_dataset: Names of the parameters that are given the study's DatasetInfo, whichever it is.
        variable: Such as "**kwargs", which accept any name and so declare none; None without.
    """

    name: str
    function: Callable[..., object]
    parameters: dict[str, Declared]
    required: frozenset[str]
    of_dataset: tuple[str, ...] = ()
    variable: str | None = None

    def takes(self, name: str) -> bool:
        """Whether a parameter of the grid is the function's; others are of the training."""
        return name not in OF_TRAINING and (name in self.parameters or name not in OPTION_TYPES)


def load_architecture(name: str) -> Architecture:
    """Find an architecture by name; a user's module is imported.

    Raises:
        SpecError: The module or function does not exist, its import fails, or it cannot be called by name.
    """
    function = BUILT_IN.get(name) or load_function(name, "model.architecture")
    signature = read_signature(function, name)
    return Architecture(
        name, function, signature.parameters, signature.required, signature.of_dataset, signature.variable
    )


def build_model(architecture: Architecture, spec: StudySpec, params: Params, info: DatasetInfo) -> keras.Model:
    """Call the architecture for one point of the grid.

    Args:
        params: The cell's parameters; those of the training are left out.
        info: Of the data that the model is for.

    Returns:
        A compiled model with its weights built, whose training the compiled epoch can take over from `fit`.

    Raises:
        SpecError: The function raises, or returns something else, such as a model for other images or classes.
    """
    arguments = {**spec.model.arguments, **{name: params[name] for name in params if architecture.takes(name)}}
    call = f"{architecture.name}({', '.join(f'{name}={value!r}' for name, value in sorted(arguments.items()))})"
    with as_spec_error(f"model.architecture must return a model, but {call} raised"):
        model = architecture.function(**arguments, **dict.fromkeys(architecture.of_dataset, info))
    if not isinstance(model, keras.Model):
        raise SpecError(f"model.architecture must return a keras.Model, but {call} returned {type(model).__name__}.")
    if not model.compiled or model.optimizer is None:
        raise SpecError(f"model.architecture must return a compiled model, but {call} returned one without compile().")
    check_steps(model, call)
    trial_call = _TrialCall(model, architecture.name, info)
    trial_call.build_weights()
    trial_call.check_input()
    trial_call.check_answers()
    if not model.trainable_weights:
        raise SpecError(f"model.architecture must return a model with weights to train, but {call} has none.")
    return model


@dataclass(frozen=True)
class _TrialCall:
    """A model that was just made, tried on images of noise.

    Args:
        name: Of its architecture, for errors.
        info: Of the data that it is for.
    """

    model: keras.Model
    name: str
    info: DatasetInfo

    def build_weights(self) -> None:
        """Make the weights of a model that has none before its first call, as `fit` does: without running it."""
        if all(layer.built for layer in self.model._flatten_layers()):
            return
        try:
            self.model(keras.KerasTensor((None, *self.info.image_shape), self.info.dtype), training=False)
        except Exception:  # its code may need to know how many images there are
            self._answer(N_PROBES)

    def check_input(self) -> None:
        """Refuse a model whose Input is for other images; that of a subclass is not known.

        Keras casts whatever comes to the type of an Input: bytes to floats without loss, but 0.9 to the integer 0. It
        also gives images a last axis of length 1, or takes it away.
        """
        inputs = getattr(self.model, "inputs", None) or []
        if len(inputs) != 1:
            return
        shape, dtype = inputs[0].shape[1:], keras.backend.standardize_dtype(inputs[0].dtype)
        is_kept = "float" in dtype or (self.info.dtype == "uint8" and dtype in HOLD_BYTES)
        if not is_kept or not _is_alike(shape, self.info.image_shape):
            raise SpecError(f"{self._rule()} takes {dtype} {format_shape(shape)}.")

    def check_answers(self) -> None:
        """Refuse a model of another output, or one whose answer to an image depends on chance or on other images."""
        output, again = self._answer(N_PROBES), self._answer(N_PROBES)
        shape = getattr(output, "shape", None)
        if shape is None or tuple(shape) != (N_PROBES, self.info.n_classes):
            came = type(output).__name__ if shape is None else format_shape(shape[1:])
            raise SpecError(f"{self._rule()} gives {came}.")
        if not np.array_equal(output, again, equal_nan=True):
            raise SpecError(
                "model.architecture must give the same answers to the same images outside of training, but "
                f"{self.name} gives others each time; leave dropout and noise to training=True."
            )
        together, alone = (_as_numbers(answers)[0] for answers in (output, self._answer(1)))
        largest = np.abs(together[np.isfinite(together)]).max(initial=0.0)
        if not np.allclose(alone, together, rtol=0, atol=BATCH_TOLERANCE * largest, equal_nan=True):
            raise SpecError(
                "model.architecture must answer each image by itself outside of training, but the answers of "
                f"{self.name} depend on the other images of a batch; leave means over a batch to training=True."
            )

    def _answer(self, n_images: int) -> tf.Tensor:
        noise = self.info.draw_noise(n_images)
        with as_spec_error(f"{self._rule()} raised"):
            return self.model(noise, training=False)

    def _rule(self) -> str:
        return (
            f"model.architecture must take {self.info.dtype} images {self.info.array_shape} and give "
            f"(n, {self.info.n_classes}), but {self.name}"
        )


def _is_alike(taken: Sequence[int | None], given: Sequence[int]) -> bool:
    """Whether an Input of one shape takes images of another: None is any length, a last axis of 1 may be missing."""
    lengths = [list(shape[:-1] if shape and shape[-1] == 1 else shape) for shape in (taken, given)]
    return len(lengths[0]) == len(lengths[1]) and all(one in (None, other) for one, other in zip(*lengths, strict=True))


def _as_numbers(output: tf.Tensor) -> NDArray[np.float64]:
    return np.asarray(keras.ops.convert_to_numpy(output), np.float64)
