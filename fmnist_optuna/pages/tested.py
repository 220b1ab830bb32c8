"""What was scored on the test images after the choice, without mirror images and with them, as rows of a table."""

from dataclasses import dataclass

from fmnist_optuna.results.evaluation import Evaluation
from fmnist_optuna.results.seeds import Sample
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
    """All that was trained or averaged after the choice, beside the confirmation's own score; empty where nothing was.

    With the answers to mirror images also the winner's own weights, and the confirmation's score in any case: those
    rows are what an exported model scores.
    """
    rows = _rows_of_weights(winner)
    if winner.all_data is not None:
        rows += _rows_of("on all data", winner.all_data.test, winner.all_data.flipped)
    for ensemble in winner.ensembles:
        name = f"ensemble{' on all data' if ensemble.is_on_all_data else ''}"
        rows += _rows_of_answers(name, ensemble.n_members, ensemble.evaluation)
    confirmation = winner.confirmation
    if confirmation is not None and (rows or confirmation.flipped is not None):
        rows = _rows_of("confirmation", confirmation.test, confirmation.flipped) + rows
    return rows


def _rows_of_weights(winner: Winner) -> list[Tested]:
    """The winner's stored weights, where their answers to mirror images were asked for."""
    evaluation, folds = winner.evaluation, winner.folds
    if evaluation is None or evaluation.flip_accuracy is None:
        return []
    of_study = "" if folds is None else f" of {folds.study}"
    return _rows_of_answers(f"trial {winner.trial}{of_study}", 1, evaluation)


def _rows_of_answers(name: str, n_seeds: int, evaluation: Evaluation) -> list[Tested]:
    rows = [Tested(name, n_seeds, evaluation.accuracy, evaluation.interval)]
    if evaluation.flip_accuracy is not None:
        rows.append(Tested(f"{name}, with flips", n_seeds, evaluation.flip_accuracy, None))
    return rows


def _rows_of(name: str, test: Sample | None, flipped: Sample | None) -> list[Tested]:
    samples = {name: test, f"{name}, with flips": flipped}
    return [
        Tested(label, len(sample.values), sample.mean, sample.interval)
        for label, sample in samples.items()
        if sample is not None
    ]
