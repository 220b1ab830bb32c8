"""The confirmed seeds of the chosen cell once more, on all training images: a study of its own, `<name>/all-data`.

Each is trained to its last epoch and keeps the weights of that: nothing is chosen by the validation images, which are
trained on. How many epochs these are follows from the confirmation alone, so that the test set has no say in it either.
"""

import statistics
from dataclasses import replace

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.source import resolve_source
from fmnist_optuna.errors import MismatchError
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.processes.children import Call
from fmnist_optuna.results.all_data import AllData, find_all_data, open_all_data
from fmnist_optuna.results.confirmation import Confirmation
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
from fmnist_optuna.running.study import Catching
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.repeats import without_seed
from fmnist_optuna.spec.options import read_options
from fmnist_optuna.spec.study_spec import ALL_DATA_SUFFIX, StudySpec
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
    all_data = open_all_data(session, confirmation, prepared.data.data_dir)
    if all_data is None:
        rule = "every confirmed seed must have a result, but some have none"
        raise seeds_missing(session, options, prepared.session.record.name, rule)
    return all_data


def _prepare(session: Session, confirmation: Confirmation, options: RunOptions) -> PreparedStudy:
    record, confirming = session.record, open_following(session, CONFIRMATION)
    if confirming is None:
        raise MismatchError(f"study {record.name}: must have a confirmation, but that was deleted meanwhile.")
    runs = confirmation.chosen.runs
    points = [run.params for run in runs]
    data = resolve_source(record.data_source, options.data_dir, options.mirrors)
    place = replace(find_place(record, data.data_dir), is_all_trained_on=True)
    splits = place.load()
    n_epochs = _fixed_epochs(session, points[0]) or count_epochs(confirming.record.spec, record.info, runs)
    training = {"max_epochs": n_epochs, "keep_weights": "last"}
    spec = following_spec(record.spec, record.name + ALL_DATA_SUFFIX, points, training)
    is_trained = find_all_data(session, confirmation) is not None
    code = None if is_trained else offer_same_code(confirming, spec, runs, place.folder, options.accepts_code)
    return join_following(session, spec, points, code, data, splits)


def _fixed_epochs(session: Session, point: Params) -> int | None:
    """The number of epochs that some seeds of a cell were to be trained before: seeds that come later have the same."""
    training = open_following(session, ALL_DATA)
    if training is None or all(without_seed(cell.params) != without_seed(point) for cell in training.history.cells()):
        return None
    return training.record.spec.training.max_epochs


def count_epochs(spec: StudySpec, info: DatasetInfo, runs: tuple[Attempt, ...]) -> int:
    """How many epochs a confirmed cell is trained on all data.

    With a schedule all of it, as in the confirmation: `max_epochs`. With a constant rate the median, over the seeds, of
    the number of epochs after which a seed was best; of an even number of seeds the larger one in the middle.

    Args:
        spec: Of the confirmation.
        runs: Complete, one a seed.

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
