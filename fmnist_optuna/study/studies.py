"""The studies of a storage: found by their names, listed, told to stop.

A study is one row of ours in `fmnist_studies` and one study of Optuna under the same name. Reading commands need
only the row.
"""

from collections.abc import Sequence

from sqlalchemy import select, update

from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import StoredRow, studies
from fmnist_optuna.study.records import SEARCH, StudyRecord, UnreadableStudy, read_record, read_record_or_reason


@retrying
def find_study_or_none(storage: Storage, name: str) -> StudyRecord | None:
    """The study of this name, or None."""
    with storage.read() as connection:
        row = connection.execute(select(studies).where(studies.c.study_name == name)).one_or_none()
    return None if row is None else read_record(row)


@retrying
def find_study(storage: Storage, name: str | None) -> StudyRecord:
    """The study of this name; without a name the only study there, confirmations aside.

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


def find_confirmation_study(storage: Storage, record: StudyRecord) -> StudyRecord | None:
    """The study that confirms this one, or None."""
    return next(map(read_record, find_confirmations(storage, record.study_id)), None)


@retrying
def find_confirmations(storage: Storage, study_id: int) -> Sequence[StoredRow]:
    """The rows of the studies that confirm this one: at most one, as its name is made of this one's."""
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
