"""The attempts of a study: Optuna's trials with what our tables know of their epochs."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.errors import NotFoundError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.leaders import as_point
from fmnist_optuna.ledger.records import Attempt, Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import canonical_json
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.search.repeats import place_of, point_of
from fmnist_optuna.study.records import CONFIRMATION, StudyRecord
from fmnist_optuna.study.session import Session

COLUMNS: Mapping[str, Callable[[Attempt], Json]] = {
    "trial": lambda attempt: attempt.number,
    "cell": lambda attempt: attempt.cell_id,
    "state": lambda attempt: attempt.state.optuna_name,
    "val_accuracy": lambda attempt: attempt.val_accuracy,
    "epochs": lambda attempt: attempt.n_epochs,
    "seconds": lambda attempt: round(attempt.seconds, 3),
    "attempt": lambda attempt: attempt.attributes.attempt or 1,
    "worker": lambda attempt: attempt.worker,
    "reason": lambda attempt: attempt.attributes.reason,
    "error": lambda attempt: attempt.attributes.error,
    "rung": lambda attempt: attempt.rung,
    "foreign": lambda attempt: attempt.is_foreign,
    "value": lambda attempt: attempt.value,
    "metric": lambda attempt: attempt.metric.name,
}
TRAINED_ON_VALIDATION = "trained_on_validation"  # a column, and a key of answers
ORDER = (State.COMPLETE, State.PRUNED, State.PARKED, State.RUNNING, State.WAITING, State.FAILED)


def list_attempts(session: Session) -> list[Attempt]:
    """All attempts: complete ones, the best first, then pruned, parked, running and failed ones; foreign last."""
    totals = session.history.epoch_totals()
    trials = session.optuna_storage.get_all_trials(session.record.study_id, deepcopy=False)
    metric = session.record.metric
    attempts = [read_attempt(trial, *totals.get(trial_id_of(trial), (0, 0.0)), metric=metric) for trial in trials]
    return sort_attempts(with_rungs(session, attempts), metric)


def with_rungs(session: Session, attempts: list[Attempt]) -> list[Attempt]:
    """The same attempts, with the rungs at which they are parked or were cut."""
    if session.ladder is None:
        return attempts
    rungs = session.rungs.resting_trials()
    return [replace(attempt, rung=rungs.get(attempt.trial_id)) for attempt in attempts]


def describe_ending(attempt: Attempt) -> str:
    """How an attempt ended, or where it rests: `cut at epoch 4`, `parked at epoch 4`, `diverged`, its error; else "".

    A cut is told by its rung alone; with the numbers of the comparison `study.cuts` tells it.
    """
    reason = describe_reason(attempt)
    return attempt.attributes.error or ("" if reason == attempt.state else reason)


def describe_reason(attempt: Attempt) -> str:
    """The same in one or a few words, without the error: `cut at epoch 4`, `pruned`, `exception`."""
    if attempt.standing is State.PARKED:
        return f"parked at epoch {attempt.rung}"
    reason = attempt.attributes.reason
    return f"cut at epoch {attempt.rung}" if attempt.rung is not None and reason == "pruned" else reason or ""


def sort_attempts(attempts: Iterable[Attempt], metric: Metric) -> list[Attempt]:
    """Attempts of one study, the best one first.

    Args:
        metric: By which its cells are compared.
    """

    def rank(attempt: Attempt) -> tuple[bool, int, float, int]:
        return attempt.is_foreign, ORDER.index(attempt.standing), metric.rank(attempt.value), attempt.number

    return sorted(attempts, key=rank)


def list_points(session: Session) -> list[list[Cell]]:
    """The cells of each point that has several; of a confirmation, which knows no repeats, those with other seeds."""
    record, history = session.record, session.history
    if record.spec.repeats.n_cells > 1:
        return history.group(history.cells())
    groups: dict[str, list[Cell]] = {}
    for cell in history.cells() if record.kind == CONFIRMATION else ():
        groups.setdefault(canonical_json(point_of(cell.params)), []).append(cell)
    return list(groups.values())


def with_point_means(attempts: Iterable[Attempt], points: Iterable[Sequence[Cell]]) -> list[Attempt]:
    """The same attempts in their order, each with the mean of its point where that has several cells, all complete."""
    means = {cell.cell_id: as_point(group).value for group in points for cell in group}
    return [replace(attempt, point_mean=means.get(attempt.cell_id)) for attempt in attempts]


def group_by_point(attempts: Iterable[Attempt], points: Iterable[Sequence[Cell]], metric: Metric) -> list[Attempt]:
    """Attempts of one study with those at one point together, by their seeds, folds and numbers.

    The point with the best mean comes first. Those without one follow as their best attempt stood, then foreign ones.
    Where each point has one cell, all is left as it is.

    Args:
        attempts: The best one first, with the means of their points.
        points: As `list_points` has them.
        metric: By which the cells are compared.
    """
    places = {cell.cell_id: place for place, group in enumerate(points) for cell in group}
    groups: dict[int, list[Attempt]] = {}
    others: list[Attempt] = []
    for attempt in attempts:
        place = places.get(attempt.cell_id)
        (others if place is None else groups.setdefault(place, [])).append(attempt)
    ranked = sorted(groups.values(), key=lambda group: metric.rank(group[0].point_mean))
    together = [sorted(group, key=lambda each: (place_of(each.params), each.number)) for group in ranked]
    return [*itertools.chain.from_iterable(together), *others]


def arrange_attempts(session: Session, attempts: Iterable[Attempt]) -> list[Attempt]:
    """Attempts of a study as its tables have them: the best first, those at one point together, with its mean."""
    points, metric = list_points(session), session.record.metric
    return group_by_point(with_point_means(sort_attempts(attempts, metric), points), points, metric)


def find_attempt(session: Session, number: int) -> Attempt:
    """One attempt by the number of its trial.

    Raises:
        NotFoundError: The study has no such trial.
    """
    for attempt in list_attempts(session):
        if attempt.number == number:
            return attempt
    raise NotFoundError(
        f"study {session.record.name}: there is no trial {number}; "
        f"`fmnist-optuna trials {session.record.name}` shows what there is."
    )


def attempt_row(attempt: Attempt) -> dict[str, Json]:
    """An attempt without its parameters, by the names that all answers have for it."""
    return {name: read(attempt) for name, read in COLUMNS.items()}


def flat_table(attempts: Sequence[Attempt], record: StudyRecord) -> tuple[list[str], list[dict[str, Json]]]:
    """Attempts as rows of one table, with a column `params_NAME` for each parameter that any of them has.

    Args:
        record: Of their study. Whether that trains on the validation images too, every row says.

    Returns:
        The names of the columns, which are there without a row too, and the rows, None where an attempt has no value.
    """
    names = dict.fromkeys(name for attempt in attempts for name in attempt.params)
    columns = [*COLUMNS, TRAINED_ON_VALIDATION, *(f"params_{name}" for name in names)]
    rows = [
        {
            **attempt_row(attempt),
            TRAINED_ON_VALIDATION: record.is_on_all_data,
            **{f"params_{name}": attempt.params.get(name) for name in names},
        }
        for attempt in attempts
    ]
    return columns, rows


def result_of(session: Session, cell: Cell) -> Attempt:
    """The attempt that is the result of a cell.

    Args:
        cell: With a result. Its parameters have their declared types, which Optuna does not keep: 1 may be 1.0 there.
    """
    if cell.trial_id is None:
        raise ValueError(f"cell {cell.cell_id} must have a result, but is {cell.state}")
    trial = session.optuna_storage.get_trial(cell.trial_id)
    attempt = read_attempt(trial, cell.n_epochs, cell.seconds, metric=session.record.metric)
    return replace(attempt, params=cell.params, value=cell.value)
