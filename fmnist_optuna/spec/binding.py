"""A specification against what its architecture accepts, which is told as plain types: names and values."""

from collections.abc import Container, Mapping

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import BATCH_SIZE, MAX_INTEGER, OF_TRAINING, Params, canonical_json
from fmnist_optuna.search.space import point_with
from fmnist_optuna.spec.idle_options import check_partners
from fmnist_optuna.spec.options import OF_PIXELS, OF_TEACHER, OPTION_TYPES, AugmentSpec, check_pixels
from fmnist_optuna.spec.reading import check_option
from fmnist_optuna.spec.space import SpaceKey, check_enqueued, to_space
from fmnist_optuna.spec.study_spec import ModelSpec, StudySpec
from fmnist_optuna.spec.values import Value

Declared = type | tuple[bool | int | float | str, ...] | None  # of a parameter: a type, its possible values, or nothing


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
        The same specification with grid or space and fixed arguments coerced (64.0 becomes 64 for an int, 0 becomes 0.0
        for a float).

    Raises:
        SpecError: An unknown parameter, a missing one, or a value of the wrong type.
    """
    known: dict[str, Declared] = {**OPTION_TYPES, **parameters, **dict.fromkeys(OF_TRAINING, int)}
    for place, names in ((spec.searched, spec.axes), ("model", spec.model.arguments)):
        for name in names:
            _check_name(spec, place, name, parameters, variable)
    _check_required(spec, required)
    fixed = {
        name: _coerce(f"study {spec.name}: model.{name}", value, known[name])
        for name, value in spec.model.arguments.items()
    }
    bound = spec.model_copy(update=_bind_grid(spec, known) if spec.search.is_grid else _bind_space(spec, known))
    for name in bound.axes.keys() & OPTION_TYPES.keys() - parameters.keys():
        for value in bound.axes[name]:
            check_option(f"study {spec.name}: {spec.searched}.", name, value)
    _check_schedules(bound, parameters)
    check_partners(bound, parameters)
    model = ModelSpec.model_validate({"architecture": spec.model.architecture, **fixed})
    return bound.model_copy(update={"model": model})


def check_sides(spec: StudySpec, height: int, width: int, parameters: Container[str]) -> None:
    """Check that pictures are large enough for what is to be done to them in any cell.

    Args:
        spec: Bound.
        height: Of the pictures, in pixels.
        width: The same.
        parameters: Names that the architecture's function accepts.

    Raises:
        SpecError: They are not.
    """
    for name in OF_PIXELS:
        given: list[tuple[str, Value]] = [("augment", getattr(spec.augment, name))]
        if name in spec.axes and name not in parameters:
            given = given if name in spec.space and spec.space[name].when else []
            given += [(spec.searched, value) for value in spec.axes[name]]
        for place, value in given:
            if not isinstance(value, str):
                check_pixels(f"study {spec.name}: {place}", name, value, height, width)


def _check_required(spec: StudySpec, required: frozenset[str]) -> None:
    """Whether every parameter without a default has a value in every cell."""
    if missing := sorted(required - set(spec.axes) - set(spec.model.arguments)):
        raise SpecError(
            f"study {spec.name}: {', '.join(missing)} must be given in [{spec.searched}] or [model], "
            f"as {spec.model.architecture} has no default for it."
        )
    if idle := sorted(name for name in required & spec.space.keys() if spec.space[name].when):
        raise SpecError(
            f"study {spec.name}: space.{idle[0]} must be there whatever else is, without a `when`, "
            f"as {spec.model.architecture} has no default for it."
        )


def _check_schedules(spec: StudySpec, parameters: Mapping[str, Declared]) -> None:
    """Whether every schedule has epochs left to fall in after the longest warm-up that may come with it."""
    axes = {name: values for name, values in spec.axes.items() if name not in parameters}
    warmups = [float(value) for value in axes.get("warmup_epochs", ()) if not isinstance(value, str)]
    longest: Params = {"warmup_epochs": max(warmups)} if warmups else {}
    for given in (longest, *({**longest, "schedule": value} for value in axes.get("schedule", ()))):
        params = point_with(spec.dimensions, given) if spec.space else given
        options, n_epochs = spec.options_of(params, parameters), spec.training.max_epochs
        if options.schedule != "constant" and options.warmup_epochs >= n_epochs:
            place = spec.searched if params.get("warmup_epochs") == options.warmup_epochs else "training"
            raise SpecError(
                f"study {spec.name}: {place}.warmup_epochs must be less than training.max_epochs, {n_epochs}, with "
                f'schedule = "{options.schedule}", whose rate would never fall, but got {options.warmup_epochs:g}.'
            )


def _bind_grid(spec: StudySpec, known: Mapping[str, Declared]) -> dict[str, object]:
    grid = {
        name: tuple(_coerce(f"study {spec.name}: grid.{name}", value, known[name]) for value in values)
        for name, values in spec.grid.items()
    }
    return {"grid": grid}


def _bind_space(spec: StudySpec, known: Mapping[str, Declared]) -> dict[str, object]:
    """Every value of the space, of its conditions and of the points to try first in the type of its parameter."""
    space: dict[str, SpaceKey] = {}
    for name, key in spec.space.items():
        place, declared = f"study {spec.name}: space.{name}", known[name]
        if not key.choices and (isinstance(declared, tuple) or declared in (bool, str)):
            rule = f"one of {', '.join(map(repr, declared))}" if isinstance(declared, tuple) else declared.__name__
            raise SpecError(f"{place} must have choices, as each is to be {rule}, but has a range.")
        changed: dict[str, object] = {
            part: _coerce(f"{place}.{part}", value, declared)
            for part in ("low", "high", "step")
            if (value := getattr(key, part)) is not None
        }
        changed["choices"] = tuple(_coerce(place, value, declared) for value in key.choices)
        changed["when"] = {
            other: tuple(_coerce(f"{place}.when.{other}", value, known[other]) for value in values)
            for other, values in key.when.items()
        }
        space[name] = key.model_copy(update=changed)
    enqueued = tuple(
        {name: _coerce(f"study {spec.name}: enqueue.{name}", value, known[name]) for name, value in given.items()}
        for given in spec.enqueue
    )
    try:
        check_enqueued(to_space(space), enqueued)
    except ValueError as error:
        raise SpecError(f"study {spec.name}: {error}.") from error
    return {"space": space, "enqueue": enqueued}


def _check_name(
    spec: StudySpec, place: str, name: str, parameters: Mapping[str, Declared], variable: str | None
) -> None:
    architecture = spec.model.architecture
    if place != "model" and name in OF_TEACHER - parameters.keys() and not spec.training.teacher:
        raise SpecError(
            f"study {spec.name}: {place}.{name} must go with a training.teacher, but the study has none; name the "
            "study to learn from, or remove the key."
        )
    if name in parameters or (place != "model" and (name in OF_TRAINING or name in OPTION_TYPES)):
        return
    accepted = ", ".join(sorted(parameters)) or "none"
    named = (
        ""
        if variable is None
        else (
            f" by name; its {variable} would take a misspelt name as well, so write each parameter out (a decorator "
            "keeps those of its function by functools.wraps)"
        )
    )
    raise SpecError(
        f"study {spec.name}: {place}.{name} must be a parameter of {architecture}, which accepts "
        f"{accepted}{named}{_where_else(place, name)}."
    )


def _where_else(place: str, name: str) -> str:
    """Which other names there are in a grid or a space, or in which table an option of the training belongs."""
    if place != "model":
        return f"; a {place} may have {BATCH_SIZE} and the options of [training] and [augment] as well"
    if name in OPTION_TYPES:
        return f"; give it in [{'augment' if name in AugmentSpec.model_fields else 'training'}]"
    return ""


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
