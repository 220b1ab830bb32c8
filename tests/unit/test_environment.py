"""Environments that are compared: what is said of a setting, and of a record that has none."""

import logging

import pytest

from fmnist_optuna.work.environment import differences, warn_of_environment

VERSIONS = {"tensorflow": "2.21.0", "keras": "3.15.1", "cpu": "one"}
SETTINGS = {"floatx": "float32", "jit": "off"}


def test_a_variable_that_one_side_lacks_is_unset() -> None:
    """As in the report of a reproduction."""
    now = {**VERSIONS, **SETTINGS, "TF_ENABLE_ONEDNN_OPTS": "0"}
    assert differences({**VERSIONS, **SETTINGS}, now) == ["TF_ENABLE_ONEDNN_OPTS: then unset, now 0"]
    assert differences(now, now) == []


def test_of_an_old_record_without_settings_nothing_is_said() -> None:
    """Trials of the earlier version recorded versions and the processor only; those are compared."""
    now = {**VERSIONS, **SETTINGS, "tensorflow": "2.22.0"}
    assert differences(VERSIONS, now) == ["tensorflow: then 2.21.0, now 2.22.0"]


def test_a_join_warns_of_versions_and_settings(caplog: pytest.LogCaptureFixture) -> None:
    """And not of another processor, which several machines may well have."""
    begun, here = {**VERSIONS, **SETTINGS}, {**VERSIONS, **SETTINGS, "jit": "autoclustering", "cpu": "two"}
    with caplog.at_level(logging.WARNING, "fmnist_optuna"):
        warn_of_environment("small", begun, here)
        warn_of_environment("small", begun, {**begun, "cpu": "two"})
    (record,) = caplog.records
    assert "jit: the study began with off, here it is autoclustering" in record.getMessage()
    assert "cpu" not in record.getMessage()
