"""The user's Keras callbacks: made anew for every training run, and refused where the loop could not honour them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import Params
from fmnist_optuna.training.hooks import check_hooks
from fmnist_optuna.user_modules.functions import as_spec_error
from fmnist_optuna.user_modules.shared_state import refuse_used_callbacks

# Where Keras' own callbacks write, by class and attribute; what their subclasses add cannot be known.
PATH_ATTRIBUTES = (
    (keras.callbacks.BackupAndRestore, "backup_dir"),
    (keras.callbacks.CSVLogger, "filename"),
    (keras.callbacks.ModelCheckpoint, "filepath"),
    (keras.callbacks.OrbaxCheckpoint, "directory"),
    (keras.callbacks.TensorBoard, "log_dir"),
)


@dataclass(frozen=True)
class CallbackArguments:
    """What a function that makes callbacks may ask for, by these names.

    Args:
        trial: Number of the trial, 0-based.
        params: Of the cell.
        folder: Empty, and of this attempt alone.
    """

    trial: int
    params: Params
    folder: Path


def make_callbacks(
    functions: Mapping[str, Callable[..., object]], arguments: CallbackArguments
) -> list[keras.callbacks.Callback]:
    """Fresh callbacks of the user's functions, for one training run.

    Args:
        functions: By their names in the study file.

    Raises:
        SpecError: A function raises, asks for something else, or returns no Keras callbacks, or some that an earlier
            trial had, that have a hook which is not called, or that write outside the folder.
    """
    callbacks: list[keras.callbacks.Callback] = []
    for name, function in functions.items():
        made = _call(function, name, arguments)
        group: list[keras.callbacks.Callback] = []
        for each in made if isinstance(made, list | tuple) else [made]:
            callback = _as_callback(each, name)
            check_hooks(callback, name)
            _refuse_shared_path(callback, name, arguments.folder)
            group.append(callback)
        refuse_used_callbacks(group, name)
        callbacks += group
    return callbacks


def _call(function: Callable[..., object], name: str, arguments: CallbackArguments) -> object:
    offered = {"trial": arguments.trial, "params": dict(arguments.params), "folder": arguments.folder}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # of some functions written in C
        parameters = []
    taken = {p.name for p in parameters if p.kind in by_name and p.name in offered}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if others := [
        p.name for p in parameters if p.default is p.empty and p.kind not in variadic and p.name not in taken
    ]:
        raise SpecError(
            f"training.callbacks must name functions that take trial, params and folder at most, but {name} also "
            f"needs {', '.join(others)}."
        )
    with as_spec_error(f"training.callbacks must return a callback, but {name} raised"):
        return function(**{key: offered[key] for key in taken})


def _as_callback(callback: object, name: str) -> keras.callbacks.Callback:
    if isinstance(callback, keras.callbacks.CallbackList):
        raise SpecError(
            f"training.callbacks must return callbacks in a list, but {name} returned a CallbackList, which Keras "
            "makes itself."
        )
    if not isinstance(callback, keras.callbacks.Callback):
        raise SpecError(
            f"training.callbacks must return keras.callbacks.Callback, or a list of them, empty for none, but {name} "
            f"returned {type(callback).__name__}."
        )
    return callback


def _refuse_shared_path(callback: keras.callbacks.Callback, name: str, folder: Path) -> None:
    """Refuse one of Keras' own callbacks that writes where another attempt writes too, or reads what it left."""
    for kind, attribute in PATH_ATTRIBUTES:
        path = getattr(callback, attribute, None)
        if not isinstance(callback, kind) or path is None:
            continue
        if not Path(path).resolve().is_relative_to(folder.resolve()):
            does = "go on from" if kind is keras.callbacks.BackupAndRestore else "write to"
            raise SpecError(
                f"training.callbacks must write into the folder of their own attempt, but {name} returned "
                f"{type(callback).__name__} with {attribute} {str(path)!r}, which another attempt would {does} too; "
                f"let the function take the folder, def {name.partition(':')[2]}(folder), and use "
                f"folder / {Path(path).name!r}."
            )
