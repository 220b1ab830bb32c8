"""Inserting the trial of a claim: one transaction, on Postgres one round trip, at one cost however many there are.

Optuna's own way asks some fifty times, with the study's row locked from the second time on, and counts all trials. Here
the lock is the same one, so that `ask` of stock Optuna and a join stay out meanwhile; the number of a trial is that of
the last one and one more, which is how many have a smaller id, as Optuna counts.

On Postgres its commit does not wait for the disk, and so holds the lock no longer than it takes to write. The log is
written in order, so whatever commits later and waits, as binding the trial to its cell does, makes the trial durable
too. A crash of the server before that loses it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Table, insert, select
from sqlalchemy.engine import Connection

from fmnist_optuna.ledger.message import send_message
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import studies

_trials: Table = models.TrialModel.__table__
_params: Table = models.TrialParamModel.__table__
_user_attributes: Table = models.TrialUserAttributeModel.__table__
_system_attributes: Table = models.TrialSystemAttributeModel.__table__

# What each table has of a trial, by its column, with the name that `_parameters` has for it.
_COLUMNS: Mapping[Table, Mapping[str, str]] = {
    _params: {"param_name": "names", "param_value": "values", "distribution_json": "distributions"},
    _user_attributes: {"key": "user_keys", "value_json": "user_values"},
    _system_attributes: {"key": "keys", "value_json": "own_values"},
}

# The planner is given each step for itself: what it knows of a table that grows is of the time when it was small.
# The statement that counts begins after the lock is there, and so sees all that was committed under it before.
_MESSAGE = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL synchronous_commit = off;
SELECT FROM studies WHERE study_id = %(study_id)s FOR UPDATE;
WITH given AS (
    SELECT * FROM unnest(%(names)s::text[], %(values)s::float8[], %(distributions)s::text[], %(kinds)s::text[])
        WITH ORDINALITY AS given (name, value, distribution, kind, place)
), first AS MATERIALIZED (
    SELECT trial_id FROM trials WHERE study_id = %(study_id)s ORDER BY trial_id LIMIT 1
), present AS MATERIALIZED (
    SELECT param_name AS name, distribution_json::jsonb AS range
    FROM trial_params WHERE trial_id = (SELECT trial_id FROM first)
), other AS MATERIALIZED (
    SELECT FROM given JOIN present USING (name)
    WHERE kind::jsonb <> jsonb_build_array(range->'name', range->'attributes'->'log', range->'attributes'->'choices')
), made AS (
    INSERT INTO trials (number, study_id, state, datetime_start)
    SELECT
        coalesce((SELECT number + 1 FROM trials WHERE study_id = %(study_id)s ORDER BY trial_id DESC LIMIT 1), 0),
        study_id, 'RUNNING', %(began)s
    FROM fmnist_studies
    WHERE study_id = %(study_id)s AND grids = %(grids)s AND NOT EXISTS (SELECT FROM other)
    RETURNING trial_id, number
), params AS (
    INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT trial_id, name, value, distribution FROM made, given ORDER BY place
), user_attributes AS (
    INSERT INTO trial_user_attributes (trial_id, key, value_json)
    SELECT trial_id, key, value FROM made, unnest(%(user_keys)s::text[], %(user_values)s::text[]) AS noted (key, value)
), system_attributes AS (
    INSERT INTO trial_system_attributes (trial_id, key, value_json)
    SELECT trial_id, key, value FROM made, unnest(%(keys)s::text[], %(own_values)s::text[]) AS noted (key, value)
)
SELECT trial_id, number FROM made;
COMMIT
"""


@dataclass(frozen=True)
class NewTrial:
    """Id and number of a trial that was made."""

    trial_id: int
    number: int


def insert_trial(storage: Storage, study_id: int, template: FrozenTrial, grids: str) -> NewTrial | None:
    """Make a RUNNING trial of ours, in a transaction of its own.

    Args:
        template: What `make_template` gives.
        grids: What the study must have accepted as it is made, as it is stored: its ranges are made for that.

    Returns:
        The trial; None where the study has accepted something else by now, was deleted, or has a first trial with
        ranges of another kind.
    """
    if storage.is_sqlite:
        with storage.write() as connection:
            return _insert(connection, study_id, template, grids)
    where = {"study_id": study_id, "grids": grids, "began": _began(template)}
    with storage.single() as connection:
        rows = send_message(connection, _MESSAGE, {**where, **_parameters(template)})
    return NewTrial(*rows[-1]) if rows else None


def _parameters(template: FrozenTrial) -> dict[str, list[object]]:
    """A template by columns."""
    distributions = template.distributions
    return {
        "names": list(template.params),
        "values": [float(distributions[name].to_internal_repr(value)) for name, value in template.params.items()],
        "distributions": [distribution_to_json(distributions[name]) for name in template.params],
        "kinds": [_kind(distributions[name]) for name in template.params],
        "user_keys": list(template.user_attrs),
        "user_values": [json.dumps(value) for value in template.user_attrs.values()],
        "keys": list(template.system_attrs),
        "own_values": [json.dumps(value) for value in template.system_attrs.values()],
    }


def _kind(distribution: BaseDistribution) -> str:
    """JSON of what all ranges of a parameter must have in common in a study, as Optuna checks it."""
    attributes = json.loads(distribution_to_json(distribution))["attributes"]
    choices = attributes["choices"] if isinstance(distribution, CategoricalDistribution) else None
    return json.dumps([type(distribution).__name__, attributes.get("log"), choices])


def _began(template: FrozenTrial) -> datetime | None:
    """In UTC without a zone, as Optuna stores it."""
    began = template.datetime_start
    return None if began is None else began.astimezone(UTC).replace(tzinfo=None)


def _insert(connection: Connection, study_id: int, template: FrozenTrial, grids: str) -> NewTrial | None:
    """The same in a transaction that keeps all other writers out."""
    accepted = connection.execute(select(studies.c.grids).where(studies.c.study_id == study_id)).scalar_one_or_none()
    if accepted != grids or not _is_compatible(connection, study_id, template):
        return None
    last = select(_trials.c.number).where(_trials.c.study_id == study_id).order_by(_trials.c.trial_id.desc()).limit(1)
    before = connection.execute(last).scalar_one_or_none()
    number = 0 if before is None else before + 1
    row = {"number": number, "study_id": study_id, "state": TrialState.RUNNING, "datetime_start": _began(template)}
    made = connection.execute(insert(_trials).values(row).returning(_trials.c.trial_id)).scalar_one()
    given = _parameters(template)
    for table, columns in _COLUMNS.items():
        names = [given[source] for source in columns.values()]
        rows = [dict(zip(columns, each, strict=True)) for each in zip(*names, strict=True)]
        if rows:
            connection.execute(insert(table), [{"trial_id": made, **row} for row in rows])
    return NewTrial(made, number)


def _is_compatible(connection: Connection, study_id: int, template: FrozenTrial) -> bool:
    """Whether Optuna takes the ranges beside those of the study's first trial."""
    first = select(_trials.c.trial_id).where(_trials.c.study_id == study_id).order_by(_trials.c.trial_id).limit(1)
    present = select(_params.c.param_name, _params.c.distribution_json).where(
        _params.c.trial_id == first.scalar_subquery()
    )
    try:
        for name, text in connection.execute(present):
            if name in template.distributions:
                check_distribution_compatibility(json_to_distribution(text), template.distributions[name])
    except ValueError:
        return False
    return True
