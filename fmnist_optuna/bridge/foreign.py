"""Trials that other programs added to a study, counted in Optuna's tables; Optuna is not imported, as for `status`."""

from sqlalchemy import func, select

from fmnist_optuna.bridge.own_trials import is_own, trials
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage


@retrying
def count_foreign(storage: Storage, study_id: int) -> int:
    """Number of trials of a study that are not ours."""
    query = select(func.count()).where(trials.c.study_id == study_id, ~is_own())
    with storage.read() as connection:
        return int(connection.execute(query).scalar_one())
