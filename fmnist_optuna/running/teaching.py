"""The answers that a study learns from, found or taken before it is made."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from fmnist_optuna.errors import NotFoundError
from fmnist_optuna.ledger.connecting import open_storage, upgrade_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.log import log_event
from fmnist_optuna.results.teaching import KEY, check_teacher, make_lesson
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study, find_study_or_none
from fmnist_optuna.study.teacher import Lesson

logger = logging.getLogger(__name__)


def prepare_lesson(
    spec: StudySpec,
    fingerprint: str,
    options: StorageOptions,
    data_dir: Path | None,
    asking: Callable[[str], object] = lambda teacher: None,
) -> Lesson | None:
    """What a study will learn from; None for one without a teacher, and for one that is there and has its own file.

    Args:
        spec: With the data decided.
        fingerprint: Of the data and split.
        options: Of the storage, in which the teacher must be too.
        data_dir: Folder with the IDX files, or None for the search order.
        asking: Is told who is asked, before it takes its time.

    Raises:
        NotFoundError: There is no such teacher.
        UsageError: Nobody can learn from it.
        MismatchError: The file that the study has, or the teacher's weights, are missing or were altered.
        FmnistOptunaError: The storage or the data is not there.
    """
    name = spec.training.teacher
    if not name:
        return None
    try:
        upgrade_storage(options)  # as every `run` and `init` does; neither makes a file
        storage = open_storage(options)
    except NotFoundError as error:
        raise _no_such_teacher(name, str(error)) from error
    try:
        return _find_or_take(storage, spec, fingerprint, data_dir, asking)
    finally:
        storage.close()


def _find_or_take(
    storage: Storage, spec: StudySpec, fingerprint: str, data_dir: Path | None, asking: Callable[[str], object]
) -> Lesson | None:
    if (record := find_study_or_none(storage, spec.name)) is not None:  # whoever joins it learns what it learnt
        if (file := Session(storage, record).soft_labels) is not None:
            file.load()
        return None
    try:
        teacher = Session(storage, find_study(storage, spec.training.teacher))
    except NotFoundError as error:
        raise _no_such_teacher(spec.training.teacher, str(error)) from error
    check_teacher(teacher, spec, fingerprint)
    began = time.monotonic()
    lesson = make_lesson(teacher, data_dir, asking)
    seconds = round(time.monotonic() - began, 1)
    log_event(
        logger, logging.INFO, "soft_labels_made", study=spec.name, teacher=lesson.teacher.describe(), seconds=seconds
    )
    return lesson


def _no_such_teacher(name: str, reason: str) -> NotFoundError:
    return NotFoundError(f"{KEY} must be a finished study of the same storage, but {name} is none: {reason}")
