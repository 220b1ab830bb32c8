"""What is known of a study's rungs: the decisions over one, the cells as one has them, those that are still open."""

from dataclasses import dataclass

from fmnist_optuna.search.ladder import Standing


@dataclass(frozen=True)
class DecidedRung:
    """One decision over the cells that were parked at a rung, or over some that were let on ahead of it.

    Args:
        decision_id: Grows with time.
        rung: In epochs.
        decided_at: Seconds since 1970 UTC.
        n_parked: Number of cells that it was about.
        n_cut: Number of those that go no further; 0 for those that were let on ahead.
        leader: cell_id of the best; "" if no value at the rung was finite.
        leader_value: Its score at the rung: the value of the study's metric, negated where less is better; None without
            one.
        margin: By how much less a cell was allowed to promise.
        kept_from: Whoever had at least this value went on anyway; None if nobody did.
        absent: cell_ids of those that had not come and were not waited for.
    """

    decision_id: int
    rung: int
    decided_at: float
    n_parked: int
    n_cut: int
    leader: str
    leader_value: float | None
    margin: float
    kept_from: float | None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellsAtRung:
    """All cells of a study as a rung has them: the arguments of the rule, by cell_id.

    Args:
        standings: Of cells that have come to the rung, whatever became of them later.
        finished_scores: Of cells that ended by themselves on the way to it.
    """

    standings: dict[str, Standing]
    finished_scores: dict[str, float | None]


@dataclass(frozen=True)
class OpenCells:
    """Cells without a result that were not cut, and were last parked at the same rung.

    Args:
        rung: In epochs; 0 for none.
        n_parked: Number of those that are still parked there.
        n_beyond: Number of those that wait or run, to come to the next rung.
    """

    rung: int
    n_parked: int
    n_beyond: int
