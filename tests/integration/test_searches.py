"""Searches that are no grid: as many results as trials, which stock Optuna reads, and nothing left once deleted."""

from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from search_study import N_TRIALS, SAMPLERS, points
from small_study import (
    N_CELLS,
    ON_SQLITE,
    POSTGRES_MORE,
    begin_trial,
    claim_cell,
    create_study,
    finish_cell,
    finish_trial,
    search_spec,
    set_cell,
    work_off,
)
from sqlalchemy import select

from fmnist_optuna.ledger.progress import NewResults
from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.session import Session

Sessions = Callable[..., Session]


@POSTGRES_MORE
@SAMPLERS
def test_a_search_ends_with_as_many_results_as_trials(new_session: Sessions, sampler: str) -> None:
    """Each of a cell of its own, with the point that seed, number and what was known give."""
    session = new_session("worker", search_spec(sampler, N_TRIALS))
    work_off(session)
    found = verify_study(session)
    assert (found.ok, found.n_cells, found.n_results, found.n_unchecked_points) == (True, N_TRIALS, N_TRIALS, 0)
    assert [cell.number for cell in session.history.cells()] == list(range(N_TRIALS))
    assert all(("alpha" in params) == (params["act"] == "gelu") for params in points(session))


@POSTGRES_MORE
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_stock_optuna_reads_a_search(new_session: Sessions, storage_url: str, sampler: str) -> None:
    """Distributions of every kind, what a condition rules out absent, and TPE goes on from there as from its own."""
    work_off(new_session("worker", search_spec(sampler, N_TRIALS)))
    study = optuna.load_study(study_name="small", storage=storage_url.replace("postgresql:", "postgresql+psycopg:"))
    assert len(study.trials) == N_TRIALS
    ranges = {
        "hidden_size": IntDistribution(32, 512, step=32),
        "dropout_rate": FloatDistribution(0.0, 0.5),
        "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "act": CategoricalDistribution(("relu", "gelu")),
        "alpha": IntDistribution(1, 64, log=True),
    }
    for trial in study.trials:
        assert trial.distributions == {name: ranges[name] for name in trial.params}
        assert ("alpha" in trial.params) == (trial.params["act"] == "gelu")
    shared = optuna.search_space.intersection_search_space(study.trials)
    assert shared.keys() == {"hidden_size", "dropout_rate", "learning_rate", "act"}
    assert set(study.ask(shared).params) == set(shared)


@ON_SQLITE
def test_equal_points_are_cells_of_their_own(new_session: Sessions) -> None:
    """Two choices and twelve trials: twelve results, whose trainings have seeds of their own."""
    session = new_session("worker", search_spec("random", 12, space={"hidden_size": [32, 64]}))
    work_off(session)
    assert verify_study(session).n_results == 12
    trials = session.optuna_storage.get_all_trials(session.record.study_id)
    assert len({trial.user_attrs.get("seed") for trial in trials}) == 12


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@ON_SQLITE
def test_a_search_is_deleted_whole(new_session: Sessions, storage: Storage, sampler: str) -> None:
    """And one of the same name then begins with the same points."""
    session = new_session("worker", search_spec(sampler, 4))
    work_off(session)
    before = points(session)
    delete_study(session.storage, session.record)
    again = Session(storage, create_study(storage, search_spec(sampler, 4)), "worker")
    work_off(again)
    assert points(again) == before


def test_results_after_the_clock_was_set_back_are_known(new_session: Sessions, storage: Storage) -> None:
    """The database's: those of before seem to come from the future, and hide none of those that come now."""
    session = new_session("worker", search_spec("random", 2))
    results = NewResults(session.history)
    first, second = begin_cell(session), begin_cell(session)
    end_cell(session, *first)
    set_cell(storage, first[0].cell_id, finished_at=storage.now + 3600.0)
    assert [len(results.read()), len(results.read())] == [1, 0]
    known, since = session.points.read_known()
    with storage.read() as connection:
        assert since < connection.execute(select(storage.now)).scalar_one()
    end_cell(session, *second)
    assert [cell.trial_id for cell in results.read()] == [second[1]]
    assert len(known) == 2
    for time_of_before in (since, since + 3600.0):
        known, _ = session.points.read_known(time_of_before)
        assert [cell.standing for cell in known] == ["complete", "complete"]


def begin_cell(session: Session) -> tuple[Claim, int]:
    claim = claim_cell(session)
    return claim, begin_trial(session, claim)


def end_cell(session: Session, claim: Claim, trial_id: int) -> None:
    finish_trial(session, trial_id, 0.5)
    finish_cell(session, claim, trial_id)


@ON_SQLITE
def test_a_grid_has_neither_numbers_nor_knowledge(session: Session) -> None:
    """Its rows are what they were."""
    assert session.points.read_fixed() == {}
    assert session.points.read_known() == ([], 0.0)
    assert [cell.number for cell in session.history.cells()] == [None] * N_CELLS
