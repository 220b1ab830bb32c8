"""Joining a study, on both databases: which differences are refused, and what a run or a larger grid changes."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
import pytest
from small_study import (
    FINGERPRINT,
    GRID,
    LADDER,
    N_CELLS,
    ON_SQLITE,
    STUDY,
    create_study,
    finish_everything,
    make_spec,
    n_rows,
)

from fmnist_optuna.bridge.storage import open_optuna
from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.data.synthetic import SYNTHETIC
from fmnist_optuna.errors import JoinRefusedError, MismatchError
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.running.preparation import decide_data
from fmnist_optuna.search.cell import newest_grid_with
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study, raise_generation
from fmnist_optuna.study.verification import verify

# What is refused, and what is not


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
def test_joining_does_not_reset_a_stop(storage: Storage) -> None:
    """`run` begins with the generation that is there."""
    record = create_study(storage)
    raise_generation(storage, record.study_id)
    assert create_study(storage).generation == record.generation + 1


# What it changes


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
