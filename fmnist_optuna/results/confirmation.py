"""What fresh seeds say of a study's best cells: means with intervals, and the one-standard-error choice.

A confirmation is a study of its own, `<name>/confirm`, whose cells are the best points of the grid times seeds. It is
read here; `fmnist_optuna.confirming` trains it.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from fmnist_optuna.errors import MismatchError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.records import Attempt, Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.evaluation import find_opening, open_weights
from fmnist_optuna.search.cell import TRAINING_SEED, Params, canonical_json
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.records import CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following

MIN_SEEDS = 2  # of which a spread can be told


@dataclass(frozen=True)
class Sample:
    """Values of one cell over seeds.

    Args:
        values: One a seed, at least two.
        metric: What they are of; accuracies are 0..1.
    """

    values: tuple[float, ...]
    metric: Metric

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float:
        """Standard deviation over seeds, with n - 1."""
        return statistics.stdev(self.values)

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return self.sd / math.sqrt(len(self.values))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean, by Student's t with n - 1 degrees of freedom, within what the metric can be.

        Of two seeds it is 12.7 standard errors to either side, which may go beyond 100 %. No mean of accuracies lies
        there: what is cut off at `Metric.bounds` holds none, and the interval covers the mean as often as before.
        """
        from scipy.special import stdtrit  # heavy

        half = float(stdtrit(len(self.values) - 1, 0.975)) * self.standard_error
        low, high = self.metric.bounds
        return max(low, self.mean - half), min(high, self.mean + half)


@dataclass(frozen=True)
class Candidate:
    """A cell of the grid that was run again.

    Args:
        original: The attempt that the grid has, whose weights `export` writes.
        val: What the study compares by, over the seeds.
        n_parameters: Of the model, trainable or not.
        n_missing: Seeds without a result: failed or diverged. Such a cell is not chosen.
        runs: Complete attempts at it, one a seed.
    """

    original: Attempt
    val: Sample
    n_parameters: int
    n_missing: int
    runs: tuple[Attempt, ...]

    @property
    def params(self) -> Params:
        """Its point, without a seed: that of the original is one of several."""
        return point_of(self.original.params)

    @property
    def val_accuracy(self) -> Sample:
        """Accuracy on the validation images over the seeds, which is `val` where the study compares by it."""
        return Sample(tuple(run.val_accuracy or 0.0 for run in self.runs), VAL_ACCURACY)


@dataclass(frozen=True, kw_only=True)
class OpenedSeeds:
    """What the test images say of one cell over its seeds.

    Args:
        test: Test accuracy, each an opening; None before all seeds are opened.
        flipped: The same of answers averaged with those to mirror images; None where these were not measured.
        metric: That the study compares by.
        test_objective: That metric on the test images, where it is not the accuracy; None where any seed has none.
        flipped_objective: The same of the averaged answers; None likewise.
    """

    test: Sample | None = None
    flipped: Sample | None = None
    metric: Metric = VAL_ACCURACY
    test_objective: Sample | None = None
    flipped_objective: Sample | None = None

    def with_openings(self, openings: Sequence[Opening | None]) -> Self:
        """The same with what the test images say, from one opening for each seed, None where there is none yet."""
        scores = [None if each is None else each.scores for each in openings]
        return replace(
            self,
            test=_sample([None if each is None else each.accuracy for each in openings], VAL_ACCURACY),
            flipped=_sample([None if each is None else each.flip_accuracy for each in scores], VAL_ACCURACY),
            test_objective=_sample([None if each is None else each.objective for each in scores], self.metric),
            flipped_objective=_sample([None if each is None else each.flip_objective for each in scores], self.metric),
        )

    def figures_of_test(self) -> dict[str, Json]:
        """In figures, as `best --json` and a manifest have them."""
        test, flipped, objective, both = self.test, self.flipped, self.test_objective, self.flipped_objective
        figures: dict[str, Json] = {
            "test_mean": None if test is None else test.mean,
            "test_sd": None if test is None else test.sd,
            "test_interval": None if test is None else list(test.interval),
            "test_mean_with_flip": None if flipped is None else flipped.mean,
            "test_interval_with_flip": None if flipped is None else list(flipped.interval),
        }
        if self.metric.is_accuracy:
            return figures
        return figures | {
            "test_objective_mean": None if objective is None else objective.mean,
            "test_objective_interval": None if objective is None else list(objective.interval),
            "test_objective_mean_with_flip": None if both is None else both.mean,
            "test_objective_interval_with_flip": None if both is None else list(both.interval),
        }


def _sample(values: Sequence[float | None], metric: Metric) -> Sample | None:
    """The values over seeds; None where any has none."""
    found = [value for value in values if value is not None]
    return Sample(tuple(found), metric) if len(found) == len(values) else None


@dataclass(frozen=True)
class Confirmation(OpenedSeeds):
    """A finished confirmation, and what the test images say of the chosen cell over its seeds.

    Args:
        candidates: The best mean first.
        chosen: The smallest of those whose mean is within one standard error of the best.
    """

    candidates: tuple[Candidate, ...]
    chosen: Candidate

    @property
    def param_names(self) -> list[str]:
        """The parameters that any of the candidates has."""
        return list(dict.fromkeys(name for each in self.candidates for name in each.params))

    def figures(self) -> dict[str, Json]:
        """The chosen cell in figures, as `best --json` and a manifest have them; accuracies are fractions."""
        val = self.chosen.val
        figures: dict[str, Json] = {
            "metric": self.metric.name,
            "mean": val.mean,
            "sd": val.sd,
            "interval": list(val.interval),
            "seeds": len(val.values),
            **self.figures_of_test(),
        }
        if self.metric.is_accuracy:
            return figures
        accuracy = self.chosen.val_accuracy  # beside another metric
        return figures | {"val_accuracy_mean": accuracy.mean, "val_accuracy_interval": list(accuracy.interval)}


def figures_of_repeats(sample: Sample | None) -> dict[str, Json] | None:
    """What repeats have, in figures, as `best --json` and a manifest have them; None where there are none."""
    if sample is None:
        return None
    return {"mean": sample.mean, "sd": sample.sd, "interval": list(sample.interval), "values": list(sample.values)}


def find_confirmation(session: Session) -> Confirmation | None:
    """The confirmation of a study, if it is finished and has the study's present leader in it; nothing is scored."""
    confirming = open_following(session, CONFIRMATION)
    if confirming is None or not confirming.history.counts().is_over:
        return None
    candidates = _read_candidates(session, confirming)
    leader = session.history.best()
    if leader is None or all(candidate.original.trial_id != leader.trial_id for candidate in candidates):
        return None  # the grid has grown since
    chosen = choose(candidates, session.record.metric)
    if chosen is None:
        return None
    confirmation = Confirmation(tuple(candidates), chosen, metric=session.record.metric)
    return confirmation.with_openings([find_opening(confirming, run) for run in chosen.runs])


def open_confirmation(session: Session, data_dir: Path | None) -> Confirmation | None:
    """The same, with the chosen cell's weights of every seed scored once on the test images.

    Args:
        data_dir: Folder with the IDX files, or None for the search order.

    Raises:
        MismatchError: Stored weights are missing or altered.
        DataError: The data is not there.
    """
    confirmation, confirming = find_confirmation(session), open_following(session, CONFIRMATION)
    if confirmation is None or confirming is None or confirmation.test is not None:
        return confirmation
    runs = confirmation.chosen.runs
    return confirmation.with_openings(
        [open_weights(confirming, [run], data_dir, purpose="confirmation") for run in runs]
    )


def searched_seeds(session: Session) -> frozenset[int]:
    """Training seeds that cells of a search have, as repeats or in its grid.

    A training under one of them may be the very one that was chosen as the best, so that it confirms nothing.
    """
    if TRAINING_SEED not in session.record.spec.cell_axes:
        return frozenset()
    return frozenset(
        int(cell.params[TRAINING_SEED]) for cell in session.history.cells() if TRAINING_SEED in cell.params
    )


def _read_candidates(session: Session, confirming: Session) -> list[Candidate]:
    metric, runs, n_failed = session.record.metric, dict[str, list[Cell]](), Counter[str]()
    searched = searched_seeds(session)  # the grid may have got seeds that were fresh
    for run in confirming.history.finished():
        if run.params[TRAINING_SEED] not in searched:
            runs.setdefault(_point(run.params), []).append(run)
    n_failed.update(_point(cell.params) for cell in confirming.history.failed())
    originals = {_point(cell.params): cell for cell in session.history.leaders_of_points()}
    candidates = []
    for point, group in runs.items():
        complete = [cell for cell in group if cell.state is State.COMPLETE]
        if point in originals and len(complete) >= MIN_SEEDS:
            n_missing = n_failed[point] + len(group) - len(complete)
            attempts = [result_of(confirming, cell) for cell in complete]
            candidates.append(_make_candidate(result_of(session, originals[point]), attempts, n_missing, metric))
    return sorted(candidates, key=lambda candidate: (metric.rank(candidate.val.mean), candidate.original.number))


def _make_candidate(original: Attempt, runs: Sequence[Attempt], n_missing: int, metric: Metric) -> Candidate:
    runs = sorted(runs, key=lambda run: run.params[TRAINING_SEED])
    n_parameters = runs[0].attributes.n_parameters
    if n_parameters is None:
        raise MismatchError(f"Trial {runs[0].number} must have recorded the size of its model, but has not.")
    val = Sample(tuple(run.value or 0.0 for run in runs), metric)
    return Candidate(original, val, n_parameters, n_missing, tuple(runs))


def choose(candidates: Sequence[Candidate], metric: Metric = VAL_ACCURACY) -> Candidate | None:
    """The one-standard-error choice among the cells whose seeds all have a result; None without such a cell.

    Of equally small models the one with the better mean is taken.

    Source: Breiman, Friedman, Olshen, Stone (1984), Classification and Regression Trees, section 3.4.3.

    Args:
        metric: That they are compared by.
    """

    def score(candidate: Candidate) -> float:
        return metric.score(candidate.val.mean)

    whole = [candidate for candidate in candidates if not candidate.n_missing]
    if not whole:
        return None
    best = max(whole, key=score)
    bound = score(best) - best.val.standard_error
    close = [candidate for candidate in whole if score(candidate) >= bound]
    return min(close, key=lambda candidate: (candidate.n_parameters, -score(candidate)))


def _point(params: Params) -> str:
    return canonical_json(point_of(params))
