"""What the server of all children does to import TensorFlow and Keras sooner leaves nothing behind."""

import importlib
import sys
import threading
from pathlib import Path

import pytest

from fmnist_optuna.work.quick_import import importing_keras, loading_libraries


def test_scikit_learn_is_hidden_only_within(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keras finds none while it is imported; a user's module that imports it later does."""
    (tmp_path / "sklearn.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    with importing_keras(), pytest.raises(ModuleNotFoundError, match="No module named 'sklearn'"):
        importlib.import_module("sklearn")
    assert importlib.import_module("sklearn").__file__ == str(tmp_path / "sklearn.py")
    monkeypatch.delitem(sys.modules, "sklearn")


def test_wrappers_are_imported_anew_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were made without scikit-learn; what else was imported meanwhile stays."""
    with importing_keras():
        for name in ("keras.wrappers", "keras.src.wrappers.fixes", "keras_of_another_name"):
            monkeypatch.setitem(sys.modules, name, threading)
    assert "keras.wrappers" not in sys.modules
    assert "keras.src.wrappers.fixes" not in sys.modules
    assert "keras_of_another_name" in sys.modules


def test_no_thread_is_left_when_libraries_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is forked afterwards; where there is no TensorFlow, its import says so later."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    before = threading.enumerate()
    with loading_libraries():
        pass
    assert threading.enumerate() == before
