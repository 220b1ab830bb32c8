"""Options of the training that do nothing, as no cell has what they belong to."""

from collections.abc import Callable, Container, Mapping, Sequence

from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import TrainingOptions
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.spec.values import Value

# Of each: the option that it belongs to, what that must be, and whether a value of that is so.
PARTNERS: Mapping[str, tuple[str, str, Callable[[Value], bool]]] = {
    "momentum": ("optimizer", 'optimizer = "sgd"', lambda value: value == "sgd"),
    "learning_rate_floor": ("schedule", 'a schedule other than "constant"', lambda value: value != "constant"),
    "ema_after": ("ema", "an ema above 0", lambda value: value != 0),
    "teacher_temperature": ("teacher_weight", "a teacher_weight above 0", lambda value: value != 0),
}


def check_partners(spec: StudySpec, taken: Container[str]) -> None:
    """Refuse to search over an option that does nothing: all its cells would train the same net.

    Args:
        taken: Names of the architecture's parameters, which mean those.

    Raises:
        SpecError: Such an option has several values.
    """
    for name, (partner, rule, works) in PARTNERS.items():
        is_searched = name in spec.axes and name not in taken and len(set(spec.axes[name])) > 1
        if is_searched and not any(map(works, _values_of(spec, partner, taken))):
            raise SpecError(
                f"study {spec.name}: {spec.searched}.{name} must go with {rule}, but no cell has that, and all its "
                f"values would train the same net; give {partner}, or remove the key."
            )


def describe_idle(spec: StudySpec) -> str | None:
    """Which options of a study do nothing, in some cells or in all; None where each does something.

    Args:
        spec: Bound. Where its architecture is the user's own, parameters of these names may be that one's.
    """
    notes = []
    for name, (partner, rule, works) in PARTNERS.items():
        is_searched = name in spec.axes and not spec.model.is_own
        is_given = is_searched or getattr(spec.training, name) != TrainingOptions.model_fields[name].default
        values = [*_values_of(spec, partner, ()), *([getattr(spec.training, partner)] if spec.model.is_own else [])]
        if is_given and not any(map(works, values)):
            notes.append(f"{spec.searched if is_searched else 'training'}.{name} does nothing, as no cell has {rule}")
        elif is_searched and len(spec.grid.get(name, ())) > 1 and not all(map(works, values)):
            notes.append(f"cells without {rule} are the same for all values of grid.{name}")
    return "; ".join(notes) or None


def _values_of(spec: StudySpec, name: str, taken: Container[str]) -> Sequence[Value]:
    """The values of an option that cells have, or both ends of their range."""
    fixed: Value = getattr(spec.training, name)
    if name not in spec.axes or name in taken:
        return [fixed]
    is_optional = name in spec.space and bool(spec.space[name].when)
    return [*spec.axes[name], *([fixed] if is_optional else [])]
