"""Failing a trial that no cell has, by id and token: a crash of Postgres may have given its id to another one."""

import json
from datetime import UTC, datetime

from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Table, insert, select, update

from fmnist_optuna.bridge.attributes import stored_attributes
from fmnist_optuna.bridge.own_trials import is_made_under
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.storage import Storage

_trials: Table = models.TrialModel.__table__
_user_attributes: Table = models.TrialUserAttributeModel.__table__


@retrying
def fail_orphan(storage: Storage, trial_id: int, token: str) -> bool:
    """Mark a trial FAIL with the reason "lost", unless it is finished, gone, or another one; whether that was done.

    Args:
        token: Of the claim that it was made for.
    """
    failed = (
        update(_trials)
        .where(_trials.c.trial_id == trial_id, _trials.c.state == TrialState.RUNNING, is_made_under(trial_id, token))
        .values(state=TrialState.FAIL, datetime_complete=datetime.now(UTC).replace(tzinfo=None))
    )
    noted = stored_attributes(TrialAttributes(reason="lost"))
    rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in noted.items()]
    with storage.write() as connection:
        if connection.execute(failed).rowcount == 0:
            return False
        known = select(_user_attributes.c.key).where(_user_attributes.c.trial_id == trial_id)
        present = set(connection.execute(known).scalars())
        if new := [row for row in rows if row["key"] not in present]:
            connection.execute(insert(_user_attributes), new)
        return True
