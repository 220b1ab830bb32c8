"""What the server of all children does to import TensorFlow sooner leaves nothing behind."""

import importlib.util
import threading

import pytest

from fmnist_optuna.work.quick_import import loading_libraries


def test_no_thread_is_left_when_libraries_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is forked afterwards; where there is no TensorFlow, its import says so later."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    before = threading.enumerate()
    with loading_libraries():
        pass
    assert threading.enumerate() == before
