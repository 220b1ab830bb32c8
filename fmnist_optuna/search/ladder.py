"""The ladder: cells are compared at rungs (epochs 2, 4, 8, 16, ...), and a cell that cannot reach the leader is cut.

Owns the rule, as pure functions of what was measured, and the words in which a cut is told. Knows no study, no
database, and not when a comparison happens: whoever asks decides that.

A cell goes on from a rung while

    now + kappa * (now - half) >= leader - margin

where `now` is its best value within the rung's epochs, `half` its best within half of them, `leader` the best `now` of
all cells at the rung, and `margin` a number of standard errors of the leader's value. So a cell that is behind goes
on if the gain of its last doubling, once or `kappa` times more, would bring it to where the leader is today. The best
few of a rung go on whatever they promise, so that noise among them cuts none.

Values are scores, of which the larger one is better: a metric that falls counts by its negative. The standard error is
that of a share of so many images, which holds for accuracies, and is the most that it can be for any mean of numbers
from 0 to 1. Of other metrics, such as losses, it is not known: there it is taken to be that of a mean of numbers that
spread as far as they are large, |leader| / sqrt(n), so that the rule is the same in whatever unit the metric has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fmnist_optuna.search.metric import VAL_ACCURACY, Metric

# Of the leader's size. Values are multiples of 1 / n_validation, so that a smaller difference is rounding, and a tie.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Standing:
    """Where a cell stands at a rung.

    Args:
        now: Best value of the rung's epochs; None if the cell has not come so far, or one of the values was not finite.
        half: Best value of half as many epochs; None where `now` is, and at a rung of one epoch.
    """

    now: float | None
    half: float | None

    @property
    def gain(self) -> float:
        """What the last doubling of the epochs brought, at least 0."""
        return 0.0 if self.now is None or self.half is None else self.now - self.half


@dataclass(frozen=True)
class Decision:
    """What becomes of the cells at a rung.

    Args:
        leader: Best value; None if there is none.
        leading_cell: Whose it is, of several the first by name.
        margin: By how much less than the leader a cell may promise.
        kept_from: Whoever has at least this value goes on anyway; None if nobody does.
        cut: The cells that go no further, each with its numbers, by name.
    """

    leader: float | None
    leading_cell: str | None
    margin: float
    kept_from: float | None
    cut: Mapping[str, Standing]

    def keeps(self, standing: Standing) -> bool:
        """Whether a cell is among those that go on whatever they promise."""
        return standing.now is not None and self.kept_from is not None and standing.now >= self.kept_from


@dataclass(frozen=True)
class LadderRule:
    """Which cells go on from a rung, of values of which the larger one is better.

    Args:
        first_rung: Epochs of the first rung, >= 1; each further rung has twice as many.
        kappa: How many times the gain of the last doubling a cell is trusted to repeat, >= 0.
        margin: >= 0, in standard errors of the leader's value; without `n_validation` in the unit of the values.
        n_validation: Number of images that a value is counted or averaged over, >= 1; None if it is not.
        max_epochs: Of a cell, >= 1; rungs lie below.
        keep: How many of the best at a rung go on whatever they promise, >= 0.
        is_share: Whether the values are shares, 0..1, whose standard error is known.
    """

    first_rung: int
    kappa: float
    margin: float
    n_validation: int | None
    max_epochs: int
    keep: int = 0
    is_share: bool = True

    def rungs(self) -> tuple[int, ...]:
        """Epochs of all rungs, ascending; none if the first is not below `max_epochs`."""
        found = []
        rung = self.first_rung
        while rung < self.max_epochs:
            found.append(rung)
            rung *= 2
        return tuple(found)

    def next_rung(self, n_epochs: int) -> int | None:
        """The first rung beyond so many epochs, which may be a rung; None if the cell then trains to its end."""
        return next((rung for rung in self.rungs() if rung > n_epochs), None)

    def margin_below(self, leader: float) -> float:
        """The margin in the unit of the values.

        Args:
            leader: Of shares one of 0..1, or a negated share of errors, whose standard error is equal.
        """
        if self.n_validation is None:
            return self.margin
        if not self.is_share or abs(leader) > 1:
            return self.margin * abs(leader) / math.sqrt(self.n_validation)
        share = abs(leader)
        return self.margin * math.sqrt(share * (1 - share) / self.n_validation)

    def is_cut(self, standing: Standing, leader: float | None, kept_from: float | None = None) -> bool:
        """Whether a cell goes no further. Who is cut below some leader is cut below a better one too.

        Hence before all others have come to the rung a cell may be cut, but none goes on by what it promises; who is
        kept may, as `decide_ahead` says.

        Args:
            standing: Of a cell at the rung; one without a finite value is cut.
            leader: Best value at the rung; None if no cell has one.
            kept_from: Of the decision; it too only rises when others come.
        """
        if standing.now is None:
            return True
        if leader is None or (kept_from is not None and standing.now >= kept_from):
            return False
        promise = standing.now + self.kappa * standing.gain
        return promise < leader - self.margin_below(leader) - ROUNDING * abs(leader)

    def decide(self, standings: Mapping[str, Standing], finished_scores: Mapping[str, float | None]) -> Decision:
        """Which of the cells at a rung go no further; the order of the cells is of no account.

        Args:
            standings: By cell, of all that came to the rung and were to go on. Cells that are beyond it already belong
                here with what they had at the rung, so that those who come later meet the same leader.
            finished_scores: By cell, final values of those that ended by this rung; they are never cut. A cell that
                ended later does not belong here: its final value would be held against cells of few epochs.
        """
        ahead = self.decide_ahead(standings, finished_scores, 0)
        cut = [cell for cell in sorted(standings) if self.is_cut(standings[cell], ahead.leader, ahead.kept_from)]
        return replace(ahead, cut={cell: standings[cell] for cell in cut})

    def decide_ahead(
        self, standings: Mapping[str, Standing], finished_scores: Mapping[str, float | None], n_to_come: int
    ) -> Decision:
        """Who goes on whatever the others will have: those with at least `kept_from`, which may be nobody.

        Of the best `keep` so far, each cell that is still to come may push one out, and no more.

        Args:
            standings: As of `decide`, of the cells that have come so far.
            finished_scores: As of `decide`.
            n_to_come: How many more may come to the rung or end on the way to it, >= 0.

        Returns:
            Nobody is cut; the leader and the margin are those of now.
        """
        values = {cell: standing.now for cell, standing in standings.items()} | dict(finished_scores)
        ranked = sorted((-value, cell) for cell, value in values.items() if value is not None and math.isfinite(value))
        leader, leading_cell = (-ranked[0][0], ranked[0][1]) if ranked else (None, None)
        n_kept = min(self.keep - n_to_come, len(ranked))
        return Decision(
            leader=leader,
            leading_cell=leading_cell,
            margin=0.0 if leader is None else self.margin_below(leader),
            kept_from=-ranked[n_kept - 1][0] if n_kept > 0 else None,
            cut={},
        )


def stand_at(rung: int, values: Sequence[float]) -> Standing:
    """Where a cell stands at a rung.

    Args:
        rung: Number of epochs, >= 1.
        values: Of the cell's epochs in their order, NaN where one was not finite; further ones are of no account.
    """
    reached = values[:rung]
    if len(reached) < rung or not all(map(math.isfinite, reached)):
        return Standing(None, None)
    return Standing(max(reached), max(reached[: rung // 2], default=None))


def describe_cut(rung: int, standing: Standing, leader: float | None, metric: Metric = VAL_ACCURACY) -> str:
    """A cut in one sentence: `cut at epoch 4: 86.1 % and gaining 0.9 a doubling, the best had 87.9 %`.

    Args:
        rung: Number of epochs.
        standing: Of the cell, scores of the metric.
        leader: Best score at the rung.
        metric: That the study compares by.
    """
    if standing.now is None:
        return f"cut at epoch {rung}: its {metric.name} is not a finite number"
    gaining = "" if standing.half is None else f" and gaining {metric.format_distance(standing.gain, 1)} a doubling"
    now, best = (None if score is None else metric.value(score) for score in (standing.now, leader))
    return f"cut at epoch {rung}: {metric.format(now, 1)}{gaining}, the best had {metric.format(best, 1)}"
