"""What is stored of an epoch, and how that goes with a renewal in one statement."""

from collections.abc import Mapping

from sqlalchemy import Executable, Select, Update, exists, literal, select
from sqlalchemy.dialects import postgresql

from fmnist_optuna.ledger.tables import cells, epochs
from fmnist_optuna.search.metric import Epoch


def make_row(study_id: int, trial_id: int, epoch: Epoch) -> dict[str, float | None]:
    """An epoch as its row."""
    measured = {name: _finite(value) for name, value in vars(epoch).items()}
    return {"study_id": study_id, "trial_id": trial_id, **measured}


def record_once(renewal: Update, row: Mapping[str, float | None], answer: Select[int]) -> Executable:
    """Renew, store the epoch if that changed a row, and answer then, in one statement as Postgres takes it."""
    renewed = renewal.returning(cells.c.cell_id).cte("renewed")
    values = select(*(literal(value, epochs.c[name].type) for name, value in row.items())).select_from(renewed)
    stored = postgresql.insert(epochs).from_select(list(row), values).on_conflict_do_nothing()
    return answer.where(exists(select(renewed.c.cell_id))).add_cte(stored.cte("stored"))


def _finite(value: float | None) -> float | None:
    """NULL for what a comparison in the database could not order."""
    return value if value is not None and value - value == 0 else None
