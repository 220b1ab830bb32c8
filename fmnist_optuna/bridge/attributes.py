"""What is noted on trials of ours: read and written here, with the keys under which Optuna keeps it.

An epoch is 0-based inside; on a trial it is counted from 1, as those read it who look with Optuna's own tools.
"""

import dataclasses
import math
from collections.abc import Sequence
from datetime import datetime

from optuna.trial import BaseTrial, FrozenTrial

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.ledger.records import Attempt, Leg, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import CELL_ID, TOKEN
from fmnist_optuna.search.metric import VAL_ACCURACY, Epoch, Metric

BEST_EPOCH, LEGS, TOLD_NUMBER = "best_epoch", "legs", "told_number"


def is_foreign(trial: FrozenTrial) -> bool:
    """Whether another program added a trial to the study: it is reported, never touched, and counts for nothing."""
    return TOKEN not in trial.system_attrs and CELL_ID not in trial.system_attrs


def stored_attributes(attributes: TrialAttributes) -> dict[str, object]:
    """The attributes that are known, as Optuna keeps them."""
    stored = {name: value for name, value in vars(attributes).items() if value is not None}
    if attributes.best_epoch is not None:
        stored[BEST_EPOCH] = attributes.best_epoch + 1
    if attributes.legs is not None:
        stored[LEGS] = [vars(leg) for leg in attributes.legs]
    return stored


def read_attributes(trial: FrozenTrial) -> TrialAttributes:
    """What is noted on a trial; nothing on one that another program made."""
    if is_foreign(trial):
        return TrialAttributes()
    stored = {field.name: trial.user_attrs.get(field.name) for field in dataclasses.fields(TrialAttributes)}
    if (best_epoch := stored[BEST_EPOCH]) is not None:
        stored[BEST_EPOCH] = int(best_epoch) - 1
    stored[LEGS] = read_legs(trial) or None
    return TrialAttributes(**stored)


def read_legs(trial: BaseTrial) -> tuple[Leg, ...]:
    """Where a trial went on after a pause."""
    return tuple(Leg(**leg) for leg in trial.user_attrs.get(LEGS, ()))


def read_told_number(trial: BaseTrial) -> int:
    """The number that the callbacks of a trial are told: its own, or that of the attempt that began its training."""
    return int(trial.user_attrs.get(TOLD_NUMBER, trial.number))


def read_attempt(
    trial: FrozenTrial,
    n_epochs: int = 0,
    seconds: float = 0.0,
    epochs: Sequence[Epoch] = (),
    metric: Metric = VAL_ACCURACY,
) -> Attempt:
    """A trial as the attempt that it is.

    Args:
        n_epochs: That it has trained.
        seconds: Of these epochs.
        epochs: What they measured, where that was read.
        metric: That the study compares by; of no account where nobody asks for the accuracy of the attempt.
    """
    state = State.from_optuna(trial.state.name)
    has_value = state is not State.FAILED and trial.value is not None and math.isfinite(trial.value)
    return Attempt(
        trial_id=trial_id_of(trial),
        number=trial.number,
        cell_id=str(trial.system_attrs.get(CELL_ID, "")),
        params=trial.params,
        state=state,
        value=trial.value if has_value else None,
        attributes=read_attributes(trial),
        n_epochs=n_epochs,
        seconds=seconds,
        epochs=tuple(epochs),
        began=_seconds(trial.datetime_start) or 0.0,
        ended=_seconds(trial.datetime_complete),
        metric=metric,
    )


def _seconds(moment: datetime | None) -> float | None:
    """Seconds since 1970 UTC."""
    return None if moment is None else moment.timestamp()
