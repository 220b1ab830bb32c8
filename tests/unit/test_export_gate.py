"""The gate of `export`: its process computes with the kernels that the trial was trained with, whatever holds here."""

import contextlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fmnist_optuna.errors import MismatchError, UsageError
from fmnist_optuna.export import folder as gate
from fmnist_optuna.export.facts import Parity
from fmnist_optuna.export.source import Source
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.ledger.records import Attempt, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import TRAINING_SEED

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
VERSIONS: dict[str, Json] = {"tensorflow": "2.21.0", "keras": "3.15.1"}
SETTINGS: dict[str, Json] = {**VERSIONS, "floatx": "float32"}
PROBABILITIES = np.full((2, 10), 0.1, np.float32)


def environment_of_gate(monkeypatch: pytest.MonkeyPatch, recorded: dict[str, Json] | None) -> dict[str, str]:
    """What the process of the gate is started with, for a trial that recorded such an environment."""
    started: list[dict[str, str]] = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        started.append(env)
        measured = Parity(max_difference=0.0, n_other_classes=0, accuracy=0.5, n_images=2, n_odd_batches=0)
        return subprocess.CompletedProcess(command, 0, json.dumps(asdict(measured)), "")

    check_parity(monkeypatch, recorded, run)
    (environment,) = started
    return environment


def check_parity(monkeypatch: pytest.MonkeyPatch, recorded: dict[str, Json] | None, run: Callable[..., Any]) -> None:
    """Ask a process that is none about two images."""
    splits = SimpleNamespace(test_images=np.zeros((2, 28, 28), np.uint8), info=SimpleNamespace(noun="image"))
    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(gate, "load_splits_of", lambda *_: splits)
    monkeypatch.setattr(gate, "_recorded_answers", lambda *_: (PROBABILITIES, 0.5))
    attributes = TrialAttributes(environment=recorded)
    attempt = Attempt(1, 0, "cell", {"hidden_size": 8}, State.COMPLETE, 0.5, attributes)
    spec = SimpleNamespace(confirm=SimpleNamespace(flip=True))
    session: Any = SimpleNamespace(record=SimpleNamespace(spec=spec))
    opening: Any = SimpleNamespace(labels=np.zeros(2, np.uint8))
    gate._check_parity(Source(session, (attempt,), None), opening, Path("model"), None, 2)


def test_a_model_that_answers_too_late_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with the limit, which grows with what is to be answered: here two images and their mirror images."""

    def run(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gate, "GATE_IMAGES", 2)
    with pytest.raises(MismatchError, match=r"must answer 2 images within 1200 s, but did not; export it again"):
        check_parity(monkeypatch, SETTINGS, run)


def test_two_exports_at_once_are_two_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever is second takes the next number, unless a version was asked for: then that one must be free."""
    source = SimpleNamespace(session=None, attempts=(), purpose="export", explained=contextlib.nullcontext)
    session: Any = SimpleNamespace(record=SimpleNamespace(name="garments"))
    versions = tmp_path / "garments"

    def write(_session: Any, _source: Any, _opening: Any, folder: Path, *_: Any) -> tuple[None, dict[str, Json]]:
        (folder / "ours").touch()
        (versions / "1").mkdir(exist_ok=True)
        (versions / "1" / "theirs").touch()
        return None, {}

    monkeypatch.setattr(gate, "choose_source", lambda *_: source)
    monkeypatch.setattr(gate, "open_weights", lambda *_: None)
    monkeypatch.setattr(gate, "_write", write)
    assert gate.export_model(session, tmp_path).folder == versions / "2"
    assert {path.name: [file.name for file in path.iterdir()] for path in versions.iterdir()} == {
        "1": ["theirs"], "2": ["ours"],
    }  # fmt: skip
    (versions / "1" / "theirs").unlink()
    (versions / "1").rmdir()
    with pytest.raises(UsageError, match=r"version \(--version\) must be new, but .*garments/1 was written meanwhile"):
        gate.export_model(session, tmp_path, version=1)
    assert sorted(path.name for path in versions.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(("numbers", "named"), [((3,), "of trial 3 were"), ((3, 4), "of the seeds 103, 104 were")])
def test_weights_without_flips_are_named(numbers: tuple[int, ...], named: str) -> None:
    """A trial by its number, which is not its id in the database; nets that answer together by their seeds."""
    attempts = tuple(
        Attempt(71, number, "cell", {TRAINING_SEED: 100 + number}, State.COMPLETE, 0.5, TrialAttributes())
        for number in numbers
    )
    spec = SimpleNamespace(confirm=SimpleNamespace(flip=True))
    session: Any = SimpleNamespace(record=SimpleNamespace(name="garments", spec=spec))
    opening = Opening(71, "", "winner", 0.5, 0.0, Scores(PROBABILITIES, np.zeros(2, np.uint8)))
    with pytest.raises(UsageError, match=f"before the test set is opened, but the weights {named} scored without"):
        gate._recorded_answers(Source(session, attempts, None), opening)


@pytest.mark.parametrize("here", [None, "0", "1"])
@pytest.mark.parametrize(
    ("recorded", "expected"), [({**SETTINGS, ONEDNN: "0"}, "0"), ({**SETTINGS, ONEDNN: "1"}, "1"), (SETTINGS, None)]
)
def test_the_gate_computes_as_the_trial_did(
    monkeypatch: pytest.MonkeyPatch, recorded: dict[str, Json], expected: str | None, here: str | None
) -> None:
    """Whatever the shell of now says; where there was no setting TensorFlow decided, and it does so again."""
    set_here(monkeypatch, here)
    assert environment_of_gate(monkeypatch, recorded).get(ONEDNN) == expected


@pytest.mark.parametrize("here", [None, "0", "1"])
@pytest.mark.parametrize("recorded", [VERSIONS, None])
def test_of_a_trial_without_settings_nothing_is_assumed(
    monkeypatch: pytest.MonkeyPatch, recorded: dict[str, Json] | None, here: str | None
) -> None:
    """Of the first versions: the shell decides, or else TensorFlow, as it was then."""
    set_here(monkeypatch, here)
    assert environment_of_gate(monkeypatch, recorded).get(ONEDNN) == here


def set_here(monkeypatch: pytest.MonkeyPatch, here: str | None) -> None:
    """What the shell says, None for nothing."""
    monkeypatch.delenv(ONEDNN, raising=False)
    if here is not None:
        monkeypatch.setenv(ONEDNN, here)


def test_the_gate_keeps_the_rest_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person has set, and what is set for every process that trains."""
    monkeypatch.setenv("MINE", "kept")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    environment = environment_of_gate(monkeypatch, SETTINGS)
    assert (environment["MINE"], environment["TF_CPP_MIN_LOG_LEVEL"]) == ("kept", "3")
