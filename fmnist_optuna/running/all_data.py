"""The confirmed seeds of the chosen cell once more, on all training images: a study of its own, `<name>/all-data`.

Each is trained to its last epoch and keeps the weights of that: nothing is chosen by the validation images, which are
trained on. How many epochs these are follows from the confirmation alone, so that the test set has no say in it either.

With folds the best point is trained so, for a number of epochs that follows from its folds.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.source import resolve_source
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.processes.children import Call
from fmnist_optuna.results.all_data import AllData, find_all_data, open_all_data
from fmnist_optuna.results.confirmation import Confirmation
from fmnist_optuna.results.cross_validation import read_cross_validation
from fmnist_optuna.running.catching import Catching
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
from fmnist_optuna.running.rung_note import write_note
from fmnist_optuna.search.cell import TRAINING_SEED, Params
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.spec.options import read_options
from fmnist_optuna.spec.study_names import ALL_DATA_SUFFIX
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.records import ALL_DATA, CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following
from fmnist_optuna.work.splits import find_place


def train_on_all_data(
    session: Session, confirmation: Confirmation, options: RunOptions, observer: Observer, catching: Catching
) -> AllData:
    """Train the chosen cell's confirmed seeds on all training images, and score each once on the test images.

    Interrupted, a second call goes on.

    Args:
        session: Of the study that was confirmed.

    Raises:
        JoinRefusedError: The user's code is not what the seeds were confirmed with; or the cell that was trained so
            before is another, with another number of epochs.
        MismatchError: A seed failed or diverged; or stored weights are damaged.
        FmnistOptunaError: Whatever training raises.
    """
    prepared = _prepare(session, confirmation, options)
    write_note(prepared.session)
    if train_following(prepared, options, observer, catching):
        write_note(prepared.session)
    all_data = open_all_data(session, confirmation, prepared.data.data_dir, observer.scoring)
    if all_data is None:
        rule = "every confirmed seed must have a result, but some have none"
        raise seeds_missing(session, options, prepared.session, rule)
    return all_data


def _prepare(session: Session, confirmation: Confirmation, options: RunOptions) -> PreparedStudy:
    record, confirming = session.record, open_following(session, CONFIRMATION)
    if confirming is None:
        raise MismatchError(f"study {record.name}: must have a confirmation, but that was deleted meanwhile.")
    runs = confirmation.chosen.runs
    is_trained = find_all_data(session, confirmation) is not None
    return _prepare_points(session, confirming, runs, [run.params for run in runs], options, is_trained)


def _prepare_points(
    session: Session,
    origin: Session,
    runs: tuple[Attempt, ...],
    points: Sequence[Params],
    options: RunOptions,
    is_trained: bool,
) -> PreparedStudy:
    """The study that trains some points of one cell on all training images.

    Args:
        session: Of the study that is searched.
        origin: Of the runs, which fix the number of epochs: that study or its confirmation.
        points: Each with its training_seed.
        is_trained: Whether nothing is left to train.
    """
    record = session.record
    data = resolve_source(record.data_source, options.data_dir, options.mirrors)
    place = replace(find_place(record, data.data_dir), is_all_trained_on=True)
    splits = place.load()
    n_epochs = _fixed_epochs(session, points[0]) or count_epochs(origin.record.spec, record.info, runs)
    training = {"max_epochs": n_epochs, "keep_weights": "last"}
    spec = following_spec(record.spec, record.name + ALL_DATA_SUFFIX, points, training)
    code = None if is_trained else offer_same_code(origin, spec, runs, place.folder, options.accepts_code)
    return join_following(session, spec, points, code, data, splits)


def train_best_point(session: Session, options: RunOptions, observer: Observer, catching: Catching) -> None:
    """Train the best point of a study with folds once more, on all training images, unless it is; nothing is scored.

    For how many epochs follows from its folds, as `count_epochs` has it of seeds. Interrupted, a second call goes on.

    Args:
        session: Of a study that is over, with a point whose cells are all complete.

    Raises:
        JoinRefusedError: The user's code is not what the cells were trained with; or another point was trained so
            before, for another number of epochs.
        MismatchError: The training failed or diverged.
        FmnistOptunaError: Whatever training raises.
    """
    first = session.history.leaders(1)[0]
    if read_cross_validation(session, first).trained is not None:
        return
    runs = tuple(result_of(session, cell) for cell in session.history.repeats_of(first.cell_id))
    point = {**point_of(first.params), TRAINING_SEED: 1}
    prepared = _prepare_points(session, session, runs, [point], options, is_trained=False)
    train_following(prepared, options, observer, catching)
    write_note(prepared.session)
    if read_cross_validation(session, first).trained is None:
        rule = f"the best point must have a result on all training {session.record.info.noun}s, but has none"
        raise seeds_missing(session, options, prepared.session, rule)


def _fixed_epochs(session: Session, point: Params) -> int | None:
    """The number of epochs that some seeds of a cell were to be trained before: seeds that come later have the same."""
    training = open_following(session, ALL_DATA)
    if training is None or all(point_of(cell.params) != point_of(point) for cell in training.history.cells()):
        return None
    return training.record.spec.training.max_epochs


def count_epochs(spec: StudySpec, info: DatasetInfo, runs: tuple[Attempt, ...]) -> int:
    """How many epochs a confirmed cell, or the best point over folds, is trained on all data.

    With a schedule all of it, as before: `max_epochs`. With a constant rate the median, over the seeds or folds, of the
    number of epochs after which each was best; of an even number the larger one in the middle.

    Args:
        spec: Of the confirmation, or of the study with folds.
        runs: Complete, one a seed or fold.

    Raises:
        MismatchError: A seed recorded no best epoch.
    """
    if _find_schedule(spec, info, runs[0].params) != "constant":
        return spec.training.max_epochs
    best = [run.attributes.best_epoch for run in runs]
    kept = [epoch + 1 for epoch in best if epoch is not None]
    if len(kept) < len(best):
        raise MismatchError(f"study {spec.name}: every seed must have recorded its best epoch, but one has not.")
    return statistics.median_high(kept)


def _find_schedule(spec: StudySpec, info: DatasetInfo, params: Params) -> str:
    if "schedule" in params and spec.model.is_own:  # of that name its function may have a parameter
        return Call(_read_schedule, spec, info, params, doing="reading the model code").result()
    return read_options(spec.training, spec.augment, params, ()).schedule


def _read_schedule(spec: StudySpec, info: DatasetInfo, params: Params) -> str:
    from fmnist_optuna.training.user_code import UserCode  # loads TensorFlow

    return spec.options_of(params, UserCode(spec, info).architecture.parameters).schedule
