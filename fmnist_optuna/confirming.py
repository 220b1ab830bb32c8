"""The best cells of a finished study again, over fresh seeds: a study of its own, with the same guarantees."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fmnist_optuna.arguments import check_count
from fmnist_optuna.bridge.trials import same_params
from fmnist_optuna.data.sharing import share_arrays
from fmnist_optuna.data.source import resolve_source
from fmnist_optuna.errors import JoinRefusedError, MismatchError, NotFoundError, UsageError
from fmnist_optuna.ledger.codes import OfferedCode, describe_refusal, list_codes
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.log import bound_fields, log_event
from fmnist_optuna.processes.children import Call
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.results.confirmation import Confirmation, open_confirming
from fmnist_optuna.results.winner import Winner, evaluate_leader, evaluate_winner
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.preparation import PreparedStudy, prepare_in_child
from fmnist_optuna.running.study import Catching, decorate_study, no_signals
from fmnist_optuna.running.training import log_folder_of, train_cells
from fmnist_optuna.search.cell import TRAINING_SEED, Params, make_point, trial_seed
from fmnist_optuna.spec.code import code_differences
from fmnist_optuna.spec.reading import restore_spec
from fmnist_optuna.spec.study_spec import CONFIRMATION_SUFFIX, StudySpec, Value
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.environment import warn_of_environment
from fmnist_optuna.work.fresh_seeds import check_seeds_in_child
from fmnist_optuna.work.splits import load_splits_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConfirmedStudy:
    """What a confirmation ends with.

    Args:
        winner: The chosen cell's original trial, its weights scored on the test images.
        confirmation: What chose it.
        selected: The cell with the best val_accuracy of the grid, scored too: what one would have taken without.
    """

    winner: Winner
    confirmation: Confirmation
    selected: Winner

    @property
    def selected_optimism(self) -> float | None:
        """val_accuracy minus test accuracy of the selected trial: what choosing the best of many flatters it by."""
        evaluation = self.selected.evaluation
        return None if evaluation is None else self.selected.val_accuracy - evaluation.accuracy

    @property
    def confirmed_optimism(self) -> float | None:
        """The same of the chosen cell's means over fresh seeds, which nobody chose by."""
        test = self.confirmation.test
        return None if test is None else self.confirmation.chosen.val.mean - test.mean


def confirm_study(
    session: Session,
    options: RunOptions,
    n_cells: int | None = None,
    n_seeds: int | None = None,
    observer: Observer | None = None,
    catching: Catching = no_signals,
) -> ConfirmedStudy:
    """Train the best cells of a finished study again over fresh seeds, without pruning, and choose among them.

    Interrupted, a second call goes on. A call with more cells or seeds adds them to those that are there.

    Args:
        n_cells: How many of the best, >= 1; by default what the study file says.
        n_seeds: Seeds a cell, >= 2; by default what the study file says.
        catching: As `run_study` has it.

    Raises:
        NotFoundError: No trial of the study is complete.
        SpecError: The model starts from the same weights whatever the seed.
        UsageError: The study is not finished, or is itself a confirmation; a number is out of its range.
        JoinRefusedError: The user's code is not what the cells were trained with.
        MismatchError: Seeds failed or diverged, so that no cell can be chosen; or stored weights are damaged.
        FmnistOptunaError: Whatever training raises.
    """
    leaders = _leaders(session, n_cells)
    observer = observer or Observer()
    prepared = _prepare(session, options, leaders, n_seeds)
    observer.prepared(prepared.session, prepared.data, prepared.n_new_cells)
    is_trained = not prepared.session.history.counts().is_over
    if is_trained:
        _train(prepared, options, observer, catching)
    winner = evaluate_winner(session, prepared.data.data_dir)
    if winner.confirmation is None:
        raise _nothing_to_choose(prepared.session, options)
    selected = evaluate_leader(session, prepared.data.data_dir)
    if is_trained:
        decorate_study(session)
    return ConfirmedStudy(winner, winner.confirmation, selected)


def _train(prepared: PreparedStudy, options: RunOptions, observer: Observer, catching: Catching) -> None:
    name = prepared.session.record.name
    with bound_fields(study=name), catching() as caught:
        given_up = train_cells(prepared, options, observer, caught)
    if given_up:
        raise MismatchError(
            f"study {name}: a seed must have a result to be compared, but the workers of some die: "
            f"{'; '.join(given_up)}; call it again to try them again."
        )


def _nothing_to_choose(confirming: Session, options: RunOptions) -> MismatchError:
    name = confirming.record.name
    return MismatchError(
        f"study {name}: a cell must have a result for every seed, but none has; `fmnist-optuna trials {name}` shows "
        f"why, the logs are in {log_folder_of(confirming, options)}."
    )


def _leaders(session: Session, n_cells: int | None) -> list[Cell]:
    check_count("n_cells", n_cells, 1)
    name, counts = session.record.name, session.history.counts()
    if session.record.is_confirmation:
        raise UsageError(f"The study must be one of a grid, but {name} is itself a confirmation.")
    leaders = session.history.leaders(n_cells or session.record.spec.confirm.top)
    if not leaders:
        raise NotFoundError(f"study {name}: no trial is complete yet.")
    if not counts.is_over:
        n_left = counts.waiting + counts.running + counts.parked
        raise UsageError(
            f"study {name}: must be finished before it is confirmed, but {n_left} of {counts.total} cells are not; "
            "`fmnist-optuna run` goes on with it."
        )
    return leaders


def _prepare(session: Session, options: RunOptions, leaders: Sequence[Cell], n_seeds: int | None) -> PreparedStudy:
    check_count("n_seeds", n_seeds, 2)
    record = session.record
    n_seeds = n_seeds or record.spec.confirm.seeds
    # Seed by seed, so that an interrupted confirmation has compared the cells on what it has.
    points = [{**cell.params, TRAINING_SEED: seed} for seed in range(1, n_seeds + 1) for cell in leaders]
    fresh = _check_seeds_in_child(session, leaders, points)  # while we go on
    data = resolve_source(record.data_source, options.data_dir, options.mirrors)
    splits = load_splits_of(record, data.data_dir)
    if fresh is not None and (warning := fresh.result()) is not None:
        log_event(logger, logging.WARNING, "seeds_fixed", study=record.name, reason=warning)
    spec = confirmation_spec(record.spec, record.name, points)
    code = None if fresh is None else _offer_code(session, spec, leaders, splits.folder, options.accepts_code)
    confirming, n_new = create_or_join(
        session.storage, spec, record.data_fingerprint, points, code, parent=record, info=record.info
    )
    prepared = PreparedStudy(Session(session.storage, confirming, "supervisor"), data, n_new)
    if prepared.session.history.is_over():
        prepared.session.checkpoints.remove_all()  # whoever trained the last cell may have died before this
        return prepared
    return replace(prepared, shared_data=share_arrays(splits, temporary_folder()))


def _check_seeds_in_child(
    session: Session, leaders: Sequence[Cell], points: Sequence[Params]
) -> Call[str | None] | None:
    """Whether each seed starts from weights of its own, in a process with TensorFlow; None when all is trained."""
    confirming = open_confirming(session)
    finished = [] if confirming is None else [run.params for run in confirming.history.finished()]
    if all(any(same_params(point, params) for params in finished) for point in points):
        return None

    def seed_of(cell: Cell, training_seed: int) -> int:
        params = {**cell.params, TRAINING_SEED: training_seed}
        return trial_seed(session.record.spec.training.seed, make_point(params).cell_id)

    cells = [(cell.params, seed_of(cell, 1), seed_of(cell, 2)) for cell in leaders]
    return check_seeds_in_child(session.record.spec, session.record.info, cells)


def _offer_code(
    session: Session, spec: StudySpec, leaders: Sequence[Cell], folder: Path | None, is_wanted: bool
) -> OfferedCode:
    """The code here, rehearsed, which must be what the leaders were trained with.

    Args:
        folder: With arrays of the user's own data; None for a built-in source.

    Raises:
        JoinRefusedError: It differs, and was not said to be wanted.
    """
    record = session.record
    accepted = {code.fingerprint: code for code in list_codes(session.storage, record.study_id)}
    newest = next(reversed(accepted.values()), None)
    used = {result_of(session, cell).attributes.code or "" for cell in leaders}
    # A model is of one cell, and a code that was accepted for a larger grid may be of another one.
    cell = None if newest is None else newest.code.cell
    offered = prepare_in_child(spec, record.info, folder, cell).result()[1]
    for fingerprint in sorted(used & accepted.keys()):
        lines = code_differences(accepted[fingerprint].code, offered.code)
        if lines and not is_wanted:
            raise JoinRefusedError(describe_refusal(record.name, lines, "confirm"))
        warn_of_environment(record.name, accepted[fingerprint].environment, offered.environment)
    return replace(offered, is_wanted=is_wanted)


def confirmation_spec(spec: StudySpec, name: str, points: Sequence[Params]) -> StudySpec:
    """The specification of the study that confirms another: the same but for the pruner, and a grid around the points.

    Numbers are those of the points; of a parameter that is no number all values stay, as Optuna keeps its choices.
    """
    grid: dict[str, tuple[Value, ...]] = {}
    for parameter, values in spec.grid.items():
        used = {point[parameter] for point in points}
        is_number = not any(isinstance(value, str | bool) for value in values)
        grid[parameter] = tuple(sorted(used)) if is_number else values
    grid[TRAINING_SEED] = tuple(sorted({int(point[TRAINING_SEED]) for point in points}))
    name += CONFIRMATION_SUFFIX
    content = {**spec.model_dump(mode="json"), "name": name, "grid": grid, "pruner": {"name": "none"}}
    return restore_spec(content, f"study {name}")
