"""Rungs of points that are trained over several seeds: compared by their means, and cut as a whole."""

from collections.abc import Callable

import pytest
from rung_study import run_all, run_next
from small_study import (
    LADDER,
    MAX_EPOCHS,
    ON_SQLITE,
    POSTGRES_MORE,
    cut_cells,
    expected_cuts,
    ladder_curve,
    ladder_objective,
    make_spec,
    open_session,
    set_cell,
)

from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.search.cell import TRAINING_SEED, Params
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.cuts import explain_cut, verify_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.attempt import let_on_ahead
from fmnist_optuna.work.running_trial import RunningTrial

pytestmark = pytest.mark.more

Sessions = Callable[..., Session]
N_REPEATS = 2
N_POINTS = 12


def repeated_ladder(n_points: int = N_POINTS, name: str = "small") -> StudySpec:
    """A study with rungs, of as many points."""
    return make_spec(
        {"hidden_size": list(range(1, n_points + 1))},
        name,
        pruner={**LADDER, "keep": 1},
        search={"repeats": N_REPEATS},
        training={"max_epochs": MAX_EPOCHS},
        data={"source": "synthetic", "n_validation": 2000},
    )


@POSTGRES_MORE
def test_all_repeats_of_a_point_are_cut_or_none(new_session: Sessions) -> None:
    """As the rule says of the means; whoever wins has all its repeats, and `verify` derives every decision."""
    session = new_session("worker", repeated_ladder())
    run_all(session, ladder_objective)
    found = verify_study(session)
    assert (found.ok, found.n_results, found.problems) == (True, N_POINTS * N_REPEATS, ())
    cut = cut_cells(session)
    assert cut == expected_cuts(session.record.spec)
    assert 0 < len(cut) < N_POINTS * N_REPEATS
    for cells in session.history.group(session.history.cells()):
        assert len({cell.state for cell in cells}) == 1
    assert session.history.best() is not None


@ON_SQLITE
def test_a_cut_is_told_by_the_means(new_session: Sessions) -> None:
    """Of the point, and of the best one."""
    session = new_session("worker", repeated_ladder())
    run_all(session, ladder_objective)
    cell = next(cell for cell in session.history.cells() if cell.state is State.PRUNED)
    sentence = explain_cut(session, cell.trial_id or 0) or ""
    cells = [ladder_curve({**point_of(cell.params), TRAINING_SEED: seed}) for seed in (1, 2)]
    mean = sum(max(curve[: cell.cut_at]) for curve in cells) / N_REPEATS
    assert sentence.startswith(f"cut at epoch {cell.cut_at}: {100 * mean:.1f} % and gaining ")
    assert sentence.endswith(", means of 2 repeats")


@ON_SQLITE
def test_the_winner_names_how_many_points_were_cut(new_session: Sessions, capsys: pytest.CaptureFixture[str]) -> None:
    """Not how many cells: it stands among points."""
    session = new_session("worker", repeated_ladder())
    run_all(session, ladder_objective)
    print_winner(session.record, find_winner(session), session.history.counts())
    n_cut = len(
        {point_of(cell.params)["hidden_size"] for cell in session.history.cells() if cell.state is State.PRUNED}
    )
    assert 0 < n_cut < N_POINTS
    line = " ".join(capsys.readouterr().out.split())
    assert f"first repeat of the best of {N_POINTS} points, {n_cut} cut at rungs" in line


@ON_SQLITE
def test_nobody_goes_ahead_of_the_mean_of_its_point(new_session: Sessions) -> None:
    """What a point has is known when all its cells have come."""
    session = new_session("worker", repeated_ladder(2))
    for _ in range(3):
        run_next(session, ladder_objective)
    assert not let_on_ahead(session)


@ON_SQLITE
def test_verify_finds_a_repeat_that_was_cut_alone(new_session: Sessions) -> None:
    """Whoever takes one of the cells out of a decision is found by the number that it was about."""
    session = new_session("worker", repeated_ladder())
    run_all(session, ladder_objective)
    cut = next(cell for cell in session.history.cells() if cell.state is State.PRUNED)
    set_cell(session.storage, cut.cell_id, cut_at=None, decision_id=None)
    assert not verify_study(session).ok


@POSTGRES_MORE
def test_a_repeat_that_failed_cuts_nobody_alone(new_session: Sessions, storage_url: str) -> None:
    """Its point goes on with the others; tried again it is decided by what all of them have, and nothing is accused."""
    session = new_session("worker", repeated_ladder())
    unlucky = session.history.cells()[0].params

    def fail(params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        if params == unlucky:
            raise ValueError("no luck")
        return ladder_objective(params, seed, running)

    run_all(session, fail)
    assert [cell.params for cell in session.history.failed()] == [unlucky]
    assert verify_study(session).problems == ()
    assert session.ledger.retry_failed() == 1
    later = open_session(storage_url, "later")
    run_all(later, ladder_objective)
    found = verify_study(later)
    assert (found.ok, found.problems) == (True, ())
    later.storage.close()


@pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)
def test_a_larger_grid_meets_the_same_means(new_session: Sessions) -> None:
    """Points that come later are compared with those that are beyond."""
    from small_study import create_study

    session = new_session("worker", repeated_ladder(6))
    run_all(session, ladder_objective)
    later = Session(session.storage, create_study(session.storage, repeated_ladder(9)), "later")
    run_all(later, ladder_objective)
    found = verify_study(later)
    assert (found.ok, found.n_results, found.problems) == (True, 18, ())
