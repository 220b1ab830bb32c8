"""Studies of drawn garments that are trained in this process, as a worker trains them."""

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from optuna.trial import FrozenTrial, TrialState
from stored_files import weights_path

from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.results.evaluation import StoredWeights, find_weights
from fmnist_optuna.search.cell import Grid
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.teacher import Lesson
from fmnist_optuna.training.architecture import build_model, load_architecture
from fmnist_optuna.training.probabilities import predict_probabilities
from fmnist_optuna.training.resident_data import FoldedData, ResidentData
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.training.weights import load_weights
from fmnist_optuna.work.attempt import run_attempt
from fmnist_optuna.work.loop import LeaveRequest, WorkerEnd, work
from fmnist_optuna.work.objective import KerasObjective

MAX_EPOCHS = 4
SEVERAL: Grid = {"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.03, 0.001, 0.0001]}
LADDER = {"name": "ladder", "first_rung": 1, "margin": 0.0, "keep": 1}


def make_spec(grid: Grid, training: dict[str, Any] | None = None, **tables: Any) -> StudySpec:
    return parse_spec(
        {
            "name": "garments",
            "data": {"source": "synthetic", "n_validation": 2_400},
            "grid": grid,
            "training": {"max_epochs": MAX_EPOCHS, "patience": MAX_EPOCHS, **(training or {})},
            "pruner": {"name": "none"},
            **tables,
        },
        "garments.toml",
    )


@functools.cache
def empty_database() -> bytes:
    """An SQLite file with all tables, which take a quarter of a second to make."""
    with tempfile.TemporaryDirectory() as folder:
        create_storage(StorageOptions(f"sqlite:///{folder}/studies.db")).close()
        return Path(folder, "studies.db").read_bytes()


def open_study(folder: Path, spec: StudySpec, fingerprint: str, lesson: Lesson | None = None) -> Session:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "studies.db").exists():
        (folder / "studies.db").write_bytes(empty_database())
    storage = create_storage(StorageOptions(f"sqlite:///{folder}/studies.db"))
    record, _ = create_or_join(storage, UserCode(spec, FASHION_MNIST).bind(), fingerprint, lesson=lesson)
    session = Session(storage, record, "worker-1")
    session.presence.register("worker-1", fresh_seconds=60.0)
    return session


def run_worker(session: Session, data: ResidentData | FoldedData, leave: LeaveRequest | None = None) -> WorkerEnd:
    """One worker in this process, until nothing is left."""
    objective = KerasObjective(session, data)
    end = work(session, objective, leave or LeaveRequest(), session.record.generation, in_memory=objective.in_memory)
    objective.let_go()
    return end


def begin_one(session: Session, objective: KerasObjective) -> str:
    """Train the next cell to its first rung and park it; returns its cell_id."""
    claim = session.ledger.claim(session.name, session.record.generation)
    assert claim is not None
    run_attempt(session, claim, objective, lambda: False, session.record.generation)
    return claim.cell_id


def all_trials(session: Session) -> list[FrozenTrial]:
    return session.optuna_storage.get_all_trials(session.record.study_id)


def results(session: Session) -> list[tuple[Any, ...]]:
    """Of each finished trial its parameters, weights, value and curve, in an order that does not depend on claims."""
    found = [
        (
            sorted(trial.params.items()),
            trial.user_attrs.get("weights_sha256"),
            trial.value,
            [(epoch.train_loss, epoch.val_accuracy) for epoch in session.history.curve(trial_id_of(trial))],
            trial.intermediate_values,
        )
        for trial in all_trials(session)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    return sorted(found, key=lambda result: str(result[0]))


def artifacts(session: Session) -> list[Path]:
    return sorted(path for path in session.storage.artifacts.glob("*") if path.is_file())


def load_stored(session: Session, trial: FrozenTrial) -> keras.Model:
    spec = session.record.spec
    model = build_model(load_architecture(spec.model.architecture), spec, trial.params, FASHION_MNIST)
    path = weights_path(session, trial)
    load_weights(model, path, trial.user_attrs["weights_sha256"])
    return model


def stored_weights(session: Session, trial: FrozenTrial, **changes: Any) -> StoredWeights:
    return replace(find_weights(session, read_attempt(trial, metric=session.record.metric)), **changes)


def share_of_hits(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(predict_probabilities(model, images, FASHION_MNIST).argmax(axis=1) == labels))
