"""The form in which a study keeps its specification, and how forms of earlier versions become the present one."""

from collections.abc import Callable, Mapping

SPEC_VERSION = 1
# From a version to the next one. A key that goes, or gets another meaning, is what a new version is for.
UPGRADES: Mapping[int, Callable[[dict[str, object]], dict[str, object]]] = {}


def upgrade_spec(content: dict[str, object], version: object) -> dict[str, object]:
    """A stored specification in the present form.

    Args:
        content: As it was stored.
        version: Of the form that it was stored in, 1 or more.

    Raises:
        ValueError: The version is none that is known here.
    """
    if not isinstance(version, int) or not 1 <= version <= SPEC_VERSION:
        raise ValueError(f"its specification must have version 1 to {SPEC_VERSION}, but has {version!r}")
    for number in range(version, SPEC_VERSION):
        content = UPGRADES[number](content)
    return content
