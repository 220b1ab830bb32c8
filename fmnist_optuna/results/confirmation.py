"""What fresh seeds say of a study's best cells: means with intervals, and the one-standard-error choice.

A confirmation is a study of its own, `<name>/confirm`, whose cells are the best points of the grid times seeds. It is
read here; `fmnist_optuna.confirming` trains it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.errors import MismatchError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.records import Attempt, Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.evaluation import find_opening
from fmnist_optuna.results.seeds import MIN_SEEDS, OpenedSeeds, Sample, open_seeds
from fmnist_optuna.search.cell import TRAINING_SEED, Params, canonical_json
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.records import CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following


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
    def n_seeds(self) -> int:
        """Over how many it was trained, those without a result among them."""
        return len(self.val.values) + self.n_missing

    @property
    def val_accuracy(self) -> Sample:
        """Accuracy on the validation images over the seeds, which is `val` where the study compares by it."""
        return Sample(tuple(run.val_accuracy or 0.0 for run in self.runs), VAL_ACCURACY)


@dataclass(frozen=True)
class Confirmation(OpenedSeeds):
    """A finished confirmation, and what the test images say of the chosen cell over its seeds.

    Args:
        candidates: The best mean first.
        chosen: The smallest of those whose mean is within one standard error of the best.
        n_left_out: Cells that were trained again too, and of which fewer than two seeds have a result.
    """

    candidates: tuple[Candidate, ...]
    chosen: Candidate
    n_left_out: int = 0

    @property
    def has_equal_seeds(self) -> bool:
        """Whether all were trained over as many seeds; a later call may have had more, and fewer cells."""
        return len({candidate.n_seeds for candidate in self.candidates}) == 1

    @property
    def described_seeds(self) -> str:
        """Over how many each was trained, in words: `5 fresh seeds each`, or `2 to 5 fresh seeds each`."""
        numbers = [candidate.n_seeds for candidate in self.candidates]
        return f"{min(numbers)}{'' if self.has_equal_seeds else f' to {max(numbers)}'} fresh seeds each"

    @property
    def param_names(self) -> list[str]:
        """The parameters that any of the candidates has."""
        return list(dict.fromkeys(name for each in self.candidates for name in each.params))

    @property
    def chosen_among(self) -> str:
        """Which cells could be chosen, in words behind the rule of the choice; empty where all could."""
        return "of those with a result for each seed" if any(each.n_missing for each in self.candidates) else ""

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


def find_confirmation(session: Session) -> Confirmation | None:
    """The confirmation of a study, if it is finished and has the study's present leader in it; nothing is scored."""
    confirming = open_following(session, CONFIRMATION)
    if confirming is None or not confirming.history.counts().is_over:
        return None
    groups, leader = read_groups(session, confirming), session.history.best()
    if leader is None or point_key(leader.params) not in groups:
        return None  # the grid has grown since
    candidates = _list_candidates(session, confirming, groups)
    chosen = choose(candidates, session.record.metric)
    if chosen is None:
        return None
    n_left_out = len(groups) - len(candidates)
    confirmation = Confirmation(tuple(candidates), chosen, n_left_out, metric=session.record.metric)
    return confirmation.with_openings([find_opening(confirming, run) for run in chosen.runs])


def open_confirmation(
    session: Session, data_dir: Path | None, scoring: Callable[[str], object] = lambda what: None
) -> Confirmation | None:
    """The same, with the chosen cell's weights of every seed scored once on the test images.

    Args:
        data_dir: Folder with the IDX files, or None for the search order.
        scoring: As `open_seeds` has it.

    Raises:
        MismatchError: Stored weights are missing or altered.
        DataError: The data is not there.
    """
    confirmation, confirming = find_confirmation(session), open_following(session, CONFIRMATION)
    if confirmation is None or confirming is None or confirmation.test is not None:
        return confirmation
    runs = confirmation.chosen.runs
    return confirmation.with_openings(open_seeds(confirming, runs, data_dir, "confirmation", scoring))


def searched_seeds(session: Session) -> frozenset[int]:
    """Training seeds that cells of a search have, as repeats or in its grid.

    A training under one of them may be the very one that was chosen as the best, so that it confirms nothing.
    """
    if TRAINING_SEED not in session.record.spec.cell_axes:
        return frozenset()
    return frozenset(
        int(cell.params[TRAINING_SEED]) for cell in session.history.cells() if TRAINING_SEED in cell.params
    )


def read_groups(session: Session, confirming: Session) -> dict[str, list[Cell]]:
    """The cells of a finished confirmation by their points: of those that still lead, with seeds that are fresh."""
    searched = searched_seeds(session)  # the grid may have got seeds that were fresh
    originals = {point_key(cell.params) for cell in session.history.leaders_of_points()}
    groups: dict[str, list[Cell]] = {}
    for cell in confirming.history.cells():
        if cell.params[TRAINING_SEED] not in searched and point_key(cell.params) in originals:
            groups.setdefault(point_key(cell.params), []).append(cell)
    return {point: group for point, group in groups.items() if len(group) >= MIN_SEEDS}


def _list_candidates(session: Session, confirming: Session, groups: Mapping[str, list[Cell]]) -> list[Candidate]:
    """Those of which so many seeds have a result that they can be compared, the best mean first."""
    metric, candidates = session.record.metric, list[Candidate]()
    originals = {point_key(cell.params): cell for cell in session.history.leaders_of_points()}
    for point, group in groups.items():
        complete = [result_of(confirming, cell) for cell in group if cell.state is State.COMPLETE]
        if len(complete) >= MIN_SEEDS:
            original, n_missing = result_of(session, originals[point]), len(group) - len(complete)
            candidates.append(_make_candidate(original, complete, n_missing, metric))
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


def point_key(params: Params) -> str:
    """The point of a cell, without its seed, as `read_groups` has it."""
    return canonical_json(point_of(params))
