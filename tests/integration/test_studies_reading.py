"""Studies as they are found, listed and read back, the unreadable ones too, on both databases."""

from typing import Any

import pytest
from optuna.trial import TrialState
from small_study import (
    FINGERPRINT,
    ON_SQLITE,
    STUDY,
    begin_trial,
    claim_cell,
    create_study,
    epoch_of,
    finish_everything,
    make_spec,
)
from sqlalchemy import text, update

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import NotFoundError, UnreadableStudyError, UsageError
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import studies
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.records import UnreadableStudy
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_readable_or_not, find_study, list_studies, open_following

# By name


@ON_SQLITE
def test_a_study_that_is_not_there_is_not_found(storage: Storage) -> None:
    """By name, and when there is none at all."""
    with pytest.raises(NotFoundError, match="There is no study"):
        find_study(storage, None)
    create_study(storage)
    with pytest.raises(NotFoundError, match=r"There is no study other in .*`fmnist-optuna list`"):
        find_study(storage, "other")


@ON_SQLITE
def test_without_a_name_several_studies_are_listed(storage: Storage) -> None:
    """The person chooses; nothing is guessed."""
    for name in ("one", "two"):
        create_study(storage, make_spec(name=name))
    with pytest.raises(UsageError, match=r"The study must be named, as there are several in .*: one, two\."):
        find_study(storage, None)


@ON_SQLITE
def test_confirmations_do_not_count_when_the_name_is_left_out(storage: Storage) -> None:
    """`small/confirm` belongs to `small`."""
    record = create_study(storage)
    spec = make_spec().model_copy(update={"name": "small/confirm"})
    confirming, _ = create_or_join(storage, spec, FINGERPRINT, parent=record)
    assert find_study(storage, None).name == STUDY
    following = open_following(Session(storage, record), "confirmation")
    assert following is not None
    assert following.record == confirming
    assert open_following(Session(storage, record), "all-data") is None
    delete_study(storage, record)
    assert list_studies(storage) == []


def test_studies_are_listed_the_oldest_first(storage: Storage) -> None:
    """Whatever their names."""
    for name in ("b", "a", "c"):
        create_study(storage, make_spec(name=name))
    assert [record.name for record in list_studies(storage)] == ["b", "a", "c"]


# What is kept


def test_a_study_comes_back_as_it_was_made(storage: Storage) -> None:
    """Specification, grid order, data and generation."""
    spec = make_spec({"hidden_size": [64], "dropout_rate": [0.0, 0.5]}, training={"seed": 7})
    made = create_study(storage, spec)
    found = find_study(storage, STUDY)
    assert found == made
    assert found.spec == spec
    assert list(found.spec.grid) == ["hidden_size", "dropout_rate"]
    assert (found.data_source, found.data_fingerprint, found.info.is_demo) == ("synthetic", FINGERPRINT, True)


@ON_SQLITE
def test_a_study_keeps_what_its_data_is(storage: Storage) -> None:
    """Of a function of the user's own all that the info says, however long the name is; a damaged one is said."""
    info = DatasetInfo("digits", (8, 8), "float32", (0, 16), ("zero", "one"), licence="BSD")
    source = f"{'package.' * 30}module:load"
    create_or_join(storage, make_spec(data={"source": source}), FINGERPRINT, info=info)
    found = find_study(storage, STUDY)
    assert (found.data_source, found.info) == (source, info)
    for content, words in ((None, "its data_info is None"), ("{}", "must be kept as a table"), ("{", "are no JSON")):
        with storage.write() as connection:
            connection.execute(update(studies).values(data_info=content))
        with pytest.raises(UnreadableStudyError, match=words):
            find_study(storage, STUDY)


@ON_SQLITE
def test_results_have_parameters_of_their_declared_types(storage: Storage) -> None:
    """Optuna keeps 1 as 1.0 where another value is 2.5; the model that is built again gets what was trained."""
    record = create_study(storage, make_spec({"hidden_size": [64], "scale": [1, 2.5]}))
    session = Session(storage, record)
    finish_everything(session)
    assert {repr(result_of(session, cell).params["scale"]) for cell in session.history.finished()} == {"1", "2.5"}


def test_progress_is_read_from_our_tables(session: Session) -> None:
    """Counts, the running cell with its curve, the leader and the elapsed time."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    for number, value in enumerate((0.25, 0.5)):
        session.ledger.record_epoch(claim, trial_id, epoch_of(number, value))
    (running,) = session.history.running()
    assert (running.worker, running.params, running.n_epochs) == (session.name, claim.params, 2)
    assert [epoch.val_accuracy for epoch in session.history.curve(trial_id)] == [0.25, 0.5]
    assert session.history.best() is None
    session.optuna_storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])
    session.ledger.finish_cell(claim.cell_id, claim.token, ending(session, trial_id))
    best = session.history.best()
    assert best is not None
    assert (best.trial_id, best.val_accuracy, best.n_epochs, best.seconds) == (trial_id, 0.5, 2, 0.5)
    counts = session.history.counts()
    assert (counts.total, counts.waiting, counts.done, counts.complete, counts.is_over) == (4, 3, 1, 1, False)
    assert session.history.elapsed_seconds() > 0.0


def ending(session: Session, trial_id: int) -> Any:
    from fmnist_optuna.bridge.attributes import read_attempt

    return read_attempt(session.optuna_storage.get_trial(trial_id))


# What cannot be read

DAMAGES = {  # column, value, what is said of it
    "no JSON": ("spec", "{", "no JSON"),
    "no table": ("spec", "[1]", "its specification"),
    "a key of another version": ("spec", '{"name": "small", "searcher": 1}', "unknown key searcher"),
    "grids of another version": ("grids", '{"v2": []}', "its grids"),
    "an empty grid": ("grids", '[{"hidden_size": []}]', "must have at least one value"),
    "a grid of other names": ("grids", '[{"depth": [1]}]', "other parameters"),
    "null": ("grids", "null", ""),
    "deep": ("spec", "[" * 5000, ""),
    "another data source": ("data_source", "folder", "its data_source is 'folder'"),
    "a text for a time": ("created_at", "yesterday", "its created_at is 'yesterday'"),
    "a text for a number": ("generation", "many", "its generation is 'many'"),
}


@ON_SQLITE
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_an_unreadable_study_harms_no_other(storage: Storage, damage: str) -> None:
    """It is listed with the reason, named only when asked for, and can be removed; the other one goes on as ever."""
    column, value, words = DAMAGES[damage]
    create_study(storage)
    kept = create_study(storage, make_spec(name="other"))
    with storage.write() as connection:
        statement = text(f"UPDATE fmnist_studies SET {column} = :value WHERE study_name = :name")
        connection.execute(statement, {"value": value, "name": STUDY})
    (unreadable,) = [study for study in list_studies(storage) if isinstance(study, UnreadableStudy)]
    assert (unreadable.name, "\n" in unreadable.reason) == (STUDY, False)
    assert words in unreadable.reason
    assert find_study(storage, None).name == "other"
    with pytest.raises(UnreadableStudyError, match=f"fmnist-optuna delete {STUDY}$"):
        find_study(storage, STUDY)
    with pytest.raises(UnreadableStudyError, match=f"fmnist-optuna delete {STUDY}$"):
        create_study(storage)
    create_study(storage, make_spec(name="third"))
    with pytest.raises(UsageError, match=r"small \(unreadable\)"):
        find_study(storage, None)
    delete_study(storage, find_readable_or_not(storage, STUDY))
    assert [study.name for study in list_studies(storage)] == ["other", "third"]
    assert find_study(storage, "other") == kept
    create_study(storage)
