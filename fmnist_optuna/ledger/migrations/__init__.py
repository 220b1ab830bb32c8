"""Numbered migrations of our tables: each brings a storage from the version before to its own, in one transaction.

A migration names its tables itself: those of `ledger.tables` are of the present version, and change.
"""

from collections.abc import Callable, Mapping

from sqlalchemy.engine import Connection

from fmnist_optuna.ledger.migrations import (
    m0002_codes,
    m0003_names_and_keys,
    m0004_own_data,
    m0005_rungs,
    m0006_absent,
    m0007_teacher,
    m0008_objective,
    m0009_points,
    m0010_device,
    m0011_artifacts,
    m0012_trials,
)

MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {  # version -> how it is made from the one before
    2: m0002_codes.migrate,
    3: m0003_names_and_keys.migrate,
    4: m0004_own_data.migrate,
    5: m0005_rungs.migrate,
    6: m0006_absent.migrate,
    7: m0007_teacher.migrate,
    8: m0008_objective.migrate,
    9: m0009_points.migrate,
    10: m0010_device.migrate,
    11: m0011_artifacts.migrate,
    12: m0012_trials.migrate,
}
