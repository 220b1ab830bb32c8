"""What a worker asks of Optuna most, each in one statement on Postgres: find a study; read, report, finish a trial.

Optuna's own storage sends five to nine for each, and a worker far from the database waits for every one of them. All
else is Optuna's own, and so is what it says where a trial is not there or is finished.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from optuna.distributions import json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from fmnist_optuna.ledger.engine import single
from fmnist_optuna.ledger.tables import StoredRow

_FIND = text("SELECT study_id FROM studies WHERE study_name = :name")

_DIRECTIONS = text("""
SELECT array_agg(direction::text ORDER BY objective) AS names FROM study_directions WHERE study_id = :study_id
""")

_READ = text("""
SELECT number, state::text AS state, datetime_start, datetime_complete,
    (SELECT json_agg(json_build_array(value, value_type) ORDER BY objective)
        FROM trial_values WHERE trial_id = trials.trial_id)::text AS values,
    (SELECT json_agg(json_build_array(param_name, param_value, distribution_json) ORDER BY param_id)
        FROM trial_params WHERE trial_id = trials.trial_id)::text AS params,
    (SELECT json_agg(json_build_array(key, value_json))
        FROM trial_user_attributes WHERE trial_id = trials.trial_id)::text AS user_attributes,
    (SELECT json_agg(json_build_array(key, value_json))
        FROM trial_system_attributes WHERE trial_id = trials.trial_id)::text AS system_attributes,
    (SELECT json_agg(json_build_array(step, intermediate_value, intermediate_value_type))
        FROM trial_intermediate_values WHERE trial_id = trials.trial_id)::text AS reported
FROM trials WHERE trial_id = :trial_id
""")

_REPORT = text("""
INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
SELECT trial_id, :step, :value, CAST(:kind AS trialintermediatevaluetype)
FROM trials WHERE trial_id = :trial_id AND state IN ('RUNNING', 'WAITING')
ON CONFLICT (trial_id, step) DO UPDATE
SET intermediate_value = excluded.intermediate_value, intermediate_value_type = excluded.intermediate_value_type
RETURNING trial_id
""")

_FINISH = text("""
WITH finished AS (
    UPDATE trials SET state = CAST(:state AS trialstate), datetime_complete = :now
    WHERE trial_id = :trial_id AND state IN ('RUNNING', 'WAITING')
    RETURNING trial_id
), valued AS (
    INSERT INTO trial_values (trial_id, objective, value, value_type)
    SELECT trial_id, 0, :value, CAST(:kind AS trialvaluetype) FROM finished WHERE :has_value
    ON CONFLICT (trial_id, objective) DO UPDATE SET value = excluded.value, value_type = excluded.value_type
)
SELECT trial_id FROM finished
""")


class PostgresStorage(RDBStorage):
    """Optuna's storage on Postgres, with fewer round trips."""

    def get_study_id_from_name(self, study_name: str) -> int:
        """As Optuna's."""
        row = self._execute(_FIND, name=study_name)
        return super().get_study_id_from_name(study_name) if row is None else int(row.study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As Optuna's."""
        row = self._execute(_DIRECTIONS, study_id=study_id)
        names: list[str] | None = None if row is None else row.names
        return super().get_study_directions(study_id) if not names else [StudyDirection[name] for name in names]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's."""
        row = self._execute(_READ, trial_id=trial_id)
        return super().get_trial(trial_id) if row is None else _read_trial(row, trial_id)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna's."""
        value, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        if self._execute(_REPORT, trial_id=trial_id, step=step, value=value, kind=kind.name) is None:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's, whose own is used for what is not the end of a trial with one value at most."""
        if not state.is_finished() or (values is not None and len(values) > 1):
            return super().set_trial_state_values(trial_id, state, values)
        value, kind = TrialValueModel.value_to_stored_repr(values[0] if values else 0.0)
        how = {"value": value, "kind": kind.name, "has_value": bool(values)}
        now = datetime.now(UTC).replace(tzinfo=None)
        if self._execute(_FINISH, trial_id=trial_id, state=state.name, now=now, **how) is None:
            return super().set_trial_state_values(trial_id, state, values)
        return True

    def _execute(self, statement: TextClause, **parameters: object) -> StoredRow | None:
        """The row that a statement gives, if any.

        Raises:
            StorageInternalError: As all of Optuna's storage does.
        """
        try:
            with single(), self.engine.begin() as connection:
                return connection.execute(statement, parameters).one_or_none()
        except SQLAlchemyError as error:
            raise StorageInternalError("A statement of a trial failed.") from error


def _read_trial(row: StoredRow, trial_id: int) -> FrozenTrial:
    params = [(name, float(value), json_to_distribution(kind)) for name, value, kind in _read_list(row.params)]
    values = [
        TrialValueModel.stored_repr_to_value(_read_float(value), TrialValueModel.TrialValueType[kind])
        for value, kind in _read_list(row.values)
    ]
    kinds = TrialIntermediateValueModel.TrialIntermediateValueType
    return FrozenTrial(
        number=row.number,
        state=TrialState[row.state],
        value=None,
        values=values or None,
        datetime_start=_read_time(row.datetime_start),
        datetime_complete=_read_time(row.datetime_complete),
        params={name: kind.to_external_repr(value) for name, value, kind in params},
        distributions={name: kind for name, _, kind in params},
        user_attrs={key: json.loads(value) for key, value in _read_list(row.user_attributes)},
        system_attrs={key: json.loads(value) for key, value in _read_list(row.system_attributes)},
        intermediate_values={
            int(step): TrialIntermediateValueModel.stored_repr_to_intermediate_value(_read_float(value), kinds[kind])
            for step, value, kind in _read_list(row.reported)
        },
        trial_id=trial_id,
    )


def _read_list(stored: str | None) -> list[list[str]]:
    """The rows of a table that belong to a trial."""
    rows: list[list[str]] = json.loads(stored or "[]")
    return rows


def _read_float(stored: object) -> float | None:
    """JSON has 1.0 as 1, and NaN as a text."""
    return None if stored is None else float(str(stored))


def _read_time(stored: datetime | None) -> datetime | None:
    """In the zone of this process without saying so, as Optuna gives it; stored in UTC."""
    return None if stored is None else stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
