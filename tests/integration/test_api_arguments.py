"""Arguments of the Python interface: what is out of its range is refused in one line, before anything is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import ON_SQLITE, finish_everything

from fmnist_optuna import Study, confirm_study, export_model, run_study
from fmnist_optuna.errors import UsageError
from fmnist_optuna.study.session import Session

NAN = float("nan")
REFUSED: list[tuple[Callable[..., object], dict[str, Any], str]] = [
    (run_study, {"n_workers": 0}, "n_workers must be an integer, at least 1, but is 0."),
    (run_study, {"n_workers": 1.5}, "n_workers must be an integer, at least 1, but is 1.5."),
    (run_study, {"n_workers": True}, "n_workers must be an integer, at least 1, but is True."),
    (run_study, {"n_workers": "2"}, "n_workers must be an integer, at least 1, but is '2'."),
    (run_study, {"timeout_seconds": NAN}, "timeout_seconds must be a number greater than 0, but is nan."),
    (run_study, {"trial_seconds": 0}, "trial_seconds must be a number greater than 0, but is 0."),
    (run_study, {"memory_bytes": "4g"}, "memory_bytes must be a number greater than 0, but is '4g'."),
    (confirm_study, {"n_workers": -1}, "n_workers must be an integer, at least 1, but is -1."),
    (confirm_study, {"timeout_seconds": -5}, "timeout_seconds must be a number greater than 0, but is -5."),
    (confirm_study, {"timeout_seconds": 0}, "timeout_seconds must be a number greater than 0, but is 0."),
    (confirm_study, {"timeout_seconds": NAN}, "timeout_seconds must be a number greater than 0, but is nan."),
    (confirm_study, {"n_cells": 0}, "n_cells must be an integer, at least 1, but is 0."),
    (confirm_study, {"n_seeds": 1}, "n_seeds must be an integer, at least 2, but is 1."),
    (export_model, {"version": 0}, "version must be an integer, at least 1, but is 0."),
    (export_model, {"version": -1}, "version must be an integer, at least 1, but is -1."),
    (export_model, {"version": 1.0}, "version must be an integer, at least 1, but is 1.0."),
    (export_model, {"ensemble": 1}, "ensemble must be an integer, at least 2, but is 1."),
    (export_model, {"ensemble": True}, "ensemble must be an integer, at least 2, but is True."),
    (
        export_model,
        {"ensemble": 2, "formats": ("savedmodel", "keras")},
        "formats (--format) must be savedmodel for an ensemble, but got savedmodel, keras.",
    ),
    (
        export_model,
        {"all_data": True, "trial": 0},
        "trial (--trial) must be alone, but all_data (--all-data) or ensemble (--ensemble) was given too, which take "
        "confirmed seeds.",
    ),
    (export_model, {"formats": ()}, "formats (--format) must be of savedmodel, keras, but got 'none'."),
    (export_model, {"formats": "onnx"}, "formats (--format) must be of savedmodel, keras, but got 'onnx'."),
    (export_model, {"formats": ("keras", "h5")}, "formats (--format) must be of savedmodel, keras, but got 'h5'."),
]


@ON_SQLITE
@pytest.mark.parametrize(("call", "arguments", "text"), REFUSED)
def test_an_argument_out_of_its_range_is_refused(
    call: Callable[..., object], arguments: dict[str, Any], text: str, session: Session, tmp_path: Path
) -> None:
    """By name, with what it must be and what came, whichever function takes it."""
    subject: object = {"name": "other", "data": {"source": "synthetic"}}
    if call is not run_study:
        finish_everything(session)
        subject = Study(session)
    before = sorted(tmp_path.rglob("*"))
    place = {"storage": f"sqlite:///{tmp_path}/new.db"} if call is run_study else {}
    with pytest.raises(UsageError) as caught:
        call(subject, **place, **arguments, **({"out": tmp_path / "models"} if call is export_model else {}))
    assert str(caught.value) == text
    assert sorted(tmp_path.rglob("*")) == before
