"""In what two specifications differ, a line each."""

from collections.abc import Mapping

from fmnist_optuna.search.cell import canonical_json


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
