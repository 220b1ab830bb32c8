"""Trials by id and by the token of their claim: marked as failed, and told from another trial that got their id.

SQLite gives the id of a deleted trial to the next one, and so may Postgres after a crash.
"""

import json
from datetime import UTC, datetime

import optuna
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Table, delete, insert, select, update

from fmnist_optuna.bridge.attributes import stored_attributes
from fmnist_optuna.bridge.own_trials import is_made_under
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import TOKEN

_trials: Table = models.TrialModel.__table__
_user_attributes: Table = models.TrialUserAttributeModel.__table__


def token_of(trial: optuna.Trial) -> str | None:
    """The token of the claim that a trial was made for; None of one that a program of before made."""
    token = trial._cached_frozen_trial.system_attrs.get(TOKEN)
    return None if token is None else str(token)


@retrying
def is_made_for(storage: Storage, trial_id: int, token: str) -> bool:
    """Whether the trial with this id is still the one that was made for the claim with this token."""
    with storage.look() as connection:
        return bool(connection.execute(select(is_made_under(trial_id, token))).scalar_one())


@retrying
def fail_trial(storage: Storage, trial_id: int, attributes: TrialAttributes, token: str | None = None) -> bool:
    """Mark a running trial FAIL, and note why, in one transaction; one that is finished or gone stays as it is.

    Args:
        attributes: Its reason, and whatever else is to be noted. With an error it counts against the cell.
        token: Of the claim that it was made for, where its id may be that of another trial by now.

    Returns:
        Whether that was done.
    """
    failed = (
        update(_trials)
        .where(_trials.c.trial_id == trial_id, _trials.c.state == TrialState.RUNNING)
        .values(state=TrialState.FAIL, datetime_complete=datetime.now(UTC).replace(tzinfo=None))
    )
    if token is not None:
        failed = failed.where(is_made_under(trial_id, token))
    noted = stored_attributes(attributes)
    rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in noted.items()]
    is_noted = (_user_attributes.c.trial_id == trial_id) & _user_attributes.c.key.in_(noted)
    with storage.write() as connection:
        if connection.execute(failed).rowcount == 0:
            return False
        if rows:
            connection.execute(delete(_user_attributes).where(is_noted))
            connection.execute(insert(_user_attributes), rows)
        return True


def fail_orphan(storage: Storage, trial_id: int, token: str) -> bool:
    """Mark a running trial FAIL that no cell has any more, as `fail_trial` does."""
    return fail_trial(storage, trial_id, TrialAttributes(reason="lost"), token)
