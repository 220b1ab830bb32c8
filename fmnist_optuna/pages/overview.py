"""All that a report or a dashboard tells of a study, read once. Draws nothing and knows no HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.importance import find_importances
from fmnist_optuna.bridge.trials import is_foreign
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.progress import CellCounts, GridCell
from fmnist_optuna.ledger.records import Epoch
from fmnist_optuna.results.confirmation import Confirmation, open_confirming
from fmnist_optuna.results.winner import Winner, find_winner
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import StudyRecord


@dataclass(frozen=True)
class Attempt:
    """One trial, whatever came of it.

    Args:
        state: Optuna's, in small letters.
        began: Seconds since 1970 UTC; `ended` likewise, None while it runs.
        curve: Its epochs.
        best_epoch: 0-based epoch whose weights were kept; None unless COMPLETE.
    """

    number: int
    params: Params
    state: str
    value: float | None
    worker: str
    began: float
    ended: float | None
    reason: str | None
    curve: tuple[Epoch, ...]
    best_epoch: int | None
    environment: dict[str, Any] | None


@dataclass(frozen=True)
class Overview:
    """A study as it stands.

    Args:
        cells: Every cell of the grid.
        attempts: Every trial of ours, by number.
        n_foreign: Trials that other programs added to the study.
        winner: None before the first COMPLETE trial.
        openings: Of the grid's study and of its confirmation, the oldest first.
        importances: Share of each parameter, 0..1; empty where it says nothing.
    """

    record: StudyRecord
    storage: str
    counts: CellCounts
    elapsed_seconds: float
    cells: tuple[GridCell, ...]
    attempts: tuple[Attempt, ...]
    winner: Winner | None
    confirmation: Confirmation | None
    openings: tuple[Opening, ...]
    importances: dict[str, float]
    n_foreign: int


def read_overview(session: Session) -> Overview:
    """Read a study; nothing is scored and nothing is written."""
    confirming = open_confirming(session)
    openings = [*session.openings.recorded(), *(confirming.openings.recorded() if confirming else ())]
    counts, cells = session.history.counts(), session.history.grid()
    winner = find_winner(session) if counts.complete else None
    return Overview(
        record=session.record,
        storage=session.storage.name,
        counts=counts,
        elapsed_seconds=session.history.elapsed_seconds(),
        cells=tuple(cells),
        attempts=tuple(_read_attempts(session)),
        winner=winner,
        confirmation=None if winner is None else winner.confirmation,
        openings=tuple(sorted(openings, key=lambda opening: opening.opened_at)),
        importances=find_importances(cells),
        n_foreign=session.history.n_foreign(),
    )


def _read_attempts(session: Session) -> list[Attempt]:
    everybodys = session.trials.get_all_trials(session.record.study_id, deepcopy=False)
    trials = [trial for trial in everybodys if not is_foreign(trial)]
    curves = session.history.curves([trial_id_of(trial) for trial in trials])
    return [_attempt(trial, curves[trial_id_of(trial)]) for trial in trials]


def _attempt(trial: optuna.trial.FrozenTrial, curve: Sequence[Epoch]) -> Attempt:
    attributes = trial.user_attrs
    best_epoch = attributes.get("best_epoch")
    return Attempt(
        number=trial.number,
        params=trial.params,
        state=trial.state.name.lower(),
        value=trial.value,
        worker=str(attributes.get("worker", "")),
        began=trial.datetime_start.timestamp() if trial.datetime_start else 0.0,
        ended=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        reason=attributes.get("reason"),
        curve=tuple(curve),
        best_epoch=None if best_epoch is None else int(best_epoch) - 1,
        environment=attributes.get("environment"),
    )
