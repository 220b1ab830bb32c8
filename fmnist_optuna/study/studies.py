"""The studies of a storage: found by their names, listed, told to stop.

A study is one row of ours in `fmnist_studies` and one study of Optuna under the same name. Reading commands need
only the row.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select, update

from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import StoredRow, studies
from fmnist_optuna.study.records import SEARCH, StudyRecord, UnreadableStudy, read_record, read_record_or_reason
from fmnist_optuna.study.session import Session


@retrying
def find_study_or_none(storage: Storage, name: str) -> StudyRecord | None:
    """The study of this name, or None."""
    with storage.look() as connection:
        row = connection.execute(select(studies).where(studies.c.study_name == name)).one_or_none()
    return None if row is None else read_record(row)


@retrying
def find_study(storage: Storage, name: str | None) -> StudyRecord:
    """The study of this name; without a name the only search there.

    Raises:
        NotFoundError: No such study, or none at all.
        UsageError: No name, and several studies.
        UnreadableStudyError: This version cannot read the study; without a name, the only one there.
    """
    if name is not None:
        record = find_study_or_none(storage, name)
        if record is None:
            raise _no_such_study(storage, name)
        return record
    candidates = [study for study in list_studies(storage) if study.kind == SEARCH]
    readable = [study for study in candidates if isinstance(study, StudyRecord)]
    if not candidates:
        raise NotFoundError(f"There is no study in {storage.name}; `fmnist-optuna run` makes one.")
    if len(readable) == 1:
        return readable[0]
    if len(candidates) == 1:
        return find_study(storage, candidates[0].name)  # which says what is wrong with it
    names = ", ".join(study.name if study in readable else f"{study.name} (unreadable)" for study in candidates)
    raise UsageError(f"The study must be named, as there are several in {storage.name}: {names}.")


def open_following(session: Session, kind: str) -> Session | None:
    """The session of the study of a kind that follows from this one, or None; the same data is part of it.

    Its [confirm] is the present one of this study, which a `run` may have changed since.
    """
    rows = [row for row in find_following(session.storage, session.record.study_id) if row.kind == kind]
    record = next(map(read_record, rows), None)
    if record is None or record.data_fingerprint != session.record.data_fingerprint:
        return None
    spec = record.spec.model_copy(update={"confirm": session.record.spec.confirm})
    return Session(session.storage, replace(record, spec=spec), session.name)


@retrying
def find_following(storage: Storage, study_id: int) -> Sequence[StoredRow]:
    """The rows of the studies that follow from this one: one a kind at most, as their names are made of this one's."""
    with storage.read() as connection:
        return connection.execute(select(studies).where(studies.c.parent_id == study_id)).all()


def find_readable_or_not(storage: Storage, name: str) -> StudyRecord | UnreadableStudy:
    """The study of this name, whether or not this version can read it.

    Raises:
        NotFoundError: No such study.
    """
    for study in list_studies(storage):
        if study.name == name:
            return study
    raise _no_such_study(storage, name)


def _no_such_study(storage: Storage, name: str) -> NotFoundError:
    return NotFoundError(f"There is no study {name} in {storage.name}; `fmnist-optuna list` shows what there is.")


@retrying
def list_studies(storage: Storage) -> list[StudyRecord | UnreadableStudy]:
    """All studies, the oldest first."""
    with storage.read() as connection:
        return [
            read_record_or_reason(row) for row in connection.execute(select(studies).order_by(studies.c.created_at))
        ]


@retrying
def raise_generation(storage: Storage, study_id: int) -> None:
    """Let every worker of a study leave at its next look, wherever it runs."""
    with storage.write() as connection:
        connection.execute(
            update(studies).where(studies.c.study_id == study_id).values(generation=studies.c.generation + 1)
        )
