"""How far the cells of a study have climbed: what came to each rung, what was cut there, what that cost and saved."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fmnist_optuna.ledger.rung_records import DecidedRung, OpenCells
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.study.session import Session


@dataclass(frozen=True)
class Step:
    """One rung with all that came to it so far.

    Args:
        rung: In epochs.
        n_parked: Number of cells that stand there, not decided yet.
        n_to_come: Number of cells that may still come there: they wait, run, or are parked at a lower rung.
        n_went_on: Number of cells that were let go on from there.
        n_cut: Number of cells that go no further.
        best: Best value within its epochs, of the cells that came or ended before it; None without one.
        leader: cell_id of that with the best value at the last decision; "" before the first.
        margin: By how much less than it a cell was allowed to promise then.
        decided_at: When that was, in seconds since 1970 UTC; None before the first.
        n_epochs: Trained from the rung below up to this one, by all cells, lost attempts aside.
        n_saved: Epochs that the cut cells would have trained beyond it at most.
    """

    rung: int
    n_parked: int
    n_to_come: int
    n_went_on: int
    n_cut: int
    best: float | None
    leader: str
    margin: float | None
    decided_at: float | None
    n_epochs: int
    n_saved: int

    @property
    def n_cells(self) -> int:
        """Number of cells that have come there."""
        return self.n_parked + self.n_went_on + self.n_cut

    @property
    def share(self) -> float | None:
        """How many of the decided cells went on, 0..1; None before the first decision."""
        n_decided = self.n_went_on + self.n_cut
        return self.n_went_on / n_decided if n_decided else None


@dataclass(frozen=True)
class Climb:
    """All rungs of a study.

    Args:
        steps: One for each rung that a cell has come to, ascending.
        n_epochs: Trained by all cells in all, lost attempts aside.
    """

    steps: tuple[Step, ...]
    n_epochs: int

    @property
    def n_cut(self) -> int:
        """Number of cells that were cut."""
        return sum(step.n_cut for step in self.steps)

    @property
    def n_saved(self) -> int:
        """Epochs that the cut cells would have trained further at most."""
        return sum(step.n_saved for step in self.steps)


def read_climb(session: Session) -> Climb | None:
    """The rungs of a study as they are now; None where its pruner is another."""
    if session.ladder is None:
        return None
    open_cells = session.rungs.open_cells()  # first: who is decided meanwhile is then seen twice, and not lost
    decided = session.rungs.decided()
    best = {}
    for each in open_cells:
        if each.n_parked:
            field = session.rungs.field(each.rung)
            values = [*(standing.now for standing in field.standings.values()), *field.finished_scores.values()]
            best[each.rung] = max((value for value in values if value is not None), default=None)
    trained = session.rungs.epochs_trained()
    steps = make_steps(session.ladder, decided, open_cells, trained, best, session.record.metric)
    return Climb(tuple(steps), sum(trained.values()))


def make_steps(
    rule: LadderRule,
    decided: Iterable[DecidedRung],
    open_cells: Iterable[OpenCells],
    epochs_trained: Mapping[int, int],
    best_of_parked: Mapping[int, float | None],
    metric: Metric = VAL_ACCURACY,
) -> list[Step]:
    """The rungs up to the highest one that a cell has come to.

    Args:
        decided: Every decision.
        open_cells: Those that are still in the race.
        epochs_trained: How many cells have trained each epoch (0-based).
        best_of_parked: Best score at each rung where cells are parked.
        metric: That the scores are of.
    """
    decisions, cells, rungs = list(decided), list(open_cells), rule.rungs()
    steps = []
    for below, rung in zip((0, *rungs), rungs, strict=False):
        those, n_parked = [each for each in decisions if each.rung == rung], _count_parked(cells, rung)
        if not those and not n_parked:
            continue
        n_cut = sum(each.n_cut for each in those)
        steps.append(
            Step(
                rung=rung,
                n_parked=n_parked,
                n_to_come=sum(each.n_parked + each.n_beyond for each in cells if each.rung < rung),
                n_went_on=sum(each.n_parked for each in those) - n_cut,
                n_cut=n_cut,
                best=_find_best([best_of_parked.get(rung), *(each.leader_value for each in those)], metric),
                leader=those[-1].leader if those else "",
                margin=those[-1].margin if those else None,
                decided_at=those[-1].decided_at if those else None,
                n_epochs=sum(n for epoch, n in epochs_trained.items() if below <= epoch < rung),
                n_saved=n_cut * (rule.max_epochs - rung),
            )
        )
    return steps


def _count_parked(cells: Iterable[OpenCells], rung: int) -> int:
    return sum(each.n_parked for each in cells if each.rung == rung)


def _find_best(scores: Iterable[float | None], metric: Metric) -> float | None:
    """The value with the best score; None if there is none."""
    return metric.best_of(metric.value(score) for score in scores if score is not None)
