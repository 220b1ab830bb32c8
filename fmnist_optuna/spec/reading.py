"""From a study file, or from what is stored of one, to a StudySpec; what breaks a rule is told in one line."""

import codecs
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import Options
from fmnist_optuna.spec.space import SpaceKey
from fmnist_optuna.spec.study_names import NAME_PATTERN
from fmnist_optuna.spec.study_spec import PATTERN_RULES, StudySpec
from fmnist_optuna.wording import reason_of, shorten

LARGEST_FILE = 10_000_000  # bytes; a study file has a few hundred, one with a million values a few million
LONGEST_VALUE = 120  # characters of what came, in an error


def read_spec(path: Path) -> StudySpec:
    """Read and check a study file.

    Raises:
        SpecError: No such file, no TOML, or a key that breaks a rule: file, key, rule and value are named.
    """
    text = _read_text(path)
    try:
        return parse_spec(tomllib.loads(text), str(path))
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: must be TOML, but {error}.") from error


def _read_text(path: Path) -> str:
    """The text of a study file: UTF-8, with a byte order mark or without, lines ended as any system ends them."""
    example = "see `fmnist-optuna spec example`"
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # a ValueError: a path with a NUL
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else reason_of(error)
        raise SpecError(f"{path}: must be a readable study file, but {reason}; {example}.") from error
    if len(content) > LARGEST_FILE:
        raise SpecError(f"{path}: must be a study file, but has more than {LARGEST_FILE:,} bytes; {example}.")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise SpecError(f"{path}: must be UTF-8, but is UTF-16 or no text; save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{path}: must be UTF-8, but has byte 0x{content[error.start]:02x} in line {line}; save it as UTF-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_spec(content: Mapping[str, object], origin: str) -> StudySpec:
    """Check the content of a study file.

    Args:
        content: The tables, as `tomllib` reads them.
        origin: What errors name as the place, usually the file.

    Raises:
        SpecError: One rule is broken; the text names the first.
    """
    spec = restore_spec(content, origin)
    if "/" in spec.name:  # such a study is made by confirming another, never from a study file
        raise SpecError(f"{origin}: name {PATTERN_RULES[NAME_PATTERN]}, but got {spec.name!r}.")
    return spec


def restore_spec(content: Mapping[str, object], origin: str) -> StudySpec:
    """The specification of a study as it is stored; the same as `parse_spec`, what follows from another included."""
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{origin}: {_explain(error)}.") from error


def check_option(place: str, name: str, value: object) -> None:
    """Check a value that a grid gives to an option of the training.

    Args:
        place: Begins the error, such as "study mine: grid.".

    Raises:
        SpecError: It is outside its range.
    """
    try:
        Options.model_validate({name: value})
    except ValidationError as error:
        raise SpecError(f"{place}{_explain(error)}.") from error


def _explain(error: ValidationError) -> str:
    """The first error in one line: key, what must hold, what came."""
    first = error.errors()[0]
    path = [part for part in first["loc"] if str(part) not in ("bool", "int", "float", "str")]
    key = ".".join(str(part) for part in path if not isinstance(part, int))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}; known here: {', '.join(_known_keys(path))}"
    if first["type"] == "value_error":
        cause = str(first["ctx"]["error"])
        return f"{key}{' ' if cause.startswith('must') else '.'}{cause}" if key else cause
    came = "a table" if isinstance(first["input"], dict) else shorten(repr(first["input"]), LONGEST_VALUE)
    is_range = path[:1] == ["grid"] and len(path) > 1 and isinstance(first["input"], dict)
    advice = "; a range belongs in [space], beside a [search]" if is_range else ""
    return f"{key} {_rule(first)}, but got {came}{advice}"


def _rule(first: ErrorDetails) -> str:
    context = first.get("ctx", {})
    rules = {
        "literal_error": f"must be {context.get('expected')}",
        "greater_than_equal": f"must be at least {_write_bound(context.get('ge'))}",
        "less_than_equal": f"must be at most {_write_bound(context.get('le'))}",
        "string_pattern_mismatch": PATTERN_RULES.get(str(context.get("pattern")), "must have another form"),
        # What is tried first of a value that may be of several types, such as those of a grid.
        "bool_type": "must be numbers, strings or true / false" if "bool" in first["loc"] else "must be true or false",
        "int_type": "must be an integer",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "string_type": "must be a string",
        "string_too_long": f"must have at most {context.get('max_length')} characters",
        "tuple_type": "must be a list",
        "dict_type": "must be a table",
        "model_type": "must be a table",
        "model_attributes_type": "must be a table",
        "missing": "must be given",
    }
    return rules.get(str(first["type"]), f"is refused ({first['msg']})")


def _write_bound(bound: object) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _known_keys(path: Sequence[object]) -> list[str]:
    if path[0] == "space":
        return list(SpaceKey.model_fields)
    model: type[BaseModel] = StudySpec
    for part in path[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
