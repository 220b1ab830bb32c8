"""How trials of ours are known in Optuna's tables, for those who import no Optuna: the tables are named here."""

import json

from sqlalchemy import ColumnElement, column, exists, table

from fmnist_optuna.ledger.tables import OWN_ATTRIBUTES, TOKEN

trials = table("trials", column("trial_id"), column("study_id"), column("state"))
system_attributes = table("trial_system_attributes", column("trial_id"), column("key"), column("value_json"))
user_attributes = table("trial_user_attributes", column("trial_id"), column("key"), column("value_json"))


def is_made_under(trial_id: int, token: str) -> ColumnElement[bool]:
    """Whether there is a trial with this id that was made for the claim with this token."""
    return exists().where(
        system_attributes.c.trial_id == trial_id,
        system_attributes.c.key == TOKEN,
        system_attributes.c.value_json == json.dumps(token),
    )


def is_own() -> ColumnElement[bool]:
    """Whether a trial of the query about it was made for a claim of ours."""
    is_its = system_attributes.c.trial_id == trials.c.trial_id
    return exists().where(is_its, system_attributes.c.key.in_(OWN_ATTRIBUTES))
