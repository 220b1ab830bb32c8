"""Which parameters a user's function accepts, and of which types. Imports no Keras."""

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import OF_TRAINING
from fmnist_optuna.spec.binding import Declared

PLAIN_TYPES = (bool, int, float, str)
UNRESOLVED_INFO = re.compile(rf"(\w+\.)*{DatasetInfo.__name__}( \| None)?")


@dataclass(frozen=True)
class Signature:
    """What a function accepts by name.

    Args:
        parameters: Declared type by name: bool, int, float or str, a tuple of the values that it may have, or None
            where the function declares none of these.
        required: Names without a default.
        of_dataset: Names of the parameters that are annotated as DatasetInfo; they are none of those above.
        variable: Such as "**kwargs", which accept any name and so declare none; None without.
    """

    parameters: dict[str, Declared]
    required: frozenset[str]
    of_dataset: tuple[str, ...] = ()
    variable: str | None = None


def read_signature(function: Callable[..., object], name: str) -> Signature:
    """Read the signature of a function, a class, a partial or a decorated function.

    Args:
        name: As the study file has it, for errors.

    Raises:
        SpecError: It has none, or must be given something that a study file cannot give or gives to the training too.
    """
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise SpecError(f"model.architecture must have a signature that can be read, but {name}: {error}.") from error
    accepted = {p.name: p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    namespace = _namespace(function)
    of_dataset = tuple(key for key, parameter in accepted.items() if _takes_info(parameter.annotation, namespace))
    for key in of_dataset:
        del accepted[key]
    required = frozenset(key for key, parameter in accepted.items() if parameter.default is parameter.empty)
    if nameless := [p.name for p in found if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]:
        raise SpecError(
            f"model.architecture must take its parameters by name, but {name} takes {', '.join(nameless)} by position "
            "only; remove the / from its parameters."
        )
    if shared := sorted(accepted.keys() & OF_TRAINING):  # one with a default too: it would not follow the training's
        raise SpecError(
            f"model.architecture must leave {', '.join(shared)} to the training, but {name} has a parameter of that "
            "name, and it is not clear whether a value would be meant for the function, for the training or for both; "
            "give the parameter another name."
        )
    return Signature(
        parameters={key: _declared(parameter.annotation, namespace) for key, parameter in accepted.items()},
        required=required,
        of_dataset=of_dataset,
        variable=next((f"**{p.name}" for p in found if p.kind is p.VAR_KEYWORD), None),
    )


def _namespace(function: Callable[..., object]) -> dict[str, object]:
    """Where the names in the annotations of a function mean what its author meant."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if inspect.isclass(function):
        function = inspect.unwrap(function.__init__)
    elif not hasattr(function, "__globals__"):  # an object that can be called
        function = inspect.unwrap(type(function).__call__)
    return dict(getattr(function, "__globals__", {}))


def _declared(annotation: object, namespace: dict[str, object]) -> Declared:
    """The type that an annotation declares; one that does not resolve says nothing about types."""
    return _simplify(_resolve(annotation, namespace))


def _takes_info(annotation: object, namespace: dict[str, object]) -> bool:
    """Whether a parameter is for the study's DatasetInfo, or for that or None."""
    hint = _resolve(annotation, namespace)
    if hint is None and isinstance(annotation, str):  # imported for a type checker alone, it does not resolve
        return UNRESOLVED_INFO.fullmatch(annotation) is not None
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set(typing.get_args(hint)) == {DatasetInfo, types.NoneType}
    return hint is DatasetInfo


def _resolve(annotation: object, namespace: dict[str, object]) -> object:
    """What an annotation means, each resolved by itself: one that cannot be says nothing of the others."""
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return typing.get_type_hints(holder, globalns=namespace)["value"]
    except Exception:
        return None


def _simplify(hint: object) -> Declared:
    if isinstance(hint, type) and hint in PLAIN_TYPES:
        return hint
    if typing.get_origin(hint) is Literal:
        values = tuple(value for value in typing.get_args(hint) if value is not None)  # a study file has no None
        return values if values and all(type(value) in PLAIN_TYPES for value in values) else None
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = {_simplify(part) for part in typing.get_args(hint) if part is not types.NoneType}
        return kinds.pop() if len(kinds) == 1 else None
    return None
