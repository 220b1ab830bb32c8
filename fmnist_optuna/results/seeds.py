"""What weights of one cell score over its seeds: means with intervals, on the validation and on the test images."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.results.evaluation import find_opening, open_weights
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import count

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


def figures_of_repeats(sample: Sample | None) -> dict[str, Json] | None:
    """What repeats have, in figures, as `best --json` and a manifest have them; None where there are none."""
    if sample is None:
        return None
    return {"mean": sample.mean, "sd": sample.sd, "interval": list(sample.interval), "values": list(sample.values)}


def open_seeds(
    session: Session,
    runs: Sequence[Attempt],
    data_dir: Path | None,
    purpose: str,
    scoring: Callable[[str], object] = lambda what: None,
) -> list[Opening]:
    """The openings of each seed's weights: recorded ones, and of the others each scored once, one after the other.

    Args:
        session: Of the study that the runs are trials of.
        runs: Complete, one a seed.
        data_dir: Folder with the IDX files, or None for the search order.
        purpose: Kept with the openings.
        scoring: Is told how many are still to be scored, before it takes its time.

    Raises:
        MismatchError: Stored weights are missing or altered.
        DataError: The data is not there.
    """
    if n_unopened := sum(find_opening(session, run) is None for run in runs):
        scoring(count(n_unopened, "seed"))
    return [open_weights(session, [run], data_dir, purpose) for run in runs]
