"""What a trained study teaches: the answers of its winner, or of all seeds of its confirmed cell."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained_studies import all_trials, load_stored, make_spec, open_study, run_worker

from fmnist_optuna.artifacts.soft_labels import hash_soft_labels
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.results.teaching import check_teacher, make_lesson
from fmnist_optuna.running.following import following_spec
from fmnist_optuna.search.cell import TRAINING_SEED, canonical_json
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.teacher import Lesson
from fmnist_optuna.study.verification import verify
from fmnist_optuna.training.probabilities import predict_probabilities
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.work.objective import KerasObjective

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]

CELL = {"hidden_size": 8, "dropout_rate": 0.2, "learning_rate": 0.03}
ONE_EPOCH = {"max_epochs": 1, "patience": 1}
TEACHER = make_spec({name: [value] for name, value in CELL.items()}, ONE_EPOCH, confirm={"flip": True})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, garments: Splits, few_garments: ResidentData) -> Session:
    """A study of one cell, complete."""
    session = open_study(tmp_path_factory.mktemp("teacher"), TEACHER, garments.fingerprint)
    run_worker(session, few_garments)
    return session


@pytest.fixture(scope="module")
def lesson(teacher: Session) -> Lesson:
    return make_lesson(teacher, None)


def answers_of(session: Session, trial: Any, splits: Splits) -> Any:
    """Of the stored weights, with flips, as the papers write it."""
    model = load_stored(session, trial)
    images = np.concatenate([splits.train_images, splits.validation_images])
    both = [predict_probabilities(model, form, FASHION_MNIST) for form in (images, images[:, :, ::-1])]
    return (both[0] + both[1]) / 2


def read(lesson: Lesson) -> Any:
    return np.frombuffer(lesson.content[-12_000 * 10 * 4 :], "<f4").reshape(12_000, 10)


def test_a_winner_answers_as_it_would_be_exported(teacher: Session, lesson: Lesson, garments: Splits) -> None:
    """To the training images and those of the validation behind them, averaged over mirror images if it is so."""
    check_teacher(teacher, TEACHER, garments.fingerprint)
    (trial,) = all_trials(teacher)
    np.testing.assert_allclose(read(lesson), answers_of(teacher, trial, garments), atol=1e-6)
    known = lesson.teacher
    assert (known.study, known.trial, known.params, known.n_seeds, known.has_flips) == ("garments", 0, CELL, 0, True)
    assert known.sha256 == hash_soft_labels(lesson.content)


def test_a_student_is_trained_with_the_answers(
    lesson: Lesson, few_garments: ResidentData, garments: Splits, tmp_path: Path
) -> None:
    """With a weight of 1 its curve is another than with 0; each cell has one complete trial."""
    student = open_student(lesson, garments, tmp_path)
    assert student.soft_labels is not None
    run_worker(student, few_garments.with_soft_labels(student.soft_labels.load()))
    curves = {
        trial.params["teacher_weight"]: student.history.curve(trial_id_of(trial)) for trial in all_trials(student)
    }
    assert sorted(curves) == [0.0, 1.0]
    assert curves[0.0][0].train_loss != curves[1.0][0].train_loss
    assert verify(student.storage, student.optuna_storage, student.record.study_id).ok


def test_a_checkpoint_is_known_by_the_answers(
    teacher: Session, lesson: Lesson, few_garments: ResidentData, garments: Splits, tmp_path: Path
) -> None:
    """With others no training goes on from it; without a teacher it is known by what it was before there were any."""
    student = open_student(lesson, garments, tmp_path)
    changed = replace(student.record, teacher=lesson.teacher.model_copy(update={"sha256": "0" * 64}))
    other = replace(student, record=changed)
    assert fingerprint_of(student, few_garments) != fingerprint_of(other, few_garments)
    record = teacher.record
    plain = {"spec": record.spec.trained_part(), "data": record.data_fingerprint, "code": teacher.code}
    assert fingerprint_of(teacher, few_garments) == hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def open_student(lesson: Lesson, garments: Splits, folder: Path) -> Session:
    """A study of two cells that differ by the teacher's weight, in a storage of its own."""
    grid = {**{name: [value] for name, value in CELL.items()}, "teacher_weight": [0.0, 1.0]}
    spec = make_spec(grid, {**ONE_EPOCH, "teacher": "garments"}, name="student")
    return open_study(folder, spec, garments.fingerprint, lesson)


def fingerprint_of(session: Session, data: ResidentData) -> str:
    return KerasObjective(session, data)._fingerprint


def test_a_confirmed_cell_answers_with_all_its_seeds(
    garments: Splits, few_garments: ResidentData, tmp_path: Path
) -> None:
    """The mean of two seeds; the trial that is named is the one of the grid."""
    session = open_study(tmp_path, TEACHER, garments.fingerprint)
    run_worker(session, few_garments)
    cells = [{**CELL, TRAINING_SEED: seed} for seed in (1, 2)]
    spec = following_spec(session.record.spec, f"{session.record.name}/confirm", cells)
    record, _ = create_or_join(session.storage, spec, garments.fingerprint, cells, parent=session.record)
    confirming = Session(session.storage, record, "worker-1")
    run_worker(confirming, few_garments)
    lesson = make_lesson(session, None)
    assert (lesson.teacher.study, lesson.teacher.trial, lesson.teacher.n_seeds) == ("garments", 0, 2)
    expected = np.mean([answers_of(confirming, trial, garments) for trial in all_trials(confirming)], axis=0)
    np.testing.assert_allclose(read(lesson), expected, atol=1e-6)
