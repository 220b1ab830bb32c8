"""The user's code behind a study, as text: what a join compares, and what stands with the study afterwards.

Owns what counts as a difference. Reads no file and knows no Keras: `training.code` reads, `ledger.codes` stores.
"""

import ast
import difflib
import hashlib
import json
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

from fmnist_optuna.search.cell import Params, canonical_json

MAX_LINES = 20  # of a difference that is shown


@dataclass(frozen=True)
class CodeRecord:
    """Everything of the user's that decides what a cell trains.

    Args:
        sources: Text by name of every module of the user's that architecture and callbacks reach; a module without
            text has "sha256 <hex digits of its bytes>".
        settings: Keras' settings by name, as they are once the modules are imported.
        cell: The point of the grid that `model` is of.
        model: The compiled model's configuration, as JSON of one value a line, without names that Keras made up.
        keras: Version of the Keras that wrote the configuration.
    """

    sources: Mapping[str, str]
    settings: Mapping[str, str]
    cell: Params
    model: str
    keras: str

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, 64 hex digits, equal only for equal content."""
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()

    def pack(self) -> bytes:
        """The content as compressed JSON."""
        return zlib.compress(json.dumps(asdict(self)).encode())

    @classmethod
    def unpack(cls, packed: bytes) -> "CodeRecord":
        """The content from compressed JSON."""
        return cls(**json.loads(zlib.decompress(packed)))


def code_differences(stored: CodeRecord, given: CodeRecord) -> list[str]:
    """At most `MAX_LINES` lines in which two codes differ in anything that a program can do; none if they agree.

    Comments, docstrings and layout are no difference. Models are compared when both are of one cell and written by one
    version of Keras: another version writes the same model in other words, and the versions stand with each trial.
    """
    lines = [line for part in _compare(stored, given).values() for line in part]
    n_more = len(lines) - MAX_LINES
    return lines if n_more <= 0 else [*lines[:MAX_LINES], f"... and {n_more} more lines"]


def changed_parts(stored: CodeRecord, given: CodeRecord) -> list[str]:
    """Names of what differs: `module my_models`, `Keras' floatx`, `model of units 4`."""
    return list(_compare(stored, given))


def _compare(stored: CodeRecord, given: CodeRecord) -> dict[str, list[str]]:
    """Lines by the name of what differs."""
    parts: dict[str, list[str]] = {}
    for name in sorted(stored.sources.keys() | given.sources.keys()):
        title = f"module {name}"
        parts[title] = _source_differences(title, stored.sources.get(name), given.sources.get(name))
    for name in sorted(stored.settings.keys() | given.settings.keys()):
        then, now = stored.settings.get(name, "nothing"), given.settings.get(name, "nothing")
        title = f"Keras' {name}"
        parts[title] = [] if then == now else [f"{title}: the study has {then}, here it is {now}"]
    if not any(parts.values()) and (stored.cell, stored.keras) == (given.cell, given.keras):
        title = f"model of {', '.join(f'{name} {value}' for name, value in sorted(given.cell.items()))}"
        parts[title] = _diff(title, stored.model, given.model)
    return {title: lines for title, lines in parts.items() if lines}


def _source_differences(title: str, stored: str | None, given: str | None) -> list[str]:
    if stored is None:
        return [f"{title}: the study has none, here it is used"]
    if given is None:
        return [f"{title}: the study has it, here it is not used"]
    return [] if stored == given or _does_the_same(stored, given) else _diff(title, stored, given)


def _does_the_same(first: str, second: str) -> bool:
    try:
        return _read_meaning(first) == _read_meaning(second)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what cannot be read may do anything
        return False


def _read_meaning(source: str) -> str:
    """The program without comments, docstrings, layout and positions, as this Python reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that Python will refuse one day are not our business
        tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del node.body[0]
    return ast.dump(tree)


def _diff(title: str, stored: str, given: str) -> list[str]:
    then, now = stored.splitlines(), given.splitlines()
    return list(difflib.unified_diff(then, now, f"{title}, the study's", f"{title}, this run's", n=1, lineterm=""))
