"""Trials that other programs added to a study, counted in Optuna's tables.

Imports no Optuna, as `status` does without it: the table of trials is named here.
"""

from sqlalchemy import column, exists, func, select, table

from fmnist_optuna.bridge.own_trials import system_attributes as _attributes
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import OWN_ATTRIBUTES

_trials = table("trials", column("trial_id"), column("study_id"))


@retrying
def count_foreign(storage: Storage, study_id: int) -> int:
    """Number of trials of a study that are not ours."""
    is_own = exists().where(_attributes.c.trial_id == _trials.c.trial_id, _attributes.c.key.in_(OWN_ATTRIBUTES))
    query = select(func.count()).where(_trials.c.study_id == study_id, ~is_own)
    with storage.read() as connection:
        return int(connection.execute(query).scalar_one())
