"""What a study's winner says of the images that another study will train on: its answers, taken once."""

import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.artifacts.soft_labels import hash_soft_labels, pack_soft_labels
from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.processes.children import call_each
from fmnist_optuna.processes.cores import usable_cores
from fmnist_optuna.results.changed_code import explained_by_code
from fmnist_optuna.results.confirmation import find_confirmation
from fmnist_optuna.results.evaluation import StoredWeights, find_weights
from fmnist_optuna.results.unsettled import find_unsettled
from fmnist_optuna.results.winner import winning_attempt
from fmnist_optuna.spec.study_names import name_command_of
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.records import CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following
from fmnist_optuna.study.teacher import Lesson, Teacher
from fmnist_optuna.work.splits import DataPlace, find_place

KEY = "training.teacher"


def check_teacher(session: Session, spec: StudySpec, fingerprint: str) -> None:
    """Refuse a study that another one cannot learn from.

    Args:
        session: Of the teacher.
        spec: Of the study that is to learn.
        fingerprint: Of that study's data and split: with another one the teacher may have been trained on the images
            that the student is validated on, or chosen by the student's own.

    Raises:
        UsageError: It has folds or is of other data, or it or its confirmation is not finished.
        NotFoundError: No trial of it is complete.
    """
    record, counts = session.record, session.history.counts()
    if record.is_cross_validated:  # its n_validation says nothing: each of its images validates once
        raise UsageError(
            f"{KEY} must be a study without data.folds, as one with folds trains its winner on the {record.info.noun}s "
            f"that validate its student, but {record.name} has {record.spec.repeats.n_folds} folds; train its best "
            f"point in a study without folds, of the same [data] table as {spec.name}, and name that."
        )
    if record.data_fingerprint != fingerprint:
        ours, theirs = spec.data, record.spec.data
        raise UsageError(
            f"{KEY} must be a study of the same {record.info.noun}s and the same split, {ours.source} with "
            f"n_validation {ours.n_validation} and split_seed {ours.split_seed} (fingerprint {fingerprint[:12]}), but "
            f"{record.name} has {theirs.source} with {theirs.n_validation} and {theirs.split_seed} (fingerprint "
            f"{record.data_fingerprint[:12]}); give both studies one [data] table."
        )
    if not counts.is_over:
        raise UsageError(
            f"{KEY} must be a finished study, but {counts.waiting + counts.running + counts.parked} of {counts.total} "
            f"cells of {record.name} are not done; {name_command_of(record.name)} goes on with it."
        )
    if not counts.complete:
        raise NotFoundError(f"{KEY} must have a winner, but no trial of {record.name} is complete.")
    if find_confirmation(session) is None and (unsettled := find_unsettled(session, None)) is not None:
        raise UsageError(
            f"{KEY} must be a study whose confirmation, if it has one, chooses a cell, but of that of {record.name} "
            f"{unsettled}."
        )


def make_lesson(
    session: Session, data_dir: Path | None, asking: Callable[[str], object] = lambda teacher: None
) -> Lesson:
    """Take the answers of a study's winner to all training and validation images, in processes of their own.

    Where the study is confirmed, they are the mean of those of the chosen cell's seeds. The test images are not asked
    about.

    Args:
        session: Of the teacher.
        data_dir: Folder with the IDX files, or None for the search order.
        asking: Is told who is asked, before it takes its time.

    Raises:
        MismatchError: Stored weights are missing or altered, or do not score their recorded val_accuracy.
        DataError: The data is not there.
    """
    confirmation, confirming = find_confirmation(session), open_following(session, CONFIRMATION)
    attempt = winning_attempt(session, confirmation)
    runs, of = ([attempt], session)
    if confirmation is not None and confirming is not None:
        runs, of = list(confirmation.chosen.runs), confirming
    weights, place = [find_weights(of, run) for run in runs], find_place(session.record, data_dir)
    flip = session.record.spec.confirm.flip
    teacher = Teacher(
        study=session.record.name,
        trial=attempt.number,
        params=attempt.params,
        n_seeds=len(runs) if of is confirming else 0,
        has_flips=flip,
        artifact=str(uuid.uuid4()),
        sha256="",  # not known yet
    )
    asking(teacher.describe())
    calls = [(of.record.spec, stored, place, flip) for stored in weights]
    with explained_by_code(of, runs[0]):
        total = sum(call_each(_answer, calls, doing="taking the teacher's answers", at_once=usable_cores()))
    content = pack_soft_labels(np.asarray(total / len(calls), np.float32))
    return Lesson(teacher.model_copy(update={"sha256": hash_soft_labels(content)}), content)


def _answer(spec: StudySpec, stored: StoredWeights, place: DataPlace, flip: bool) -> NDArray[np.float64]:
    from fmnist_optuna.results.scoring import answer_images  # loads TensorFlow

    return answer_images(spec, stored, place, flip)
