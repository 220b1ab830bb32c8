"""What was scored on the test images after the choice, as rows of a table."""

from dataclasses import dataclass

from fmnist_optuna.results.confirmation import Sample
from fmnist_optuna.results.winner import Winner


@dataclass(frozen=True)
class Tested:
    """One row.

    Args:
        n_seeds: That were trained.
        accuracy: On the test images, 0..1: the mean of these seeds, or what they score together.
        interval: 95 %, of a mean over seeds, else over images; None where none is known.
    """

    name: str
    n_seeds: int
    accuracy: float
    interval: tuple[float, float] | None


def list_tested(winner: Winner) -> list[Tested]:
    """All that was trained or averaged after a confirmation, beside its own score; empty where nothing was."""
    rows: list[Tested] = []
    if winner.all_data is not None:
        rows += _rows_of("on all data", winner.all_data.test, winner.all_data.flipped)
    for ensemble in winner.ensembles:
        evaluation, n_seeds = ensemble.evaluation, ensemble.n_members
        name = f"ensemble{' on all data' if ensemble.is_on_all_data else ''}"
        rows.append(Tested(name, n_seeds, evaluation.accuracy, evaluation.interval))
        if evaluation.flip_accuracy is not None:
            rows.append(Tested(f"{name}, with flips", n_seeds, evaluation.flip_accuracy, None))
    if rows and winner.confirmation is not None:
        rows = _rows_of("confirmation", winner.confirmation.test, winner.confirmation.flipped) + rows
    return rows


def _rows_of(name: str, test: Sample | None, flipped: Sample | None) -> list[Tested]:
    samples = {name: test, f"{name}, with flips": flipped}
    return [
        Tested(label, len(sample.values), sample.mean, sample.interval)
        for label, sample in samples.items()
        if sample is not None
    ]
