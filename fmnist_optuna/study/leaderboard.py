"""All attempts of a study, one row each, the best first: Optuna's trials with our epochs."""

import math
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.trials import is_foreign
from fmnist_optuna.errors import NotFoundError
from fmnist_optuna.ledger.tables import CELL_ID
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.session import Session


@dataclass(frozen=True)
class TrialRow:
    """One attempt.

    Args:
        number: 0-based trial number.
        cell_id: Cell, or "" for a trial that another program made, of which the rest is what that program left.
        state: Optuna's state.
        value: val_accuracy, 0..1: of the kept weights when COMPLETE, the last one reported when PRUNED.
        seconds: Of its epochs.
        attempt: Which attempt at its cell, from 1.
        reason: Why it was cut or failed.
        error: What went wrong, when the attempt is to blame.
    """

    trial_id: int
    number: int
    cell_id: str
    state: str
    params: Params
    value: float | None
    n_epochs: int
    seconds: float
    attempt: int
    worker: str
    seed: int | None
    reason: str | None
    error: str | None

    @property
    def is_foreign(self) -> bool:
        """Whether another program added it to the study."""
        return not self.cell_id


def read_trials(session: Session) -> list[TrialRow]:
    """All attempts: COMPLETE by falling value, then PRUNED, RUNNING and FAIL, each by number; foreign trials last."""
    totals = session.history.epoch_totals()
    trials = session.trials.get_all_trials(session.record.study_id, deepcopy=False)
    ranks = {"COMPLETE": 0, "PRUNED": 1, "RUNNING": 2, "WAITING": 3, "FAIL": 4}
    rows = [_row(trial, totals.get(trial_id_of(trial), (0, 0.0))) for trial in trials]
    return sorted(rows, key=lambda row: (row.is_foreign, ranks[row.state], -(row.value or 0.0), row.number))


def read_trial(session: Session, number: int) -> TrialRow:
    """One attempt by its number.

    Raises:
        NotFoundError: The study has no such trial.
    """
    for row in read_trials(session):
        if row.number == number:
            return row
    raise NotFoundError(
        f"study {session.record.name}: there is no trial {number}; "
        f"`fmnist-optuna trials {session.record.name}` shows what there is."
    )


def _row(trial: FrozenTrial, totals: tuple[int, float]) -> TrialRow:
    attributes = {} if is_foreign(trial) else trial.user_attrs
    return TrialRow(
        trial_id=trial_id_of(trial),
        number=trial.number,
        cell_id=str(trial.system_attrs.get(CELL_ID, "")),
        state=trial.state.name,
        params=trial.params,
        value=trial.value if trial.value is not None and math.isfinite(trial.value) else None,
        n_epochs=totals[0],
        seconds=totals[1],
        attempt=int(attributes.get("attempt", 1)),
        worker=str(attributes.get("worker", "")),
        seed=attributes.get("seed"),
        reason=attributes.get("reason"),
        error=attributes.get("error"),
    )
