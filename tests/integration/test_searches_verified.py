"""What `verify` says of a search: each point must be the one that its number, or what was known, gives."""

import json
from collections.abc import Callable

import pytest
from search_study import FIRST, N_TRIALS, claim, fixed, points
from small_study import ON_SQLITE, create_study, search_spec, set_cell, work_off

from fmnist_optuna.bridge.suggestion import OPTUNA
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.search.known import Known
from fmnist_optuna.search.sampling import number_id, sequence_version
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.fixed_points import FoundPoints, check_points
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study

Sessions = Callable[..., Session]


@pytest.fixture
def finished(new_session: Sessions) -> Session:
    """A search of TPE, every cell done."""
    session = new_session("worker", search_spec("tpe", N_TRIALS))
    work_off(session)
    return session


@ON_SQLITE
def test_a_claim_between_two_looks_is_no_problem(new_session: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` of a search that goes on reads points and what they rest on one after the other."""
    session = new_session("worker", search_spec("tpe", 4))
    read = session.history.cells

    def read_and_claim() -> list[Cell]:
        cells = read()
        claim(session)
        return cells

    monkeypatch.setattr(session.history, "cells", read_and_claim)
    assert check_points(session).problems == ()


@ON_SQLITE
def test_a_changed_suggestion_is_found(finished: Session) -> None:
    """Whatever somebody writes into the row of a cell that TPE suggested."""
    changes = {
        None: "does not say what its point rests on",
        "{}": "does not say what its point rests on: what was known is",
        Known(OPTUNA, 0, (), (), ()).to_text(): "has not the point that was suggested",
        Known(OPTUNA, 0, (99,), (), ()).to_text(): "rests on cells that are not there",
        Known(OPTUNA, 1, (), (), ()).to_text(): "rests on cells that are not there",
    }
    for known, expected in changes.items():
        set_cell(finished.storage, number_id(11), known=known)
        (problem,) = verify_study(finished).problems
        assert expected in problem


@ON_SQLITE
def test_another_optuna_is_accused_of_nothing(finished: Session) -> None:
    """What it suggested cannot be suggested anew here: the number of such points is said."""
    known = Known("4.0.0", 0, fixed(finished, 11).done, (), ())
    set_cell(finished.storage, number_id(11), known=known.to_text())
    found = verify_study(finished)
    assert (found.ok, found.n_unchecked_points) == (True, 1)


@ON_SQLITE
def test_another_scipy_is_accused_of_nothing(new_session: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sequence is another one: points that do not come out again are counted, of its own version they are wrong."""
    with monkeypatch.context() as then:
        then.setattr("fmnist_optuna.study.joining.sequence_version", lambda: "1.0.0")
        session = new_session("worker", search_spec("qmc", 3))
    create_study(session.storage, search_spec("qmc", 6))
    grown = Session(session.storage, find_study(session.storage, "small"), "worker")
    assert grown.record.drawn_by == ("1.0.0", sequence_version())
    assert check_points(grown) == FoundPoints()
    drawn = points(grown)
    set_cell(grown.storage, FIRST, params=json.dumps({**drawn[0], "dropout_rate": 0.25}))
    assert check_points(grown) == FoundPoints((), 1)
    set_cell(grown.storage, number_id(5), params=json.dumps({**drawn[5], "dropout_rate": 0.25}))
    (problem,) = check_points(grown).problems
    assert "has not the point of its number" in problem


@ON_SQLITE
def test_a_changed_random_point_is_found(new_session: Sessions) -> None:
    """Before anything is trained: the seed and the number say what it must be."""
    session = new_session("worker", search_spec("random", 3))
    set_cell(session.storage, FIRST, params=json.dumps({**points(session)[0], "dropout_rate": 0.25}))
    (problem,) = verify_study(session).problems
    assert "dropout_rate 0.25" in problem
    assert "has not the point of its number" in problem


@ON_SQLITE
def test_a_cell_that_is_missing_is_found(new_session: Sessions) -> None:
    """By its number, and one that is of no number too."""
    session = new_session("worker", search_spec("random", 3))
    set_cell(session.storage, FIRST, number=7)
    assert set(verify_study(session).problems) == {
        "cell 0 of the search is missing",
        "1 cell of the study must be one of the search, but has no number of it",
    }
