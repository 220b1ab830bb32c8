"""A study that learns from another: who may teach, whose the answers are then, and what becomes of them."""

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_study import (
    FINGERPRINT,
    ON_SQLITE,
    POSTGRES_MORE,
    begin_trial,
    claim_cell,
    create_study,
    finish_cell,
    finish_everything,
    finish_trial,
    make_spec,
    prune_trial,
)
from sqlalchemy import text, update

from fmnist_optuna.artifacts.soft_labels import hash_soft_labels, pack_soft_labels
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.cli.answers import details_answer, winner_answer
from fmnist_optuna.cli.trial_details import read_details
from fmnist_optuna.cli.trial_tables import print_details
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.errors import JoinRefusedError, MismatchError, NotFoundError, UnreadableStudyError, UsageError
from fmnist_optuna.export.card import write_card
from fmnist_optuna.export.facts import Facts
from fmnist_optuna.export.source import Source
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import SCHEMA_VERSION, studies
from fmnist_optuna.pages.notes import describe_study
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.running.following import following_spec
from fmnist_optuna.running.teaching import prepare_lesson
from fmnist_optuna.search.cell import TRAINING_SEED, Grid
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study import joining
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.study.teacher import Lesson, Teacher

TEACHER, STUDENT = "small", "student"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Postgres the artifacts lie in the working folder, where files of a test before would be found."""
    monkeypatch.chdir(tmp_path)


def student_spec(**training: Any) -> StudySpec:
    return make_spec(name=STUDENT, training={"teacher": TEACHER, **training})


def made_up_lesson(artifact: str = "one", value: float = 0.1) -> Lesson:
    """Answers that nobody gave."""
    content = pack_soft_labels(np.full((20, 10), value, np.float32))
    params = {"hidden_size": 128, "dropout_rate": 0.5}
    return Lesson(
        Teacher(
            study=TEACHER,
            trial=3,
            params=params,
            n_seeds=5,
            has_flips=False,
            artifact=artifact,
            sha256=hash_soft_labels(content),
        ),
        content,
    )


def create_student(storage: Storage, lesson: Lesson | None) -> StudyRecord:
    return create_or_join(storage, student_spec(), FINGERPRINT, lesson=lesson)[0]


def files(storage: Storage) -> list[str]:
    return sorted(path.name for path in storage.artifacts.glob("*"))


@POSTGRES_MORE
def test_a_student_keeps_the_answers_as_its_own(storage: Storage) -> None:
    """A file of the study, found by every worker through its row; it outlives the teacher and goes with the student."""
    create_study(storage)
    lesson = made_up_lesson()
    record = create_student(storage, lesson)
    assert record.teacher == lesson.teacher
    assert record.teacher.describe() == "small, trial 3 (hidden_size 128, dropout_rate 0.5), mean of 5 seeds"
    delete_study(storage, find_study(storage, TEACHER))
    soft_labels = Session(storage, find_study(storage, STUDENT)).soft_labels
    assert soft_labels is not None
    np.testing.assert_array_equal(soft_labels.load(), np.full((20, 10), 0.1, np.float32))
    assert files(storage) == ["one"]
    delete_study(storage, record)
    assert files(storage) == []


@POSTGRES_MORE
def test_of_two_that_make_a_study_the_first_ones_answers_stay(storage: Storage) -> None:
    """Both took them at the same time: one file is left, and both go on with it."""
    first, second = made_up_lesson("one", 0.1), made_up_lesson("two", 0.2)
    assert create_student(storage, first).teacher == first.teacher
    assert create_student(storage, second).teacher == first.teacher
    assert files(storage) == ["one"]


@POSTGRES_MORE
def test_answers_of_a_dead_maker_are_swept(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It died when its file lay there and its row did not: whoever makes the study next removes them."""
    with monkeypatch.context() as patch:
        patch.setattr(joining, "_seed", lambda *_: os._exit(9))
        maker = multiprocessing.get_context("fork").Process(
            target=lambda: create_student(create_storage(storage.options), made_up_lesson("one"))
        )
        maker.start()
        maker.join()
    assert (maker.exitcode, files(storage)) == (9, ["one"])
    second = made_up_lesson("two")
    assert create_student(storage, second).teacher == second.teacher
    assert files(storage) == ["two"]


@ON_SQLITE
def test_a_confirmation_learns_the_same(storage: Storage) -> None:
    """It has no file of its own: without it that of its study is still there."""
    record = create_student(storage, made_up_lesson())
    cells = [{"hidden_size": 64, "dropout_rate": 0.5, TRAINING_SEED: seed} for seed in (1, 2)]
    spec = following_spec(record.spec, f"{record.name}/confirm", cells)
    confirming, _ = create_or_join(storage, spec, FINGERPRINT, cells, parent=record)
    assert confirming.teacher == record.teacher
    delete_study(storage, confirming)
    assert files(storage) == ["one"]


def finish_with_weights(session: Session, weights_of: float) -> Opening:
    """A study over `teacher_weight`, whose best cell has this one, with an opening of that cell's weights."""
    best = None
    for _ in range(2):
        claim = claim_cell(session)
        trial_id = begin_trial(session, claim)
        is_best = claim.params["teacher_weight"] == weights_of
        finish_trial(session, trial_id, 0.75 if is_best else 0.5)
        finish_cell(session, claim, trial_id)
        best = trial_id if is_best else best
    assert best is not None
    labels = np.arange(10, dtype=np.uint8)
    return session.openings.open(best, "0" * 64, "winner", lambda: Scores(np.eye(10, dtype=np.float32), labels))


@ON_SQLITE
@pytest.mark.parametrize("weight", [0.0, 0.9])
def test_a_cell_without_a_share_of_the_answers_did_not_learn(
    storage: Storage, weight: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is told of the winner names the teacher where its cell has learned from it, and only there."""
    grid: Grid = {"hidden_size": [8], "teacher_weight": [0.0, 0.9]}
    spec = make_spec(grid, STUDENT, training={"teacher": TEACHER})
    record, _ = create_or_join(storage, spec, FINGERPRINT, lesson=made_up_lesson())
    session = Session(storage, record, "worker")
    opening = finish_with_weights(session, weight)
    overview = read_overview(session)
    assert overview.winner is not None
    winner = replace(overview.winner, opening=opening)
    assert winner.params["teacher_weight"] == weight
    overview = replace(overview, winner=winner)
    source = Source(session, (winner.attempt,), None)
    assert winner.evaluation is not None
    facts = Facts(record, source, winner.evaluation, 2, "0" * 64, ("savedmodel",), False, None)
    write_card(tmp_path / "card.md", facts, None)
    print_winner(record, winner, overview.counts)
    print_details(read_details(session, winner.trial))
    details = details_answer(read_details(session, winner.trial))
    answers = [winner_answer(record, winner)["teacher"], details["teacher"], facts.to_manifest({})["teacher"]]
    printed = capsys.readouterr().out
    texts = {
        "card": (tmp_path / "card.md").read_text().count("| learned from | the labels, and the answers of study small"),
        "terminal": printed.count("  learned from small, trial 3"),
        "report": render_report(overview, None).count("Learned from small, trial 3"),
        "note": describe_study(record, overview.counts, None, winner).count("Learned from small, trial 3"),
    }
    learned = int(weight > 0)
    assert texts == {"card": learned, "terminal": 2 * learned, "report": learned, "note": learned}
    assert answers == [made_up_lesson().teacher.to_content() if learned else None] * 3
    assert "Learned from small" in describe_study(record, overview.counts, None, None)


@ON_SQLITE
def test_a_join_names_another_teacher(storage: Storage) -> None:
    """And another weight, and leaves what the study has."""
    create_student(storage, made_up_lesson())
    other = make_spec(name=STUDENT, training={"teacher": "large", "teacher_weight": 0.5})
    with pytest.raises(JoinRefusedError, match=r'training.teacher: the study has "small", this run "large"\n.*0\.5'):
        create_or_join(storage, other, FINGERPRINT)
    assert create_student(storage, None).teacher == made_up_lesson().teacher


@ON_SQLITE
@pytest.mark.parametrize("stored", [None, "{}", json.dumps({"study": TEACHER, "trial": "3"})])
def test_a_row_that_lost_its_teacher_is_not_read(storage: Storage, stored: str | None) -> None:
    """Its trainings would be others; `list` and `delete` still have it."""
    create_student(storage, made_up_lesson())
    with storage.write() as connection:
        connection.execute(update(studies).values(teacher=stored))
    with pytest.raises(UnreadableStudyError, match=r"study student: must be one that .* can read, but "):
        find_study(storage, STUDENT)


def test_answers_that_were_altered_are_refused(tmp_path: Path) -> None:
    """Before anything reads them; and a file that is not there is named."""
    lesson = made_up_lesson()
    storage = create_storage(StorageOptions(f"sqlite:///{tmp_path}/studies.db"))
    session = Session(storage, create_student(storage, lesson))
    file = storage.artifacts / "one"
    file.write_bytes(lesson.content[:-1] + b"\0")
    altered = session.soft_labels
    assert altered is not None
    with pytest.raises(MismatchError, match=r"/one must have SHA-256 \w{64}, but have \w{64}; they were altered"):
        altered.load()
    file.unlink()
    with pytest.raises(MismatchError, match=r"must be at .*/one, but there is no such file; bring the file back"):
        _ = session.soft_labels


def prune_everything(session: Session) -> None:
    while session.history.counts().waiting:
        claim = claim_cell(session)
        trial_id = begin_trial(session, claim)
        prune_trial(session, trial_id, 0.1)
        finish_cell(session, claim, trial_id)


def begin_confirming(session: Session) -> None:
    finish_everything(session)
    cells = [{"hidden_size": 64, "dropout_rate": 0.5, TRAINING_SEED: seed} for seed in (1, 2)]
    spec = following_spec(session.record.spec, f"{session.record.name}/confirm", cells)
    create_or_join(session.storage, spec, FINGERPRINT, cells, parent=session.record)


def become_cross_validated(session: Session) -> None:
    """With folds the default n_validation stays in the study file, and says nothing of it."""
    delete_study(session.storage, session.record)
    create_study(session.storage, make_spec(data={"source": "synthetic", "folds": 5}))


REFUSALS: dict[str, tuple[Callable[[Session], object], str, type[Exception], str]] = {
    "another": (
        lambda session: delete_study(session.storage, session.record),
        FINGERPRINT,
        NotFoundError,
        r"be a finished study of the same storage, but small is none: There is no study small in sqlite:",
    ),
    "unfinished": (
        lambda session: None,
        FINGERPRINT,
        UsageError,
        r"be a finished study, but 4 of 4 cells of small are not done; `fmnist-optuna run`, with the study's "
        r"file if it has one, goes on with it\.",
    ),
    "without a winner": (
        prune_everything,
        FINGERPRINT,
        NotFoundError,
        r"have a winner, but no trial of small is complete\.",
    ),
    "being confirmed": (
        begin_confirming,
        FINGERPRINT,
        UsageError,
        r"be a study whose confirmation, if it has one, chooses a cell, but of that of small 0 of its 2 cells are ",
    ),
    "with folds": (
        become_cross_validated,
        "a" * 64,
        UsageError,
        r"be a study without data\.folds, as one with folds trains its winner on the images that validate its student, "
        r"but small has 5 folds; train its best point in a study without folds, of the same \[data\] table as",
    ),
    "other data": (
        finish_everything,
        "a" * 64,
        UsageError,
        r"be a study of the same images and the same split, synthetic with n_validation 12000 and split_seed 0 "
        r"\(fingerprint a{12}\), but small has synthetic with 12000 and 0 \(fingerprint f{12}\); give both studies",
    ),
}


@ON_SQLITE
@pytest.mark.parametrize("case", REFUSALS)
def test_who_cannot_teach_is_refused_in_one_line(storage: Storage, case: str) -> None:
    """What must hold, what came, and what to do."""
    become, fingerprint, refused, words = REFUSALS[case]
    become(Session(storage, create_study(storage), "worker"))
    with pytest.raises(refused, match=rf"^training\.teacher must {words}"):
        prepare_lesson(student_spec(), fingerprint, storage.options, None)


def test_a_storage_is_not_made_to_look_for_a_teacher(tmp_path: Path) -> None:
    """The refusal leaves no file."""
    options = StorageOptions(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(NotFoundError, match=r"but small is none: There is no storage file .*/none\.db"):
        prepare_lesson(student_spec(), FINGERPRINT, options, None)
    assert list(tmp_path.iterdir()) == []


@ON_SQLITE
def test_an_earlier_storage_is_upgraded_for_a_teacher(storage: Storage) -> None:
    """As for every other study that is made; what is said then is about the teacher."""
    create_study(storage)
    with storage.write() as connection:
        connection.execute(text("DROP INDEX ix_fmnist_trials_study"))  # what the last version has added
        connection.execute(text(f"UPDATE fmnist_schema_version SET version = {SCHEMA_VERSION - 1}"))
    with pytest.raises(UsageError, match="4 of 4 cells of small are not done"):
        prepare_lesson(student_spec(), FINGERPRINT, storage.options, None)


@ON_SQLITE
def test_a_study_that_is_there_asks_no_teacher(storage: Storage) -> None:
    """The teacher may be gone; that the answers are whole is seen before any worker starts."""
    create_student(storage, made_up_lesson())
    assert prepare_lesson(student_spec(), FINGERPRINT, storage.options, None) is None
    (storage.artifacts / "one").unlink()
    with pytest.raises(MismatchError, match="The soft labels of the study must be at"):
        prepare_lesson(student_spec(), FINGERPRINT, storage.options, None)
