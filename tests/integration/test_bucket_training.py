"""Trainings whose weights, checkpoints and soft labels lie in a bucket: the same numbers, on whichever machine."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3_server import BUCKET, Relay, S3Server, running_s3
from trained_studies import LADDER, SEVERAL, all_trials, begin_one, make_spec, open_study, results, run_worker

from fmnist_optuna.artifacts.place import parse_place
from fmnist_optuna.artifacts.soft_labels import hash_soft_labels, pack_soft_labels
from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.results.evaluation import find_weights
from fmnist_optuna.results.scoring import load_stored
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.study.teacher import Lesson, Teacher
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.work.loop import WorkerEnd
from fmnist_optuna.work.objective import KerasObjective

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread", "_known_here")]

RUNGS = make_spec(SEVERAL, pruner=LADDER)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


@pytest.fixture
def _known_here(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The credentials; and the bucket is empty again afterwards."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    yield
    server.empty()


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory: pytest.TempPathFactory, garments: Splits, few_garments: ResidentData) -> Session:
    """The cells trained by one worker, with everything in a folder."""
    session = open_study(tmp_path_factory.mktemp("folder"), RUNGS, garments.fingerprint)
    assert run_worker(session, few_garments) is WorkerEnd.DONE
    return session


def open_machine(
    folder: Path, url: str | None, spec: StudySpec, data: Splits, name: str, lesson: Lesson | None = None
) -> Session:
    """A worker of a machine of its own: only the database is shared.

    Args:
        url: Of the bucket, for the machine that makes the study; None for one that learns it from the study.
    """
    place = None if url is None else parse_place(url)
    storage = create_storage(StorageOptions(f"sqlite:///{folder}/studies.db", patience_seconds=20.0, artifacts=place))
    if url is not None:
        create_or_join(storage, UserCode(spec, FASHION_MNIST).bind(), data.fingerprint, lesson=lesson)
    session = Session(storage, find_study(storage, spec.name), name)
    session.presence.register(name, fresh_seconds=60.0)
    return session


def change(server: S3Server, key: str) -> None:
    """Alter one byte in the middle of an object."""
    content = bytearray(server.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    server.client.put_object(Bucket=BUCKET, Key=key, Body=bytes(content))


def events(caplog: pytest.LogCaptureFixture, name: str, field: str) -> list[Any]:
    return [vars(record)[field] for record in caplog.records if vars(record).get("event") == name]


@pytest.mark.parametrize("is_altered", [False, True])
def test_machines_go_on_from_each_others_checkpoints(
    server: S3Server,
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    in_folder: Session,
    caplog: pytest.LogCaptureFixture,
    is_altered: bool,
) -> None:
    """Cells that one parked are trained on by another; a damaged checkpoint is not used. The numbers are the same."""
    caplog.set_level(logging.INFO)
    first = open_machine(tmp_path, server.url, RUNGS, garments, "first")
    objective = KerasObjective(first, few_garments)
    parked = [begin_one(first, objective) for _ in range(3)]
    mark = first.record.place.mark if first.record.place else ""
    keys = [f"garments/checkpoints/{mark}/{cell}" for cell in parked]
    assert [key for key in server.list_keys() if mark in key] == sorted(keys)
    if is_altered:
        for key in keys:
            change(server, key)
    second = open_machine(tmp_path, None, RUNGS, garments, "second")
    assert run_worker(second, few_garments) is WorkerEnd.DONE
    origins = events(caplog, "trial_goes_on", "origin")
    assert set(origins[:1]) == {"start" if is_altered else "checkpoint"}
    assert events(caplog, "checkpoint_not_used", "reason")[:1] == (["it is damaged"] if is_altered else [])
    assert results(second) == results(in_folder)
    assert verify_study(second).ok
    assert not [key for key in server.list_keys() if mark in key]
    assert not second.storage.artifacts.exists()
    delete_study(second.storage, second.record)
    assert server.list_keys() == []


def test_altered_weights_are_refused(
    server: S3Server, tmp_path: Path, garments: Splits, few_garments: ResidentData
) -> None:
    """By the hash of their numbers; the text names the object. What is gone is named too."""
    one = make_spec({"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.01]})
    session = open_machine(tmp_path, server.url, one, garments, "worker")
    run_worker(session, few_garments)
    (trial,) = all_trials(session)
    stored = find_weights(session, read_attempt(trial))
    load_stored(one, FASHION_MNIST, stored)
    (key,) = server.list_keys()
    server.client.put_object(Bucket=BUCKET, Key=key, Body=b"altered")
    stored.path.unlink()  # the copy of this process
    altered = find_weights(session, read_attempt(trial))
    with pytest.raises(MismatchError, match=rf"The stored weights s3://studies/{key} must be readable"):
        load_stored(one, FASHION_MNIST, altered)
    server.client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(MismatchError, match=rf"weights of trial 0 must be at s3://studies/{key}, but there is no such"):
        find_weights(session, read_attempt(trial))
    delete_study(session.storage, session.record)


def test_soft_labels_are_found_from_everywhere(
    server: S3Server, tmp_path: Path, garments: Splits, few_garments: ResidentData
) -> None:
    """A student is trained with those in the bucket; altered ones are refused by their hash, missing ones by name."""
    content = pack_soft_labels(np.full((12_000, 10), 0.1, np.float32))
    sha256 = hash_soft_labels(content)
    teacher = Teacher(study="t", trial=0, params={}, n_seeds=0, has_flips=False, artifact="one", sha256=sha256)
    one = make_spec({"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.01]}, training={"teacher": "t"})
    open_machine(tmp_path, server.url, one, garments, "first", Lesson(teacher, content))
    assert server.list_keys() == ["garments/one"]
    second = open_machine(tmp_path, None, one, garments, "second")
    assert second.soft_labels is not None
    run_worker(second, few_garments.with_soft_labels(second.soft_labels.load()))
    assert second.history.counts().complete == 1
    change(server, "garments/one")
    altered = second.soft_labels
    assert altered is not None
    with pytest.raises(MismatchError, match="The soft labels s3://studies/garments/one must have SHA-256"):
        altered.load()
    server.client.delete_object(Bucket=BUCKET, Key="garments/one")
    with pytest.raises(MismatchError, match="soft labels of the study must be at s3://studies/garments/one, but there"):
        _ = second.soft_labels
    delete_study(second.storage, second.record)
    assert server.list_keys() == []


def test_a_training_does_not_wait_for_a_checkpoint(
    server: S3Server,
    tmp_path: Path,
    garments: Splits,
    few_garments: ResidentData,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without rungs the training goes on while the bucket is away, and its weights wait until it is back."""
    relay = Relay(server)
    one = make_spec(
        {"hidden_size": [8], "dropout_rate": [0.2], "learning_rate": [0.01]}, training={"checkpoint_seconds": 1}
    )
    session = open_machine(tmp_path, relay.url, one, garments, "worker")
    monkeypatch.setattr(KerasObjective, "_is_due", lambda *_: True)
    finish = KerasObjective._finish

    def back_again(*arguments: Any) -> Any:
        relay.accept()
        return finish(*arguments)

    monkeypatch.setattr(KerasObjective, "_finish", back_again)
    objective = KerasObjective(session, few_garments)
    bring = type(session.checkpoints).bring

    def gone_after(*arguments: Any) -> Any:
        found = bring(*arguments)
        relay.refuse()
        return found

    monkeypatch.setattr(type(session.checkpoints), "bring", gone_after)
    begin_one(session, objective)
    assert len(events(caplog, "no_checkpoint", "reason")) == 3
    assert session.history.counts().complete == 1
    delete_study(session.storage, session.record)
    relay.refuse()
