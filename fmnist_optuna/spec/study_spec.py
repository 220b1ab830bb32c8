"""StudySpec: what a study searches, read from a TOML study file and checked to the last value.

Owns the study file's format and its errors. Knows no Keras, no Optuna, no database; what an architecture accepts
is told to it as plain types.
"""

import codecs
import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from fmnist_optuna.errors import SpecError
from fmnist_optuna.json_value import Json
from fmnist_optuna.search.cell import (
    BATCH_SIZE,
    LEARNING_RATES,
    MAX_FLOAT,
    MAX_INTEGER,
    OF_TRAINING,
    TRAINING_SEED,
    Params,
    canonical_json,
)

Value = StrictBool | StrictInt | StrictFloat | StrictStr
Declared = type | tuple[bool | int | float | str, ...] | None  # of a parameter: a type, its possible values, or nothing

LARGEST_FILE = 10_000_000  # bytes; a study file has a few hundred, one with a million values a few million
MAX_CELLS = 1_000_000  # a grid beyond it is a typing error, and would fill the memory before anything is said
CONFIRMATION = "/confirm"  # ends the name of a study that confirms another; names that users give have no slash
NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}({CONFIRMATION})?$"
ARCHITECTURE_PATTERN = r"^(dense|[\w.]+:\w+)$"
CALLBACK_PATTERN = r"^[\w.]+:\w+$"
SOURCE_PATTERN = r"^(auto|fashion-mnist|synthetic|[\w.]+:\w+)$"
PATTERN_RULES = {
    NAME_PATTERN: "must be letters, digits, dots, dashes and underscores, at most 100, the first a letter or digit",
    ARCHITECTURE_PATTERN: 'must be "dense" or "package.module:function"',
    CALLBACK_PATTERN: 'must be "package.module:function"',
    SOURCE_PATTERN: 'must be "auto", "fashion-mnist", "synthetic" or "package.module:function"',
}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSpec(_Table):
    """Which data, and how the training images are split; `n_validation` images are held out, stratified by label.

    How many images may be held out depends on how many there are: it is known once they are read.
    """

    source: StrictStr = Field(default="auto", pattern=SOURCE_PATTERN)
    n_validation: StrictInt = Field(default=12_000, ge=2, le=MAX_INTEGER)
    split_seed: StrictInt = Field(default=0, ge=0, le=2**32 - 1)

    @property
    def is_own(self) -> bool:
        """Whether the source is a function of the user's own."""
        return ":" in self.source


class ModelSpec(BaseModel):
    """The architecture, "dense" or "package.module:function", and its fixed arguments as further keys."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Value] = Field(init=False)
    architecture: StrictStr = Field(default="dense", pattern=ARCHITECTURE_PATTERN)

    @property
    def arguments(self) -> Params:
        """Fixed arguments of the architecture's function, by name."""
        return dict(self.__pydantic_extra__ or {})


class TrainingSpec(_Table):
    """One training run: images a batch, cap on epochs, epochs without a better val_accuracy before it stops."""

    batch_size: StrictInt = Field(default=32, ge=1, le=MAX_INTEGER)
    max_epochs: StrictInt = Field(default=30, ge=1, le=100_000)
    patience: StrictInt = Field(default=5, ge=1, le=100_000)
    seed: StrictInt = Field(default=0, ge=0, le=2**32 - 1)
    callbacks: tuple[Annotated[StrictStr, Field(pattern=CALLBACK_PATTERN)], ...] = ()


class PrunerSpec(_Table):
    """Optuna's MedianPruner with its arguments, or "none". The defaults are the outcome of benchmarks/pruning.py."""

    name: Literal["median", "none"] = "median"
    n_startup_trials: StrictInt = Field(default=6, ge=0)
    n_warmup_steps: StrictInt = Field(default=0, ge=0)
    interval_steps: StrictInt = Field(default=1, ge=1)
    n_min_trials: StrictInt = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _none_takes_no_arguments(self) -> "PrunerSpec":
        given = sorted(self.model_fields_set - {"name"})
        if self.name == "none" and given:
            raise ValueError(f'must not be given with name = "none"; remove {", ".join(given)}')
        return self

    @model_serializer(mode="wrap")
    def _leave_out_arguments_of_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {"name": "none"} if self.name == "none" else serialize(self)


class ConfirmSpec(_Table):
    """How many of the best cells are confirmed, over how many fresh seeds."""

    top: StrictInt = Field(default=3, ge=1, le=1000)
    seeds: StrictInt = Field(default=5, ge=2, le=1000)


def _default_grid() -> dict[str, tuple[Value, ...]]:
    return {"hidden_size": (64, 128, 256), "dropout_rate": (0.2, 0.3, 0.5), "learning_rate": (0.01, 0.001, 0.0001)}


class StudySpec(_Table):
    """A whole study file. Every table is optional; the defaults are the 27-cell dense grid on Fashion-MNIST."""

    name: StrictStr = Field(default="fashion-mnist", pattern=NAME_PATTERN)
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    grid: dict[str, tuple[Value, ...]] = Field(default_factory=_default_grid)
    training: TrainingSpec = TrainingSpec()
    pruner: PrunerSpec = PrunerSpec()
    confirm: ConfirmSpec = ConfirmSpec()

    @field_validator("grid")
    @classmethod
    def _check_grid(cls, grid: dict[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
        if not grid:
            raise ValueError("must name at least one parameter, but is empty")
        for name, values in grid.items():
            _check_values(name, values)
        n_cells = math.prod(len(values) for values in grid.values())
        if n_cells > MAX_CELLS:
            raise ValueError(f"must have at most {MAX_CELLS:,} cells, but has {n_cells:,}")
        return grid

    @model_validator(mode="after")
    def _check_arguments(self) -> "StudySpec":
        for name, value in self.model.arguments.items():
            if name in self.grid:
                raise ValueError(f"{name} must be in [grid] or in [model], but is in both")
            try:
                _check_values(name, (value,))
            except ValueError as error:
                raise ValueError(f"model.{error}") from error
        return self

    def fixed_part(self) -> dict[str, Json]:
        """What every run of a study must agree on: all but the name, the grid (it may grow) and the confirmation."""
        return self.model_dump(mode="json", exclude={"name", "grid", "confirm"})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the whole specification."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


def _check_values(name: str, values: tuple[Value, ...]) -> None:
    if not values:
        raise ValueError(f"{name} must have at least one value, but is empty")
    if len({type(value) if isinstance(value, bool | str) else float for value in values}) > 1:
        raise ValueError(f"{name} must be all numbers, all strings or all true / false, but is {list(values)}")
    seen: set[str] = set()
    for value in values:
        _check_value(name, value)
        identity = canonical_json(value)
        if identity in seen:
            raise ValueError(f"{name} must have distinct values, but {value!r} is there twice")
        seen.add(identity)


def _check_value(name: str, value: Value) -> None:
    rule: str | None = None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, float) and not math.isfinite(value):
        rule = "be finite"
    elif is_number and isinstance(value, int) and abs(value) > MAX_INTEGER:
        rule = "be at most 2**53 in size"
    elif is_number and abs(float(value)) > MAX_FLOAT:
        rule = f"be at most {MAX_FLOAT:g} in size"
    elif name == "learning_rate" and not (is_number and LEARNING_RATES[0] <= float(value) <= LEARNING_RATES[1]):
        rule = f"be from {LEARNING_RATES[0]:g} to {LEARNING_RATES[1]:g}"
    elif name == "dropout_rate" and not (is_number and 0 <= float(value) < 1):
        rule = "be at least 0 and less than 1"
    elif name in ("hidden_size", BATCH_SIZE) and not (is_number and float(value) >= 1 and float(value).is_integer()):
        rule = "be an integer of at least 1"
    elif name == TRAINING_SEED and not (is_number and float(value) >= 0 and float(value).is_integer()):
        rule = "be an integer of at least 0"
    if rule:
        raise ValueError(f"{name} must {rule}, but got {value!r}")


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
        reason = (
            "there is no such file"
            if isinstance(error, FileNotFoundError)
            else getattr(error, "strerror", None) or error
        )
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
    if spec.name.endswith(CONFIRMATION):  # such a study is made by confirming another, never from a study file
        raise SpecError(f"{origin}: name {PATTERN_RULES[NAME_PATTERN]}, but got {spec.name!r}.")
    return spec


def restore_spec(content: Mapping[str, object], origin: str) -> StudySpec:
    """The specification of a study as it is stored; the same as `parse_spec`, confirmations included."""
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{origin}: {_explain(error)}.") from error


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
    came = first["input"] if not isinstance(first["input"], dict) else "a table"
    return f"{key} {_rule(first)}, but got {came!r}"


def _rule(first: ErrorDetails) -> str:
    context = first.get("ctx", {})
    rules = {
        "literal_error": f"must be {context.get('expected')}",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "string_pattern_mismatch": PATTERN_RULES.get(str(context.get("pattern")), "must have another form"),
        "int_type": "must be an integer",
        "string_type": "must be a string",
        "tuple_type": "must be a list",
        "dict_type": "must be a table",
        "model_type": "must be a table",
        "model_attributes_type": "must be a table",
        "missing": "must be given",
    }
    if str(first["type"]) in ("bool_type", "float_type"):
        return "must be numbers, strings or true / false"
    return rules.get(str(first["type"]), f"is refused ({first['msg']})")


def _known_keys(path: Sequence[object]) -> list[str]:
    model: type[BaseModel] = StudySpec
    for part in path[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)


def bind_parameters(
    spec: StudySpec, parameters: Mapping[str, Declared], required: frozenset[str], variable: str | None = None
) -> StudySpec:
    """Check a specification against what its architecture accepts and give every value its declared type.

    Args:
        parameters: Names that the architecture's function accepts, each with its declared type (bool, int, float or
            str) or its possible values, or None where it declares none.
        required: Names without a default.
        variable: Such as "**kwargs", if the function has them.

    Returns:
        The same specification with grid and fixed arguments coerced (64.0 becomes 64 for an int, 0 becomes 0.0 for a
        float).

    Raises:
        SpecError: An unknown parameter, a missing one, or a value of the wrong type.
    """
    known: dict[str, Declared] = {**parameters, **dict.fromkeys(OF_TRAINING, int)}
    for place, names in (("grid", spec.grid), ("model", spec.model.arguments)):
        for name in names:
            _check_name(spec, place, name, parameters, variable)
    if missing := sorted(required - set(spec.grid) - set(spec.model.arguments)):
        raise SpecError(
            f"study {spec.name}: {', '.join(missing)} must be given in [grid] or [model], "
            f"as {spec.model.architecture} has no default for it."
        )
    grid = {
        name: tuple(_coerce(f"study {spec.name}: grid.{name}", value, known[name]) for value in values)
        for name, values in spec.grid.items()
    }
    fixed = {
        name: _coerce(f"study {spec.name}: model.{name}", value, known[name])
        for name, value in spec.model.arguments.items()
    }
    model = ModelSpec.model_validate({"architecture": spec.model.architecture, **fixed})
    return spec.model_copy(update={"grid": grid, "model": model})


def _check_name(
    spec: StudySpec, place: str, name: str, parameters: Mapping[str, Declared], variable: str | None
) -> None:
    architecture = spec.model.architecture
    if name in OF_TRAINING and name in parameters:
        raise SpecError(
            f"study {spec.name}: {place}.{name} must have one meaning, but it would be the training's and that of the "
            f"parameter {name} of {architecture}; give the parameter another name."
        )
    if name in (parameters if place == "model" else parameters.keys() | OF_TRAINING):
        return
    accepted = ", ".join(sorted(parameters.keys() | ({BATCH_SIZE} if place == "grid" else set()))) or "none"
    named = (
        ""
        if variable is None
        else (
            f" by name; its {variable} would take a misspelt name as well, so write each parameter out (a decorator "
            "keeps those of its function by functools.wraps)"
        )
    )
    raise SpecError(
        f"study {spec.name}: {place}.{name} must be a parameter of {architecture}, which accepts {accepted}{named}."
    )


def _coerce(place: str, value: Value, declared: Declared) -> Value:
    if isinstance(declared, tuple):
        for choice in declared:
            if canonical_json(choice) == canonical_json(value):
                return choice
        raise SpecError(f"{place} must be one of {', '.join(map(repr, declared))}, but got {value!r}.")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if declared is float and is_number:
        return float(value)
    if declared is int and is_number and float(value).is_integer() and abs(float(value)) <= MAX_INTEGER:
        return int(value)
    if declared is None or (declared in (bool, str) and isinstance(value, declared)):
        return value
    raise SpecError(f"{place} must be {declared.__name__}, but got {value!r}.")


def differences(stored: Mapping[str, object], given: Mapping[str, object]) -> list[str]:
    """Lines `key: stored, now given` for every leaf in which two specifications differ."""
    flat_stored, flat_given = _flatten(stored), _flatten(given)
    absent = "nothing"
    return [
        f"{key}: the study has {flat_stored.get(key, absent)}, this run {flat_given.get(key, absent)}"
        for key in sorted(flat_stored.keys() | flat_given.keys())
        if flat_stored.get(key, absent) != flat_given.get(key, absent)
    ]


def _flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    leaves: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = canonical_json(value)
    return leaves
