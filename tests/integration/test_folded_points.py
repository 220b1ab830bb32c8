"""Points that are validated by each fold: as many results as cells, ranked by means, and one training of the winner."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from small_study import (
    BEST_POINT,
    GRID,
    ON_SQLITE,
    POSTGRES_MORE,
    begin_trial,
    create_study,
    finish_cell,
    finish_everything,
    finish_trial,
    in_threads,
    make_spec,
    open_session,
    search_spec,
    set_cell,
    value_within,
    work_off,
)

from fmnist_optuna.bridge.attributes import stored_attributes
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.cli.answers import winner_answer
from fmnist_optuna.confirming import _leaders
from fmnist_optuna.data.dataset import Dataset, DatasetInfo
from fmnist_optuna.data.sharing import arrays_of
from fmnist_optuna.data.split import split_into_folds
from fmnist_optuna.errors import JoinRefusedError, MismatchError, NotFoundError, UsageError
from fmnist_optuna.export.source import choose_source
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.results.winner import evaluate_winner, find_winner
from fmnist_optuna.running.all_data import count_epochs
from fmnist_optuna.running.following import following_spec
from fmnist_optuna.search.cell import TRAINING_SEED, VALIDATION_FOLD
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.running_trial import RunningTrial

Sessions = Callable[..., Session]
N_FOLDS = 3
FOLDED = {"source": "synthetic", "folds": N_FOLDS}


def folded_grid(n_folds: int = N_FOLDS, name: str = "small") -> StudySpec:
    """A grid of four points."""
    return make_spec(GRID, name, data={"source": "synthetic", "folds": n_folds})


def train(session: Session) -> None:
    """Give each cell of the grid its value."""
    finish_everything(session, lambda params: value_within(params, VALIDATION_FOLD))


def value_by_fold(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome:
    """No epochs; a value of the point, and of the fold."""
    return Outcome(State.COMPLETE, float(params["dropout_rate"]) + int(params[VALIDATION_FOLD]) / 100)


@POSTGRES_MORE
def test_points_are_ranked_by_the_mean_of_their_folds(new_session: Sessions) -> None:
    """Each fold has a result of its own; the winner is not trained on all images yet, and says so."""
    session = new_session("worker", folded_grid())
    train(session)
    found = verify_study(session)
    assert (found.ok, found.n_cells, found.n_results, found.problems) == (True, 12, 12, ())
    winner = find_winner(session)
    assert (winner.params, winner.value, winner.val_accuracy, winner.repeats) == (BEST_POINT, 0.75, 0.75, None)
    assert winner.folds is not None
    assert (winner.folds.values.values, winner.folds.trained) == ((0.625, 0.75, 0.875), None)
    answer = winner_answer(session.record, winner)
    assert (answer["trial"], answer["params"], answer["val_accuracy"]) == (None, BEST_POINT, 0.75)
    assert answer["folds"] == {
        "folds": 3, "seeds": 1, "mean": 0.75, "sd": 0.125, "values": [0.625, 0.75, 0.875], "trained": None
    }  # fmt: skip
    overview = read_overview(session)
    assert len(overview.cells) == 4
    assert overview.winner is not None


@ON_SQLITE
def test_no_fold_is_tested_or_exported_in_its_place(new_session: Sessions) -> None:
    """Before the best point is trained on all images there is nothing to open."""
    session = new_session("worker", folded_grid())
    train(session)
    for ask in (lambda: evaluate_winner(session, None), lambda: choose_source(session, None, False, None)):
        with pytest.raises(NotFoundError, match="its best point must be trained on all training images first"):
            ask()
    with pytest.raises(UsageError, match="must be left out for study small, as its winner is one training"):
        choose_source(session, None, True, None)
    with pytest.raises(UsageError, match="must be one without folds to be confirmed, but has 3"):
        _leaders(session, 2)


@ON_SQLITE
def test_the_winner_is_what_was_trained_on_all_images(new_session: Sessions) -> None:
    """A study of its own has it, of the point alone; one that ended early is refused."""
    session = new_session("worker", folded_grid())
    train(session)
    spec = following_spec(
        session.record.spec,
        "small/all-data",
        [{**BEST_POINT, TRAINING_SEED: 1}],
        {"max_epochs": 2, "keep_weights": "last"},
    )
    assert spec.n_cells == 1
    points = [{**BEST_POINT, TRAINING_SEED: 1}]
    record, n_new = create_or_join(
        session.storage, spec, session.record.data_fingerprint, points, parent=session.record
    )
    assert (n_new, record.is_on_all_data, record.spec.data.folds) == (1, True, N_FOLDS)
    training = Session(session.storage, record, "worker")
    claim = training.ledger.claim("worker", training.ledger.generation() or 0)
    assert claim is not None
    assert claim.params == points[0]
    trial_id = begin_trial(training, claim)
    finish_trial(training, trial_id, 0.9)
    finish_cell(training, claim, trial_id)
    with pytest.raises(MismatchError, match="must be trained for 2 epochs, but trial 0 was for 0") as caught:
        find_winner(session)
    assert str(caught.value).endswith("fmnist-optuna delete small/all-data, then fmnist-optuna run")
    assert verify_study(training).ok


@ON_SQLITE
def test_folds_fix_the_number_of_epochs(new_session: Sessions) -> None:
    """The median of the epochs after which they were best; with a schedule it is the whole of it."""
    session = new_session("worker", folded_grid())
    while (claim := session.ledger.claim("worker", session.ledger.generation() or 0)) is not None:
        trial_id = begin_trial(session, claim)
        best_epoch = (4, 1, 7)[int(claim.params[VALIDATION_FOLD]) - 1]
        for key, value in stored_attributes(TrialAttributes(best_epoch=best_epoch)).items():
            session.optuna_storage.set_trial_user_attr(trial_id, key, value)
        finish_trial(session, trial_id, 0.5)
        finish_cell(session, claim, trial_id)
    first = session.history.leaders(1)[0]
    runs = tuple(result_of(session, cell) for cell in session.history.repeats_of(first.cell_id))
    assert count_epochs(session.record.spec, session.record.info, runs) == 5
    falling = make_spec(GRID, data=FOLDED, training={"schedule": "cosine", "max_epochs": 9})
    assert count_epochs(falling, session.record.info, runs) == 9


@ON_SQLITE
def test_verify_misses_a_fold_that_is_gone(new_session: Sessions) -> None:
    """A larger grid brings all folds of its new points; other folds are another study."""
    session = new_session("worker", folded_grid())
    larger = make_spec({**GRID, "hidden_size": [64, 128, 256]}, data=FOLDED)
    later = Session(session.storage, create_study(session.storage, larger), "later")
    assert (later.history.counts().total, later.record.spec.grid.keys()) == (18, GRID.keys())
    with pytest.raises(JoinRefusedError, match=r"data\.folds: the study has 3, this run 4"):
        create_study(session.storage, folded_grid(4))
    gone = next(each for each in later.history.cells() if each.params[VALIDATION_FOLD] == 2)
    set_cell(session.storage, gone.cell_id, params='{"hidden_size": 64, "dropout_rate": 0.0, "validation_fold": 7}')
    assert any("must have validation_fold 1 to 3, but has" in problem for problem in verify_study(later).problems)


@POSTGRES_MORE
def test_many_workers_fix_one_point_for_all_folds(new_session: Sessions, storage_url: str) -> None:
    """Of each seed, as both are repeats; whoever claims a later cell first finds the point of the first one."""
    new_session("worker", search_spec("tpe", 6, repeats=2, data=FOLDED))
    sessions = [open_session(storage_url, f"worker{number}") for number in range(4)]
    in_threads(len(sessions), lambda number: work_off(sessions[number], value_by_fold))
    found = verify_study(sessions[0])
    assert (found.ok, found.n_results, found.problems) == (True, 36, ())
    cells = sorted(sessions[0].history.cells(), key=lambda cell: cell.number or 0)
    pairs = [(cell.params[TRAINING_SEED], cell.params[VALIDATION_FOLD]) for cell in cells]
    assert pairs == [(seed, fold) for seed in (1, 2) for fold in (1, 2, 3)] * 6
    assert all(len({str(point_of(cell.params)) for cell in cells[place : place + 6]}) == 1 for place in range(0, 36, 6))
    for each in sessions:
        each.storage.close()


def test_a_cell_is_validated_by_its_fold() -> None:
    """A worker keeps the images of one fold at a time."""
    from fmnist_optuna.training.resident_data import FoldedData

    info = DatasetInfo("rows", (2,), "float32", (0.0, 100.0), ("cat", "dog"))
    labels = np.array([0, 1] * 6)
    images = np.arange(24, dtype=np.float32).reshape(12, 2)
    weights = np.arange(1, 13, dtype=np.float32)
    splits = split_into_folds(Dataset(info, images, labels, images[:2], labels[:2], weights), "npz:a", 3, 0)
    data = FoldedData(info, arrays_of(splits))
    for number in (1, 2, 2, 3):
        expected, found = splits.fold(number), data.of({"hidden_size": 8, VALIDATION_FOLD: number})
        assert np.array_equal(found.train_images.numpy(), expected.train_images)
        assert np.array_equal(found.validation_labels.numpy(), expected.validation_labels)
        assert found.train_weights is not None
        assert np.array_equal(found.train_weights.numpy(), np.asarray(expected.train_weights))
    with pytest.raises(MismatchError, match="must say which one validates it"):
        data.of({"hidden_size": 8})
