"""Create, join, grow, find, list, stop and delete a study, on both databases."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from small_study import (
    FINGERPRINT,
    GRID,
    LADDER,
    N_CELLS,
    ON_SQLITE,
    STUDY,
    begin_trial,
    claim_cell,
    create_study,
    epoch_of,
    finish_everything,
    make_spec,
)
from sqlalchemy import func, select, text, update

from fmnist_optuna.bridge.storage import open_optuna
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.data.synthetic import SYNTHETIC
from fmnist_optuna.errors import JoinRefusedError, MismatchError, NotFoundError, UnreadableStudyError, UsageError
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells, epochs, metadata, studies
from fmnist_optuna.running.preparation import decide_data
from fmnist_optuna.search.cell import newest_grid_with
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.records import UnreadableStudy
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import (
    find_confirmation_study,
    find_readable_or_not,
    find_study,
    find_study_or_none,
    list_studies,
    raise_generation,
)
from fmnist_optuna.study.verification import verify


def n_rows(storage: Storage) -> dict[str, int]:
    """Number of rows of our tables."""
    with storage.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }


@ON_SQLITE
@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"data": {"source": "fashion-mnist"}}, 'data.source: the study has "synthetic", this run "fashion-mnist"'),
        ({"data": {"source": "synthetic", "split_seed": 1}}, "data.split_seed: the study has 0, this run 1"),
        ({"model": {"learning_rate": 0.01}}, "model.learning_rate: the study has nothing, this run 0.01"),
        ({"training": {"max_epochs": 31}}, "training.max_epochs: the study has 30, this run 31"),
        ({"training": {"seed": 1}}, "training.seed: the study has 0, this run 1"),
        ({"pruner": {"name": "median"}}, 'pruner.name: the study has "none", this run "median"'),
    ],
)
def test_joining_with_another_specification_names_the_key(
    storage: Storage, tables: dict[str, Mapping[str, Any]], line: str
) -> None:
    """The difference, and the two ways out; and nothing is inserted."""
    create_study(storage)
    before = n_rows(storage)
    with pytest.raises(JoinRefusedError) as error:
        create_study(storage, make_spec({**GRID, "hidden_size": [64, 128, 256]}, STUDY, **tables))
    assert f"  {line}\n" in str(error.value)
    assert str(error.value).startswith("study small: exists with another specification.\n")
    assert str(error.value).endswith("Choose another name (--name NEW), or remove it: fmnist-optuna delete small")
    assert n_rows(storage) == before


def decided(spec: StudySpec, *, is_fallback: bool = False) -> StudySpec:
    """A specification as `run` has it once it knows that its data is synthetic."""
    return decide_data(spec, ResolvedData("synthetic", None, "as asked for", is_fallback))


@ON_SQLITE
@pytest.mark.parametrize("source", ["synthetic", "auto"])
def test_the_rule_counts_the_images_that_are_held_out(storage: Storage, source: str) -> None:
    """Of the synthetic garments fewer than is asked for: so it is stored, and joined by whoever asks for the same."""
    spec = decided(make_spec(data={"source": source}, pruner=LADDER), is_fallback=source == "auto")
    for n_new in (N_CELLS, 0):
        record, n_added = create_or_join(storage, spec, FINGERPRINT)
        assert (n_added, record.spec.data.n_validation) == (n_new, 2_400)
        rule = Session(storage, record).ladder
        assert rule is not None
        assert rule.margin_below(0.5) == math.sqrt(0.25 / 2_400)


@ON_SQLITE
def test_a_study_that_has_the_number_asked_for_is_joined(storage: Storage) -> None:
    """It goes on by the rule that its first cells were compared by; fewer images than it holds out are others."""
    stored = make_spec(pruner=LADDER)
    create_study(storage, stored)
    record, n_added = create_or_join(storage, decided(stored), FINGERPRINT)
    assert (n_added, record.spec.data.n_validation, record.spec.ladder_rule()) == (0, 12_000, stored.ladder_rule())
    fewer = make_spec(data={"source": "synthetic", "n_validation": 2_399}, pruner=LADDER)
    with pytest.raises(JoinRefusedError, match=r"data\.n_validation: the study has 2400, this run 2399"):
        create_or_join(storage, decided(fewer), FINGERPRINT)


@ON_SQLITE
def test_joining_with_other_data_is_refused(storage: Storage) -> None:
    """The same source, but other images or another description on this machine: what differs is named."""
    create_study(storage)
    with pytest.raises(
        MismatchError, match="fingerprint ffffffffffff, but gives other images or labels, fingerprint 0"
    ):
        create_or_join(storage, make_spec(), "0" * 64)
    info = replace(SYNTHETIC, licence="ours")
    with pytest.raises(
        MismatchError, match=r'gives licence: the study has "None: the garments are drawn\.", this run "o'
    ):
        create_or_join(storage, make_spec(), "0" * 64, info=info)


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
@pytest.mark.parametrize("grid", [{"hidden_size": [64]}, {**GRID, "learning_rate": [0.1]}])
def test_joining_with_other_grid_names_is_refused(storage: Storage, grid: dict[str, Any]) -> None:
    """A cell has a value for every parameter of the study."""
    create_study(storage)
    with pytest.raises(JoinRefusedError, match=r"grid names: the study has \['dropout_rate', 'hidden_size'\], this"):
        create_study(storage, make_spec(grid))


@ON_SQLITE
@pytest.mark.parametrize(("stored", "given"), [(["x", "y"], ["x", "y", "z"]), ([1, 2], [1, 2.5])])
def test_a_grid_whose_distribution_would_change_is_refused(storage: Storage, stored: Any, given: Any) -> None:
    """Optuna keeps the choices of strings, and whether numbers are integers, for good."""
    create_study(storage, make_spec({"kind": stored}))
    with pytest.raises(JoinRefusedError, match=r"grid\.kind: the study has \["):
        create_study(storage, make_spec({"kind": given}))
    assert n_rows(storage)["fmnist_cells"] == 2


@ON_SQLITE
def test_a_study_of_another_program_is_not_joined(storage: Storage) -> None:
    """Its trials are no attempts of ours."""
    study = optuna.create_study(study_name=STUDY, storage=open_optuna(storage), direction="maximize")
    study.ask()
    with pytest.raises(JoinRefusedError, match="must be one that fmnist-optuna made"):
        create_study(storage)
    assert n_rows(storage)["fmnist_studies"] == 0


@ON_SQLITE
def test_a_creation_that_died_halfway_is_taken_up(storage: Storage) -> None:
    """Optuna's empty study is there, our row is not."""
    optuna.create_study(study_name=STUDY, storage=open_optuna(storage), direction="maximize")
    assert create_or_join(storage, make_spec(), FINGERPRINT)[1] == N_CELLS


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
    assert find_confirmation_study(storage, record) == confirming
    delete_study(storage, record)
    assert list_studies(storage) == []


def test_a_study_comes_back_as_it_was_made(storage: Storage) -> None:
    """Specification, grid order, data and generation."""
    spec = make_spec({"hidden_size": [64], "dropout_rate": [0.0, 0.5]}, training={"seed": 7})
    made = create_study(storage, spec)
    found = find_study(storage, STUDY)
    assert found == made
    assert found.spec == spec
    assert list(found.spec.grid) == ["hidden_size", "dropout_rate"]
    assert (found.data_source, found.data_fingerprint, found.info.is_demo) == ("synthetic", FINGERPRINT, True)


def test_studies_are_listed_the_oldest_first(storage: Storage) -> None:
    """Whatever their names."""
    for name in ("b", "a", "c"):
        create_study(storage, make_spec(name=name))
    assert [record.name for record in list_studies(storage)] == ["b", "a", "c"]


def test_a_larger_grid_adds_only_its_new_cells(session: Session) -> None:
    """Results stay; the grid of the study is the newest, its cells the union."""
    finish_everything(session)
    larger = make_spec({**GRID, "hidden_size": [64, 128, 256]})
    record, n_new = create_or_join(session.storage, larger, FINGERPRINT)
    assert n_new == len(GRID["dropout_rate"])
    counts = session.history.counts()
    assert (counts.waiting, counts.running, counts.done, counts.failed) == (2, 0, N_CELLS, 0)
    assert record.spec.grid["hidden_size"] == (64, 128, 256)
    finish_everything(Session(session.storage, record, "later"))
    assert verify(session.storage, session.optuna_storage, record.study_id).ok


@ON_SQLITE
def test_the_newest_run_says_what_changes_no_number(storage: Storage) -> None:
    """How often a training is kept, what is confirmed: no reason to refuse a run, and the study has the newest."""
    create_study(storage)
    larger = {**GRID, "hidden_size": [64, 128, 256]}
    create_study(storage, make_spec(larger))
    made = create_study(storage, make_spec(training={"checkpoint_seconds": 5}, confirm={"top": 2, "seeds": 9}))
    assert find_study(storage, STUDY) == made
    assert made.spec.training.checkpoint_seconds == 5
    assert (made.spec.confirm.top, made.spec.confirm.seeds) == (2, 9)
    assert [grid["hidden_size"] for grid in made.grids] == [(64, 128), (64, 128, 256)]
    assert create_study(storage).spec.training.checkpoint_seconds == 60


@ON_SQLITE
def test_a_study_is_over_once_every_cell_has_its_end(session: Session) -> None:
    """The answer without counting is that of the counts, also of a study that was deleted."""
    is_over = [session.history.is_over()]
    claim = claim_cell(session)
    finish_everything(session)
    is_over += [session.history.is_over()]
    assert session.ledger.give_back(claim.cell_id, claim.token, count_lost=False)
    finish_everything(session)
    is_over += [session.history.is_over(), session.history.counts().is_over]
    delete_study(session.storage, session.record)
    assert [*is_over, session.history.is_over()] == [False, False, True, True, True]


@ON_SQLITE
def test_a_smaller_or_disjoint_grid_takes_nothing_away(storage: Storage) -> None:
    """The study is the union of what was accepted: 4 + 0 + 2 cells."""
    create_study(storage)
    n_new = [
        create_or_join(storage, make_spec({**GRID, "hidden_size": values}), FINGERPRINT)[1]
        for values in ([64], [512], [64, 128])
    ]
    assert n_new == [0, 2, 0]
    assert n_rows(storage)["fmnist_cells"] == N_CELLS + 2


@ON_SQLITE
def test_a_point_belongs_to_the_newest_grid_that_has_it(storage: Storage) -> None:
    """So that stock Optuna sees a trial in the grid that it will be asked about."""
    create_study(storage)
    record = create_study(storage, make_spec({**GRID, "hidden_size": [64, 256]}))
    grids = [
        record.grids[newest_grid_with({"hidden_size": size, "dropout_rate": 0.5}, record.grids)]["hidden_size"]
        for size in (64, 128, 256)
    ]
    assert grids == [(64, 256), (64, 128), (64, 256)]


def test_stop_raises_the_generation_of_one_study(storage: Storage) -> None:
    """By one; other studies work on."""
    one, other = create_study(storage), create_study(storage, make_spec(name="other"))
    raise_generation(storage, one.study_id)
    assert find_study(storage, STUDY).generation == one.generation + 1
    assert find_study(storage, "other").generation == other.generation


@ON_SQLITE
def test_joining_does_not_reset_a_stop(storage: Storage) -> None:
    """`run` begins with the generation that is there."""
    record = create_study(storage)
    raise_generation(storage, record.study_id)
    assert create_study(storage).generation == record.generation + 1


def test_delete_removes_everything_of_one_study(session: Session) -> None:
    """Cells, curves, openings, workers, trials; and nothing of another."""
    other = create_study(session.storage, make_spec(name="other"))
    before = {**n_rows(session.storage), "fmnist_studies": 1, "fmnist_cells": N_CELLS}
    trial_id = begin_trial(session, claim := claim_cell(session))
    session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5))
    session.presence.register("worker", fresh_seconds=60.0)
    delete_study(session.storage, session.record)
    assert n_rows(session.storage) == before
    assert [study.study_name for study in open_optuna(session.storage).get_all_studies()] == ["other"]
    assert find_study(session.storage, None) == other


@pytest.mark.parametrize("n_done", [1, 2, 3])
def test_a_delete_that_died_halfway_is_repeated(session: Session, n_done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, at whatever transaction it ended."""
    finish_everything(session)
    left = [n_done]
    write = Storage.write

    def dying(storage: Storage) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return write(storage)

    monkeypatch.setattr(Storage, "write", dying)
    if n_done < 2:
        with pytest.raises(KeyboardInterrupt):
            delete_study(session.storage, session.record)
    monkeypatch.undo()
    delete_study(session.storage, find_study(session.storage, STUDY))
    assert find_study_or_none(session.storage, STUDY) is None
    assert n_rows(session.storage)["fmnist_cells"] == 0


def test_a_study_whose_deletion_broke_off_is_not_joined(session: Session) -> None:
    """The person is told to finish it; a new study that got its id (on SQLite) is told so too, and keeps nothing."""
    session.optuna_storage.delete_study(session.record.study_id)
    names = ["between", STUDY] if session.storage.is_sqlite else [STUDY]
    for name in names:
        with pytest.raises(JoinRefusedError, match=r"study small: .*fmnist-optuna delete small"):
            create_study(session.storage, make_spec(name=name))
    delete_study(session.storage, find_study(session.storage, STUDY))
    for name in ("between", STUDY):
        assert create_or_join(session.storage, make_spec(name=name), FINGERPRINT)[1] == N_CELLS


def test_a_worker_of_a_deleted_study_finds_nothing(session: Session) -> None:
    """No cell to renew, no trial to sweep, no error."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    delete_study(session.storage, session.record)
    assert session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5)) is None
    assert not session.ledger.renew(claim)
    assert session.ledger.claim("worker", session.record.generation) is None
    assert session.recovery.sweep() == 0
    assert session.recovery.requeue_dead() == []
    with session.storage.read() as connection:
        assert connection.execute(select(func.count()).select_from(epochs)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(cells)).scalar_one() == 0


def test_a_deleted_name_can_be_used_again(session: Session) -> None:
    """With another specification, from the first cell."""
    finish_everything(session)
    delete_study(session.storage, session.record)
    create_study(session.storage, make_spec(training={"seed": 1}))
    assert find_study(session.storage, STUDY).spec.training.seed == 1
    assert n_rows(session.storage)["fmnist_cells"] == N_CELLS


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
def test_results_have_parameters_of_their_declared_types(storage: Storage) -> None:
    """Optuna keeps 1 as 1.0 where another value is 2.5; the model that is built again gets what was trained."""
    record = create_study(storage, make_spec({"hidden_size": [64], "scale": [1, 2.5]}))
    session = Session(storage, record)
    finish_everything(session)
    assert {repr(result_of(session, cell).params["scale"]) for cell in session.history.finished()} == {"1", "2.5"}


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
