"""How a study is removed, in an order that can be repeated after a deletion that broke off."""

import optuna
from sqlalchemy import delete, select

from fmnist_optuna.artifacts.checkpoints import Checkpoints
from fmnist_optuna.bridge.artifacts import remove_artifacts
from fmnist_optuna.bridge.ids import study_id_of
from fmnist_optuna.bridge.storage import open_optuna
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells, codes, decisions, epochs, openings, predictions, studies, workers
from fmnist_optuna.study.records import StudyRecord, UnreadableStudy, read_record_or_reason
from fmnist_optuna.study.studies import find_confirmations


def delete_study(storage: Storage, record: StudyRecord | UnreadableStudy) -> None:
    """Remove a study with its trials, curves, openings, weights and confirmation.

    Workers that still run find no cell and leave.
    """
    for confirmation in find_confirmations(storage, record.study_id):
        delete_study(storage, read_record_or_reason(confirmation))
    trials = open_optuna(storage)
    try:
        attempts = trials.get_all_trials(record.study_id, deepcopy=False)
    except KeyError:  # an earlier delete died halfway
        attempts = []
    for attempt in attempts:
        remove_artifacts(storage.artifacts, trials, attempt)
    with storage.write() as connection:
        opened = select(openings.c.opening_id).where(openings.c.study_id == record.study_id)
        connection.execute(delete(predictions).where(predictions.c.opening_id.in_(opened)))
        for table in (cells, codes, decisions, epochs, openings, workers):
            connection.execute(delete(table).where(table.c.study_id == record.study_id))
    for summary in trials.get_all_studies():
        if summary.study_name == record.name:  # by name: after a deletion that broke off, `run` may have made another
            remove_artifacts(storage.artifacts, trials, optuna.load_study(study_name=record.name, storage=trials))
            trials.delete_study(study_id_of(summary))
    Checkpoints(storage.artifacts, record.study_id).remove_all()
    with storage.write() as connection:  # last, so that a delete that died can be repeated by name
        connection.execute(delete(studies).where(studies.c.study_id == record.study_id))
