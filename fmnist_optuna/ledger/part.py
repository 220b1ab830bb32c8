"""What every view of one study in a storage has: the storage, the study's id, and the storage's patience."""

from sqlalchemy import ColumnElement, func

from fmnist_optuna.ledger.outages import Patience
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import epochs
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric


class StudyPart:
    """Rows of one study.

    Args:
        storage: Where the study lives.
        study_id: Optuna's id of the study.
    """

    def __init__(self, storage: Storage, study_id: int) -> None:
        self.storage = storage
        self.study_id = study_id

    @property
    def patience(self) -> Patience:
        """How long its operations wait for the database."""
        return self.storage.patience


class ComparedPart(StudyPart):
    """A part that compares cells.

    Args:
        metric: By which it does; the others as of any part.
    """

    def __init__(self, storage: Storage, study_id: int, metric: Metric = VAL_ACCURACY) -> None:
        super().__init__(storage, study_id)
        self._metric = metric

    @property
    def _measured(self) -> ColumnElement[float]:
        """The column of an epoch with what it measured of the metric."""
        return epochs.c["objective" if self._metric.is_compiled else self._metric.name]

    def _best(self, values: ColumnElement[float]) -> ColumnElement[float]:
        """The best of the values of a column."""
        return func.max(values) if self._metric.direction == "maximize" else func.min(values)

    def _score(self, value: float | None) -> float | None:
        return None if value is None else self._metric.score(value)
