"""The best cells of a finished study again, over fresh seeds: a study of its own, with the same guarantees."""

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fmnist_optuna.arguments import check_count
from fmnist_optuna.bridge.trials import same_params
from fmnist_optuna.data.source import resolve_source
from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.events.file import recording
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.log import log_event
from fmnist_optuna.processes.children import Call
from fmnist_optuna.results.confirmation import Confirmation, find_confirmation, searched_seeds
from fmnist_optuna.results.cross_validation import refuse_confirmation
from fmnist_optuna.results.winner import Winner, evaluate_leader, evaluate_winner, find_winner
from fmnist_optuna.running.all_data import train_on_all_data
from fmnist_optuna.running.catching import Catching, no_signals
from fmnist_optuna.running.following import (
    following_spec,
    join_following,
    offer_same_code,
    seeds_missing,
    train_following,
)
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.preparation import PreparedStudy
from fmnist_optuna.running.study import decorate_study
from fmnist_optuna.running.telling import tell_winner, telling_of_study
from fmnist_optuna.search.cell import TRAINING_SEED, Params, make_point, trial_seed
from fmnist_optuna.spec.study_names import CONFIRMATION_SUFFIX, name_command_of
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.records import CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following
from fmnist_optuna.work.fresh_seeds import check_seeds_in_child
from fmnist_optuna.work.splits import load_splits_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConfirmedStudy:
    """What a confirmation ends with.

    Args:
        winner: The chosen cell's original trial, its weights scored on the test images; with what was trained on all
            data, if that was asked for now or before.
        confirmation: What chose it.
        selected: The cell with the best value of the grid, scored too: what one would have taken without.
    """

    winner: Winner
    confirmation: Confirmation
    selected: Winner

    @property
    def selected_optimism(self) -> float | None:
        """The selected trial's value minus that on the test images: what choosing the best of many flatters it by.

        Of a metric that falls, a flattered value is the smaller one.
        """
        evaluation = self.selected.evaluation
        if evaluation is None:
            return None
        if self.selected.metric.is_accuracy:
            return self.selected.val_accuracy - evaluation.accuracy
        return None if evaluation.objective is None else self.selected.value - evaluation.objective

    @property
    def confirmed_optimism(self) -> float | None:
        """The same of the chosen cell's means over fresh seeds, which nobody chose by."""
        test = self.confirmation.test if self.confirmation.metric.is_accuracy else self.confirmation.test_objective
        return None if test is None else self.confirmation.chosen.val.mean - test.mean


def confirm_study(
    session: Session,
    options: RunOptions,
    n_cells: int | None = None,
    n_seeds: int | None = None,
    observer: Observer | None = None,
    catching: Catching = no_signals,
    all_data: bool = False,
) -> ConfirmedStudy:
    """Train the best cells of a finished study again over fresh seeds, without pruning, and choose among them.

    Interrupted, a second call goes on. A call with more cells or seeds adds them to those that are there.

    Args:
        n_cells: How many of the best, >= 1; by default what the study file says.
        n_seeds: Seeds a cell, >= 2; by default what the study file says.
        catching: As `run_study` has it.
        all_data: Whether the chosen cell's seeds are then trained once more on all training images. A call that names
            no number leaves a finished confirmation as it is.

    Raises:
        NotFoundError: No trial of the study is complete.
        SpecError: The model starts from the same weights whatever the seed.
        UsageError: The study is not finished, has folds, or follows from another; a number is out of its range.
        JoinRefusedError: The user's code is not what the cells were trained with.
        MismatchError: Seeds failed or diverged, so that no cell can be chosen; or stored weights are damaged.
        FmnistOptunaError: Whatever training raises.
    """
    leaders, observer, began = _leaders(session, n_cells), observer or Observer(), time.monotonic()
    is_wanted = not all_data or (n_cells, n_seeds) != (None, None) or find_confirmation(session) is None
    prepared = None
    with recording(options.events_file), telling_of_study(session, n_new_cells=0):
        if is_wanted:
            prepared = _prepare(session, options, leaders, n_seeds)
            options = replace(options, data_dir=prepared.data.data_dir)
        confirmed = _confirm(session, prepared, options, observer, catching)
        if all_data:
            train_on_all_data(session, confirmed.confirmation, options.with_rest_since(began), observer, catching)
            return replace(confirmed, winner=find_winner(session))
    return confirmed


def _confirm(
    session: Session, prepared: PreparedStudy | None, options: RunOptions, observer: Observer, catching: Catching
) -> ConfirmedStudy:
    """What a confirmation chooses, with what the test set says of it; a dashboard shows a new one.

    Args:
        prepared: The confirmation, to be trained first; None for one that is left as it is.
    """
    is_trained = prepared is not None and train_following(prepared, options, observer, catching)
    before = find_confirmation(session)
    winner = evaluate_winner(session, options.data_dir, observer.scoring)
    if winner.confirmation is None:
        following = session if prepared is None else prepared.session
        raise seeds_missing(session, options, following, "a cell must have a result for every seed, but none has")
    selected = evaluate_leader(session, options.data_dir, observer.scoring)
    if is_trained or before is None or before.test is None:  # an earlier call may have ended after the training
        decorate_study(session)
    tell_winner(winner)
    counted = replace(winner, n_openings=selected.n_openings)  # the leader's may just have been one more
    return ConfirmedStudy(counted, winner.confirmation, selected)


def _leaders(session: Session, n_cells: int | None) -> list[Cell]:
    check_count("n_cells", n_cells, 1)
    name, counts = session.record.name, session.history.counts()
    if not session.record.is_search:
        raise UsageError(f"The study must be a search, but {name} is itself {session.record.described_kind}.")
    refuse_confirmation(session)
    leaders = session.history.leaders_of_points()[: n_cells or session.record.spec.confirm.top]
    if not leaders:
        raise NotFoundError(f"study {name}: no trial is complete yet.")
    if not counts.is_over:
        n_left = counts.waiting + counts.running + counts.parked
        raise UsageError(
            f"study {name}: must be finished before it is confirmed, but {n_left} of {counts.total} cells are not; "
            f"{name_command_of(name)} goes on with it."
        )
    return leaders


def _prepare(session: Session, options: RunOptions, leaders: Sequence[Cell], n_seeds: int | None) -> PreparedStudy:
    check_count("n_seeds", n_seeds, 2)
    record = session.record
    points = _fresh_points(session, leaders, n_seeds or record.spec.confirm.seeds)
    fresh = _check_seeds_in_child(session, leaders, points)  # while we go on
    data = resolve_source(record.data_source, options.data_dir, options.mirrors)
    splits = load_splits_of(record, data.data_dir)
    if fresh is not None and (warning := fresh.result()) is not None:
        log_event(logger, logging.WARNING, "seeds_fixed", study=record.name, reason=warning)
    spec = following_spec(record.spec, record.name + CONFIRMATION_SUFFIX, points)
    code = None
    if fresh is not None:
        attempts = [result_of(session, cell) for cell in leaders]
        code = offer_same_code(session, spec, attempts, splits.folder, options.accepts_code)
    return join_following(session, spec, points, code, data, splits)


def _fresh_points(session: Session, leaders: Sequence[Cell], n_seeds: int) -> list[Params]:
    """The cells to be trained: with seeds that none of the search had, which might be the very trainings chosen from.

    Seed by seed, so that an interrupted confirmation has compared the cells on what it has.
    """
    searched = searched_seeds(session)
    seeds = list(itertools.islice((seed for seed in itertools.count(1) if seed not in searched), n_seeds))
    return [{**cell.params, TRAINING_SEED: seed} for seed in seeds for cell in leaders]


def _check_seeds_in_child(
    session: Session, leaders: Sequence[Cell], points: Sequence[Params]
) -> Call[str | None] | None:
    """Whether each seed starts from weights of its own, in a process with TensorFlow; None when all is trained."""
    confirming = open_following(session, CONFIRMATION)
    finished = [] if confirming is None else [run.params for run in confirming.history.finished()]
    if all(any(same_params(point, params) for params in finished) for point in points):
        return None

    def seed_of(cell: Cell, training_seed: int) -> int:
        params = {**cell.params, TRAINING_SEED: training_seed}
        return trial_seed(session.record.spec.training.seed, make_point(params).cell_id)

    cells = [(cell.params, seed_of(cell, 1), seed_of(cell, 2)) for cell in leaders]
    return check_seeds_in_child(session.record.spec, session.record.info, cells)
