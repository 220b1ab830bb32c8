"""What `fmnist_optuna` exports: all that its functions give, take and raise."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from functools import cached_property

import pytest

import fmnist_optuna
from fmnist_optuna import FmnistOptunaError, errors

# Their methods are for the package itself and for Optuna.
OTHERS = {"StudySpec", "LadderPruner"}
# Records of the tables within what is exported, which has what a program needs of them as properties.
INNER = {"Attempt", "Opening", "Facts"}
OF_SIGNALS = {"InterruptedBySignalError"}  # only commands catch signals
RAISED = re.compile(r"^ {4}([A-Z]\w+): ", re.MULTILINE)


def members(name: str) -> Iterator[object]:
    """A public function; or what a public class has that can be called or read, itself included."""
    thing: object = getattr(fmnist_optuna, name)
    yield thing
    if inspect.isclass(thing) and name not in OTHERS:
        for key, found in vars(thing).items():
            if not key.startswith("_"):
                yield found


def getter(member: object) -> object:
    """The function, or the record, that has the annotations of a member."""
    if isinstance(member, property):
        return member.fget
    if isinstance(member, cached_property):
        return member.func
    return member.__func__ if isinstance(member, classmethod | staticmethod) else member


def classes_in(annotation: object) -> Iterator[type]:
    """Each class of ours that an annotation names."""
    if isinstance(annotation, type) and annotation.__module__.startswith("fmnist_optuna"):
        yield annotation
    for part in typing.get_args(annotation):
        yield from classes_in(part)


def annotations_of(member: object) -> list[object]:
    """Of a function's arguments and result, or of a record's fields."""
    if inspect.isfunction(member):
        signature = inspect.signature(member)
        return [*(each.annotation for each in signature.parameters.values()), signature.return_annotation]
    if inspect.isclass(member) and dataclasses.is_dataclass(member):
        return [field.type for field in dataclasses.fields(member)]
    return []


@pytest.mark.parametrize("name", fmnist_optuna.__all__)
def test_what_a_signature_names_is_exported(name: str) -> None:
    """A program can import the class of whatever it gives or gets."""
    named = {
        found.__name__
        for member in members(name)
        for annotation in annotations_of(getter(member))
        for found in classes_in(annotation)
    }
    assert named - INNER - set(fmnist_optuna.__all__) == set()


@pytest.mark.parametrize("name", fmnist_optuna.__all__)
def test_what_is_said_to_be_raised_is_exported(name: str) -> None:
    """A program can import every error that a docstring names, to catch it."""
    for member in members(name):
        _, _, raised = (inspect.getdoc(getter(member)) or "").partition("\nRaises:\n")
        assert set(RAISED.findall(raised.partition("\n\n")[0])) <= set(fmnist_optuna.__all__)


def test_every_error_is_exported() -> None:
    """But that of a signal, which no program meets."""
    ours = {
        name for name, found in vars(errors).items() if inspect.isclass(found) and issubclass(found, FmnistOptunaError)
    }
    assert ours - OF_SIGNALS == ours & set(fmnist_optuna.__all__)
    assert ours >= OF_SIGNALS


def test_a_public_name_is_where_it_is_said_to_be() -> None:
    """Each is loaded from the module that has it, when it is used; the list is in order."""
    assert list(fmnist_optuna.__all__) == sorted(fmnist_optuna.__all__)
    assert all(getattr(fmnist_optuna, name).__name__ == name for name in fmnist_optuna.__all__)
