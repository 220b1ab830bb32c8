"""What a user's function accepts: read from its signature, whatever it is written like."""

import functools
import os
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, Union

import pytest

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.binding import bind_parameters
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.training.signature import read_signature


def as_strings(lr: "float", units: "int | None" = None, other: "Unknown" = 1) -> "keras.Model": ...  # type: ignore[name-defined]  # noqa: F821


def plain(
    lr: float | None,
    a: Optional[int],  # noqa: UP045
    b: Annotated[str, "x"],
    *,
    c: Union[bool, None] = None,  # noqa: UP007
    d: int | float = 0,
) -> None: ...


def choices(
    act: Literal["relu", "gelu"], n: Literal[1, 2] | None = None, e: list[int] | None = None, f: str | int = 0
) -> None: ...


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Net:
    def __init__(self, lr: "float", units: int = 8) -> None: ...

    def __call__(self, depth: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "parameters", "required"),
    [
        (as_strings, {"lr": float, "units": int, "other": None}, {"lr"}),
        (plain, {"lr": float, "a": int, "b": str, "c": bool, "d": None}, {"lr", "a", "b"}),
        (choices, {"act": ("relu", "gelu"), "n": (1, 2), "e": None, "f": None}, {"act"}),
        (wrapped(plain), {"lr": float, "a": int, "b": str, "c": bool, "d": None}, {"lr", "a", "b"}),
        (functools.partial(as_strings, units=3), {"lr": float, "units": int, "other": None}, {"lr"}),
        (functools.partial(as_strings, 0.1), {"units": int, "other": None}, set()),
        (Net, {"lr": float, "units": int}, {"lr"}),
        (Net(0.1), {"depth": int}, {"depth"}),
        (lambda lr, *args, units=32: None, {"lr": None, "units": None}, {"lr"}),
        (lambda a=1, /, lr=0.1: None, {"lr": None}, set()),
    ],
)
def test_each_kind_of_function_is_read(
    function: Callable[..., Any], parameters: dict[str, Any], required: set[str]
) -> None:
    """Names, types and what must be given, through None, Annotated, strings, partials, classes and decorators."""
    signature = read_signature(function, "m:build")
    assert (dict(signature.parameters), set(signature.required), signature.variable) == (parameters, required, None)


def for_data(lr: float, about: DatasetInfo, other: "DatasetInfo | None" = None, dataset: str = "x") -> None: ...


def checked(lr: "float", about: "package.DatasetInfo | None") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def other_kinds(infos: list[DatasetInfo], either: DatasetInfo | int = 0) -> None: ...


@pytest.mark.parametrize(
    ("function", "of_dataset", "parameters"),
    [
        (for_data, ("about", "other"), {"lr": float, "dataset": str}),
        (functools.partial(for_data, 0.1), ("about", "other"), {"dataset": str}),
        (checked, ("about",), {"lr": float}),
        (other_kinds, (), {"infos": None, "either": None}),
    ],
)
def test_a_dataset_info_is_no_parameter_of_a_grid(
    function: Callable[..., Any], of_dataset: tuple[str, ...], parameters: dict[str, Any]
) -> None:
    """What is annotated as DatasetInfo is given by the study, also where only a type checker imports the name."""
    signature = read_signature(function, "m:build")
    assert (signature.of_dataset, signature.parameters) == (of_dataset, parameters)
    assert not signature.required & set(of_dataset)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda lr, /: None, "m:build takes lr by position only"),
        (lambda lr, batch_size: None, "must leave batch_size to the training, but m:build has a parameter of"),
        (lambda lr, batch_size=64: None, "for both; give the parameter another name\\.$"),
        (lambda training_seed: None, "must leave training_seed to the training"),
        (os.stat_result.__class__, "must have a signature that can be read"),
    ],
)
def test_what_has_two_readings_is_refused(function: Callable[..., Any], words: str) -> None:
    """The parameter is named, and what to do."""
    with pytest.raises(SpecError, match=words):
        read_signature(function, "m:build")


def bind(function: Callable[..., Any], grid: dict[str, list[Any]], **fixed: Any) -> dict[str, Any]:
    """The grid of a study with the types of a function."""
    spec = parse_spec({"grid": grid, "model": {"architecture": "m:build", **fixed}}, "test")
    signature = read_signature(function, "m:build")
    return dict(bind_parameters(spec, signature.parameters, signature.required, signature.variable).grid)


def test_values_get_what_the_function_declares() -> None:
    """Numbers become those of the declared type; choices are the function's own."""
    assert bind(plain, {"lr": [1], "a": [64.0], "b": ["x"], "c": [True]}) == {
        "lr": (1.0,), "a": (64,), "b": ("x",), "c": (True,)
    }  # fmt: skip
    assert [type(value) for value in bind(plain, {"lr": [1], "a": [64.0], "b": ["x"]})["a"]] == [int]
    assert bind(choices, {"act": ["gelu", "relu"], "n": [2.0]}) == {"act": ("gelu", "relu"), "n": (2,)}


@pytest.mark.parametrize(
    ("function", "grid", "words"),
    [
        (plain, {"lr": ["0.1"], "a": [1], "b": ["x"]}, "grid.lr must be float, but got '0.1'"),
        (plain, {"lr": [0.1], "a": [1.5], "b": ["x"]}, "grid.a must be int, but got 1.5"),
        (plain, {"lr": [0.1], "a": [True], "b": ["x"]}, "grid.a must be int, but got True"),
        (plain, {"lr": [0.1], "a": [1], "b": ["x"], "c": [1]}, "grid.c must be bool, but got 1"),
        (choices, {"act": ["tanh"]}, "grid.act must be one of 'relu', 'gelu', but got 'tanh'"),
        (choices, {"act": ["relu"], "n": [True]}, "grid.n must be one of 1, 2, but got True"),
        (lambda **kw: None, {"lr": [0.1]}, r"accepts none by name; its \*\*kw would take a misspelt name"),
        (lambda lr: None, {"lr": [0.1], "rl": [0.1]}, "m:build, which accepts lr; a grid may have"),
    ],
)  # fmt: skip
def test_other_values_and_names_are_refused(
    function: Callable[..., Any], grid: dict[str, list[Any]], words: str
) -> None:
    """In words that say which reading failed."""
    with pytest.raises(SpecError, match=words):
        bind(function, grid)


def test_a_fixed_batch_size_is_the_trainings() -> None:
    """[model] batch_size is no parameter of the function."""
    with pytest.raises(SpecError, match=r"model\.batch_size must be a parameter of m:build, which accepts lr\."):
        bind(lambda lr: None, {"lr": [0.1]}, batch_size=8)
