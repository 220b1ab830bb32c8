"""How a study is removed, in an order that can be repeated after a deletion that broke off."""

import contextlib

import optuna
from sqlalchemy import Connection, delete, select

from fmnist_optuna.bridge.artifacts import remove_artifacts
from fmnist_optuna.bridge.ids import study_id_of
from fmnist_optuna.bridge.storage import PatientStorage, open_optuna
from fmnist_optuna.bridge.stores import open_store
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells, codes, decisions, epochs, openings, predictions, studies, workers
from fmnist_optuna.study.records import StudyRecord, UnreadableStudy, read_record_or_reason
from fmnist_optuna.study.session import checkpoints_of
from fmnist_optuna.study.studies import find_following


def delete_study(storage: Storage, record: StudyRecord | UnreadableStudy) -> None:
    """Remove a study with its trials, curves, openings and weights, and those that follow from it.

    Workers that still run find no cell and leave.

    Raises:
        ArtifactsError: The bucket of its artifacts does not let this machine remove them; the study is still there.
        StorageError: The storage, or that bucket, does not answer within the patience; likewise.
    """
    for following in find_following(storage, record.study_id):
        delete_study(storage, read_record_or_reason(following))
    trials, store = open_optuna(storage), open_store(storage.artifacts, record.place)
    try:
        attempts = trials.get_all_trials(record.study_id, deepcopy=False)
    except KeyError:  # an earlier delete died halfway
        attempts = []
    for attempt in attempts:
        remove_artifacts(storage, store, trials, attempt)
    _clear_checkpoints(storage, record)
    _delete_rows(storage, record.study_id)
    for summary in trials.get_all_studies():
        if summary.study_name == record.name:  # by name: after a deletion that broke off, `run` may have made another
            remove_artifacts(storage, store, trials, optuna.load_study(study_name=record.name, storage=trials))
            _delete_in_optuna(trials, study_id_of(summary))
    checkpoints_of(storage, record).remove_all()  # what a worker wrote meanwhile
    _delete_study_row(storage, record.study_id)  # last, so that a delete that died can be repeated by name


@retrying
def _clear_checkpoints(storage: Storage, record: StudyRecord | UnreadableStudy) -> None:
    checkpoints_of(storage, record).clear()


@retrying
def _delete_rows(storage: Storage, study_id: int) -> None:
    """Every row of a study but that of the study itself."""
    with storage.write() as connection:
        _delete_rows_within(connection, study_id)


def _delete_rows_within(connection: Connection, study_id: int) -> None:
    opened = select(openings.c.opening_id).where(openings.c.study_id == study_id)
    connection.execute(delete(predictions).where(predictions.c.opening_id.in_(opened)))
    for table in (cells, codes, decisions, epochs, openings, workers):
        connection.execute(delete(table).where(table.c.study_id == study_id))


@retrying
def _delete_in_optuna(trials: PatientStorage, study_id: int) -> None:
    with contextlib.suppress(KeyError):  # it is gone, and an outage swallowed the answer
        trials.delete_study(study_id)


@retrying
def _delete_study_row(storage: Storage, study_id: int) -> None:
    """The row of a study, and what came since: workers that entered, cells of a `run` that met it half deleted."""
    with storage.write() as connection:
        connection.execute(select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update())
        _delete_rows_within(connection, study_id)
        connection.execute(delete(studies).where(studies.c.study_id == study_id))
