"""Several seeds of one cell that answer together: the mean of their probabilities, scored once like any weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.results.evaluation import Evaluation, hash_together, summarize
from fmnist_optuna.study.session import Session

MIN_MEMBERS = 2
PURPOSE = "ensemble"  # of its opening


@dataclass(frozen=True)
class Ensemble:
    """The first seeds of the chosen cell, whose answers were averaged and scored.

    Args:
        n_members: Seeds, those with the smallest training_seed.
        is_on_all_data: Whether they were trained on the validation images too.
        opening: Of these weights together.
        class_names: Of the data, in the order of the labels.
    """

    n_members: int
    is_on_all_data: bool
    opening: Opening
    class_names: tuple[str, ...]

    @cached_property
    def evaluation(self) -> Evaluation:
        """Accuracy, interval and classes of the opening."""
        return summarize(self.opening, self.class_names)


def find_ensembles(session: Session, runs: Sequence[Attempt]) -> tuple[Ensemble, ...]:
    """The ensembles of some runs that were scored, the smallest first; nothing is scored.

    Args:
        session: Of the study that the runs are trials of.
        runs: Complete, one a seed, the smallest training_seed first.
    """
    sizes = {hash_together(runs[:size]): size for size in range(MIN_MEMBERS, len(runs) + 1)}
    record, opened = session.record, session.openings.recorded(PURPOSE)
    found = [
        Ensemble(sizes[opening.weights_sha256], record.is_on_all_data, opening, record.info.class_names)
        for opening in opened
        if opening.weights_sha256 in sizes
    ]
    return tuple(sorted(found, key=lambda ensemble: ensemble.n_members))
