"""Trials by id and token: SQLite gives the id of a deleted one to the next, and so may Postgres after a crash."""

import json
from datetime import UTC, datetime

import optuna
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Table, insert, select, update

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
