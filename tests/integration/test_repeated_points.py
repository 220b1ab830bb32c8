"""Points that are trained over several seeds: as many results as cells, one point for all repeats, ranked by means."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

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

from fmnist_optuna.bridge.suggestion import Suggester
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.cli.answers import winner_answer
from fmnist_optuna.confirming import _leaders
from fmnist_optuna.errors import JoinRefusedError, NotFoundError
from fmnist_optuna.export.choice import describe_choice
from fmnist_optuna.export.source import choose_source
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.search.cell import TRAINING_SEED, Params
from fmnist_optuna.search.known import KnownCell
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.search.sampling import is_same_point, number_id, suggestion_seed
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.claiming import Claiming
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.running_trial import RunningTrial

Sessions = Callable[..., Session]
N_REPEATS = 3


def repeated_grid(n_repeats: int = N_REPEATS) -> StudySpec:
    """A grid of four points."""
    return make_spec(GRID, search={"repeats": n_repeats})


def repeated_search(sampler: str, n_trials: int, n_repeats: int = 2) -> StudySpec:
    """A search, each of whose points is repeated."""
    return search_spec(sampler, n_trials, repeats=n_repeats)


def train(session: Session, diverged: Params | None = None) -> None:
    """Give each cell of the grid its value; one may diverge."""
    finish_everything(session, lambda params: None if params == diverged else value_within(params, TRAINING_SEED))


def value_by_seed(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome:
    """No epochs; a value of the point, and of the seed."""
    return Outcome(State.COMPLETE, float(params["dropout_rate"]) + int(params[TRAINING_SEED]) / 100)


def reversed_by_seed(params: Mapping[str, Any], seed: int, running: RunningTrial) -> Outcome:
    """The first repeats are in the reverse order of the means."""
    factor = 0.1 if params[TRAINING_SEED] == 1 else -0.3
    return Outcome(State.COMPLETE, 0.5 + factor * float(params["dropout_rate"]))


@POSTGRES_MORE
def test_points_of_a_grid_are_ranked_by_their_mean(new_session: Sessions) -> None:
    """Each repeat has a result of its own; the first repeat of the best point wins, whatever its seeds had."""
    session = new_session("worker", repeated_grid())
    train(session)
    found = verify_study(session)
    assert (found.ok, found.n_cells, found.n_results, found.problems) == (True, 12, 12, ())
    assert [(cell.params, cell.value) for cell in session.history.leaders(2)] == [
        ({**BEST_POINT, TRAINING_SEED: 1}, 0.625),
        ({"hidden_size": 128, "dropout_rate": 0.0, TRAINING_SEED: 1}, 0.5),
    ]
    best = session.history.best_point()
    assert best is not None
    assert (best.params, best.value, session.history.best_value()) == (BEST_POINT, 0.75, 0.75)
    winner = find_winner(session)
    assert (winner.params, winner.value, winner.attempt.params[TRAINING_SEED]) == (BEST_POINT, 0.625, 1)
    assert winner.repeats is not None
    assert winner.repeats.values == (0.625, 0.75, 0.875)
    answer = winner_answer(session.record, winner)
    assert (answer["params"], answer["repeats"]) == (
        BEST_POINT,
        {"mean": 0.75, "sd": 0.125, "interval": list(winner.repeats.interval), "values": [0.625, 0.75, 0.875]},
    )


@ON_SQLITE
def test_a_card_says_which_repeat_is_exported(new_session: Sessions) -> None:
    """The first without a choice; another one that was asked for by its number is not called the first."""
    session = new_session("worker", repeated_grid())
    train(session)
    (second,) = [
        cell.trial_number for cell in session.history.finished() if cell.params == {**BEST_POINT, TRAINING_SEED: 2}
    ]
    told = []
    for trial in (None, second):
        source = choose_source(session, trial, False, None)
        facts: Any = SimpleNamespace(source=source, attempt=source.attempts[0], record=session.record, n_cells=12)
        told.append(describe_choice(facts).rpartition("exported is ")[2])
    asked_for = "a training that was asked for by its number, whatever was chosen, with training_seed 2."
    assert told == ["the first of them, whatever the others had.", asked_for]


@ON_SQLITE
def test_a_point_that_diverged_once_wins_nothing(new_session: Sessions) -> None:
    """Its mean would be that of the lucky seeds."""
    session = new_session("worker", repeated_grid())
    train(session, diverged={**BEST_POINT, TRAINING_SEED: 3})
    assert find_winner(session).params == {"hidden_size": 128, "dropout_rate": 0.0}
    assert [point.state for point in session.history.points()].count(State.PRUNED) == 1


@ON_SQLITE
def test_nobody_leads_before_a_point_is_complete(new_session: Sessions) -> None:
    """Single repeats are compared with nothing."""
    session = new_session("worker", repeated_grid())
    claim = session.ledger.claim("worker", session.ledger.generation() or 0)
    assert claim is not None
    trial_id = begin_trial(session, claim)
    finish_trial(session, trial_id, 0.9)
    finish_cell(session, claim, trial_id)
    assert session.history.best_value() is None
    with pytest.raises(NotFoundError, match="no trial is complete yet"):
        find_winner(session)
    assert read_overview(session).winner is None


@ON_SQLITE
def test_a_larger_grid_repeats_its_new_points(new_session: Sessions) -> None:
    """Those that are there keep their results; another number of repeats is refused."""
    session = new_session("worker", repeated_grid())
    train(session)
    larger = make_spec({**GRID, "hidden_size": [64, 128, 256]}, search={"repeats": N_REPEATS})
    later = Session(session.storage, create_study(session.storage, larger), "later")
    assert (later.history.counts().waiting, later.history.counts().total) == (6, 18)
    assert later.record.spec.grid.keys() == GRID.keys()
    with pytest.raises(JoinRefusedError, match=r"search\.repeats: the study has 3, this run 4"):
        create_study(session.storage, repeated_grid(4))


@ON_SQLITE
def test_verify_misses_a_repeat_that_is_gone(new_session: Sessions) -> None:
    """A grid's cells say which point they are of, but not how many there must be."""
    session = new_session("worker", repeated_grid())
    train(session)
    params = '{"hidden_size": 64, "dropout_rate": 0.0, "training_seed": 7}'
    gone = next(each for each in session.history.cells() if each.params[TRAINING_SEED] == 2)
    set_cell(session.storage, gone.cell_id, params=params)
    assert any("must have training_seed 1 to 3, but has" in problem for problem in verify_study(session).problems)


@POSTGRES_MORE
@pytest.mark.parametrize("sampler", ["random", pytest.param("qmc", marks=pytest.mark.more), "tpe"])
def test_all_repeats_of_a_search_have_one_point(new_session: Sessions, sampler: str) -> None:
    """TPE's, which is fixed by the first claim, among them; more trials go on."""
    session = new_session("worker", repeated_search(sampler, 6))
    work_off(session, value_by_seed)
    later = Session(session.storage, create_study(session.storage, repeated_search(sampler, 12)), "later")
    work_off(later, value_by_seed)
    found = verify_study(later)
    assert (found.ok, found.n_results, found.n_unchecked_points, found.problems) == (True, 24, 0, ())
    cells = sorted(later.history.cells(), key=lambda cell: cell.number or 0)
    assert [cell.params[TRAINING_SEED] for cell in cells] == [1, 2] * 12
    points = [point_of(cell.params) for cell in cells]
    assert points[::2] == points[1::2]
    assert len({str(point) for point in points}) == 12
    best = max(cells, key=lambda cell: (float(cell.params["dropout_rate"]), -(cell.number or 0)))
    assert find_winner(later).params == point_of(best.params)


@POSTGRES_MORE
def test_many_workers_fix_one_point_for_all_repeats(new_session: Sessions, storage_url: str) -> None:
    """Whoever claims a later repeat first finds the point of the first one."""
    new_session("worker", repeated_search("tpe", 8, 3))
    sessions = [open_session(storage_url, f"worker{number}") for number in range(4)]
    in_threads(len(sessions), lambda number: work_off(sessions[number], value_by_seed))
    found = verify_study(sessions[0])
    assert (found.ok, found.n_results, found.problems) == (True, 24, ())
    for each in sessions:
        each.storage.close()


@ON_SQLITE
def test_tpe_learns_from_the_means_of_points(new_session: Sessions) -> None:
    """What it suggests for the last point is what it suggests to a search whose points have these means."""
    n_trials = 12  # TPE draws the first ten at random
    session = new_session("worker", repeated_search("tpe", n_trials))
    work_off(session, reversed_by_seed)
    cells = sorted(session.history.cells(), key=lambda cell: cell.number or 0)
    points = [point_of(cell.params) for cell in cells[::2]]
    values = [
        statistics.fmean(float(cell.value or 0.0) for cell in pair)
        for pair in zip(cells[::2], cells[1::2], strict=True)
    ]
    firsts = [float(cell.value or 0.0) for cell in cells[::2]]

    def suggest(values: Sequence[float]) -> Params:
        pairs = enumerate(zip(points[:-1], values[:-1], strict=True))
        known = [KnownCell(number, point, "complete", 0, value) for number, (point, value) in pairs]
        return Suggester(session.record.spec.dimensions).suggest(suggestion_seed(0, n_trials - 1), known)

    assert is_same_point(suggest(values), points[-1])
    assert not is_same_point(suggest(firsts), points[-1])


@POSTGRES_MORE
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_point_outlives_the_worker_that_fixed_it(new_session: Sessions, is_lost: bool) -> None:
    """Whether the first repeat failed for good or waits behind the others, these have its point."""
    session = new_session("worker", repeated_search("tpe", 2, 3))
    claiming, generation = Claiming(session), session.ledger.generation() or 0
    first = claiming.claim(generation)
    assert first is not None
    if is_lost:
        session.ledger.give_back(first.cell_id, first.token, count_lost=True)
    else:
        set_cell(session.storage, first.cell_id, state=State.FAILED)
    later = [claiming.claim(generation) for _ in range(2)]
    assert [claim.params for claim in later if claim is not None] == [
        {**first.params, TRAINING_SEED: seed} for seed in (2, 3)
    ]


@ON_SQLITE
def test_a_repeat_of_another_point_is_found(new_session: Sessions) -> None:
    """By `verify`, which derives every later repeat from the first."""
    session = new_session("worker", repeated_search("tpe", 2))
    work_off(session, value_by_seed)
    set_cell(session.storage, number_id(1), known='{"repeat_of": 2}')
    assert any("does not say what its point rests on" in problem for problem in verify_study(session).problems)


@ON_SQLITE
def test_the_best_points_are_confirmed(new_session: Sessions) -> None:
    """By their means, each once."""
    session = new_session("worker", repeated_grid())
    train(session)
    assert [cell.params["hidden_size"] for cell in _leaders(session, 3)] == [64, 128, 64]
