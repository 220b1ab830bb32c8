"""What becomes of a cell whose attempt failed, or whose worker was lost: new values for its row."""

from sqlalchemy import ColumnElement, case, func, or_, select, true

from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import cells

MAX_FAILURES = 3  # attempts that are to blame themselves
MAX_LOST = 100  # attempts that lost their lease or were killed from outside
WAIT_AGAIN: dict[str, object] = {
    "state": State.WAITING,
    "token": None,
    "trial_id": None,
    "trial_number": None,
}


def after_failure(study_id: int, attempt: Attempt) -> dict[str, object]:
    """New values of a cell whose trial failed; the expressions read the row as it was before.

    An attempt that was stopped on purpose counts for nothing, and neither does one that ended as its cell came into
    another environment (processor, versions, settings) or under other code. A cell that was found to kill its workers
    fails at once, and so does one whose user code raises the same exception twice.
    """
    reason, error = attempt.attributes.reason, attempt.attributes.error
    if reason in ("stopped", "moved"):
        return WAIT_AGAIN
    if reason == "blamed":
        is_over: ColumnElement[bool] = true()
        counted = {**after_loss(study_id), "error": error}
    elif error is None:
        is_over = cells.c.lost + 1 >= MAX_LOST
        counted = after_loss(study_id)
    else:
        counted = {"failures": cells.c.failures + 1, "error": error, "position": _behind(study_id)}
        is_over = cells.c.failures + 1 >= MAX_FAILURES
        if reason == "exception":
            is_over = or_(is_over, func.coalesce(cells.c.error, "") == error)
    keep = {"trial_id": attempt.trial_id, "trial_number": attempt.number}
    return {
        **WAIT_AGAIN,
        **counted,
        "state": case((is_over, State.FAILED), else_=State.WAITING),
        **{name: case((is_over, value), else_=None) for name, value in keep.items()},
    }


def after_loss(study_id: int) -> dict[str, object]:
    """New values of a cell that lost its worker; after so many times it fails."""
    is_over = cells.c.lost + 1 >= MAX_LOST
    return {
        "lost": cells.c.lost + 1,
        "state": case((is_over, State.FAILED), else_=State.WAITING),
        "error": case((is_over, f"lost its worker {MAX_LOST} times"), else_=cells.c.error),
        "position": _behind(study_id),
    }


def _behind(study_id: int) -> ColumnElement[int]:
    """The position behind all cells that wait, so that one that fails again and again lets the others go first.

    Two that come back at once may get the same: any order between them will do.
    """
    waiting = cells.alias("waiting")
    last = (
        select(waiting.c.position)
        .where(waiting.c.study_id == study_id, waiting.c.state == State.WAITING)
        .order_by(waiting.c.position.desc())
        .limit(1)
    )
    return func.coalesce(last.scalar_subquery() + 1, cells.c.position)
