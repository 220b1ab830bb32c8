"""What Optuna's TPESampler suggests beside the cells that are known: of these, a seed and its version alone."""

import math
import warnings
from collections.abc import Container, Iterable, Mapping

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from fmnist_optuna.bridge.spaces import make_distribution
from fmnist_optuna.search.cell import Params, ParamValue
from fmnist_optuna.search.known import KnownCell, Standing
from fmnist_optuna.search.space import Space, in_order, is_there

OPTUNA = optuna.__version__


class Suggester:
    """Suggests points of a study, one after the other; what has a result is made a trial of Optuna's once.

    Args:
        space: Of which the points are.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._order = in_order(space)
        self._distributions = {name: make_distribution(dimension) for name, dimension in space.items()}
        self._done: dict[tuple[int, Standing, int, float | None], FrozenTrial] = {}

    def suggest(self, seed: int, cells: Iterable[KnownCell]) -> Params:
        """A point beside the cells that are known.

        A cell that stands at a rung counts as one that was pruned there; one of which nothing is known yet is taken
        for bad, so that no other worker tries the same.

        Args:
            seed: Of all that is drawn, 0 <= seed < 2**32.
        """
        trials = [self._trial_of(cell) for cell in sorted(cells, key=lambda cell: cell.number)]
        study = _KnownTrials.of(self._make_sampler(seed), trials)
        trial = study.ask()
        params: dict[str, ParamValue] = {}
        for name in self._order:
            if is_there(self._space[name], params):
                params[name] = _suggest(trial, name, self._distributions[name])
        return {name: params[name] for name in self._space if name in params}

    def _make_sampler(self, seed: int) -> TPESampler:
        """The stock sampler; parameters that are together in every trial are suggested together."""
        if not any(dimension.when for dimension in self._space.values()):
            return _WholeSpaceSampler(seed, self._distributions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)

    def _trial_of(self, cell: KnownCell) -> FrozenTrial:
        if not cell.is_done:
            return _make_trial(cell, self._distributions)
        # The mean of a point, and the epochs of a cut one, change with its repeats.
        seen = (cell.number, cell.standing, cell.n_epochs, cell.value)
        if seen not in self._done:
            self._done[seen] = _make_trial(cell, self._distributions)
        return self._done[seen]


class _WholeSpaceSampler(TPESampler):
    """TPESampler that is told what all trials have in common, which takes it a third of its time to find."""

    def __init__(self, seed: int, distributions: Mapping[str, BaseDistribution]) -> None:
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._shared = {name: each for name, each in sorted(distributions.items()) if not each.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters but those of a single value."""
        return self._shared


class _KnownTrials(optuna.Study):
    """A study in memory whose trials are given, and are not copied one by one into its storage."""

    _known: list[FrozenTrial]

    @classmethod
    def of(cls, sampler: TPESampler, trials: list[FrozenTrial]) -> "_KnownTrials":
        """A study of one direction with these trials."""
        storage = optuna.storages.InMemoryStorage()
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "known")
        made = cls(storage.get_study_name_from_id(study_id), storage, sampler=sampler)
        made._known = trials
        return made

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._known if states is None or trial.state in states]


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> ParamValue:
    value: ParamValue = trial._suggest(name, distribution)
    return value


def _make_trial(cell: KnownCell, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    states = {"complete": TrialState.COMPLETE, "running": TrialState.RUNNING}
    state = states.get(cell.standing, TrialState.PRUNED)
    last_value = math.nan if cell.value is None else cell.value
    made = create_trial(
        state=state,
        value=cell.value if state is TrialState.COMPLETE else None,
        params=dict(sorted(cell.params.items())),  # Optuna draws by this order, not by the study file's
        distributions={name: distributions[name] for name in sorted(cell.params)},
        intermediate_values={cell.n_epochs: last_value} if state is TrialState.PRUNED else {},
    )
    made.number = cell.number + 1  # 0 is the trial that is asked for
    return made
