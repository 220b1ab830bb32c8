"""How long attempts have trained, over all the stretches from rung to rung."""

from dataclasses import dataclass, field

from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.study.session import Session


@dataclass
class TrainingTimes:
    """How long the attempts at running cells have trained, as a supervisor sees it who looks again and again.

    An attempt that was parked goes on under a new claim. Its epochs are recorded with their seconds but not with their
    claim; those of the claim take less than the time since then. So what is recorded beyond that time was trained
    before, and the first look at a claim knows it best.
    """

    _before: dict[int, float] = field(default_factory=dict)  # seconds in earlier stretches, by trial id
    _taken_over: dict[int, float] = field(default_factory=dict)  # those of them that an earlier attempt trained

    def find_overlong(self, session: Session, limit_seconds: float) -> set[str]:
        """The workers of a study whose attempt has trained longer than a limit."""
        running = session.history.running()
        self._before = {cell.trial_id: self._trained_before(cell) for cell in running if cell.trial_id is not None}
        return {cell.worker for cell in running if self._is_overlong(session, cell, limit_seconds)}

    def _trained_before(self, cell: Cell) -> float:
        """Seconds recorded before the claim, those included that the attempt has taken over from an earlier one."""
        return max(0.0, self._before.get(cell.trial_id or 0, 0.0), cell.seconds - cell.held_seconds)

    def _is_overlong(self, session: Session, cell: Cell, limit_seconds: float) -> bool:
        before = self._before.get(cell.trial_id or 0, 0.0)
        if cell.held_seconds > limit_seconds:
            return True
        if before + cell.held_seconds <= limit_seconds:
            return False
        trial_id = cell.trial_id or 0
        taken_over = self._taken_over.get(trial_id) or _seconds_taken_over(session, trial_id)  # 0.0 may be noted later
        self._taken_over[trial_id] = taken_over
        return max(0.0, before - taken_over) + cell.held_seconds > limit_seconds


def _seconds_taken_over(session: Session, trial_id: int) -> float:
    """Seconds of the epochs that an earlier attempt has trained, from whose checkpoint this one goes on."""
    from fmnist_optuna.bridge.attributes import read_attributes  # loads Optuna

    try:
        n_kept = read_attributes(session.optuna_storage.get_trial(trial_id)).kept_epochs or 0
    except KeyError:  # somebody deleted the trial
        return 0.0
    return sum(epoch.seconds for epoch in session.history.curve(trial_id)[:n_kept]) if n_kept else 0.0
