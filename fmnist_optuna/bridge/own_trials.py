"""How a trial of ours is known in Optuna's tables, for those who import no Optuna: the table is named here."""

import json

from sqlalchemy import ColumnElement, column, exists, table

from fmnist_optuna.ledger.tables import TOKEN

system_attributes = table("trial_system_attributes", column("trial_id"), column("key"), column("value_json"))


def is_made_under(trial_id: int, token: str) -> ColumnElement[bool]:
    """Whether there is a trial with this id that was made for the claim with this token."""
    return exists().where(
        system_attributes.c.trial_id == trial_id,
        system_attributes.c.key == TOKEN,
        system_attributes.c.value_json == json.dumps(token),
    )
