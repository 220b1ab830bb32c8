"""Studies that compare by another metric, without Keras: all that ranks, cuts and tells follows it."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from rung_study import run_all, run_next
from small_study import LADDER, ON_SQLITE, POSTGRES_SLOW, make_spec

from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.cli.answers import details_answer, print_json, status_answer, trials_answer, winner_answer
from fmnist_optuna.cli.live import StudyView, describe_finished
from fmnist_optuna.cli.study_tables import describe_decided, print_studies
from fmnist_optuna.cli.trial_details import read_details
from fmnist_optuna.cli.trial_tables import print_details, print_trials
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.errors import JoinRefusedError
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.notes import describe_study
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.attempts import flat_table, list_attempts
from fmnist_optuna.study.cuts import explain_cut, verify_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.running_trial import RunningTrial

Sessions = Callable[..., Session]
LOSS, F1 = {"metric": "val_loss"}, {"metric": "val_f1"}
N_EPOCHS = 8


def spec_of(objective: Mapping[str, str], pruner: Mapping[str, Any] | None = None, n_cells: int = 9) -> StudySpec:
    tables: dict[str, Any] = {"objective": objective, "pruner": pruner or {"name": "none"}}
    tables |= {"data": {"source": "synthetic", "n_validation": 2_000}, "training": {"max_epochs": N_EPOCHS}}
    return make_spec({"hidden_size": list(range(1, n_cells + 1))}, "other", **tables)


def epoch_at(number: int, params: Params) -> Epoch:
    """The larger the cell, the larger its loss and its accuracy; its F1 is best in the middle."""
    size = float(params["hidden_size"])
    left = 1 / (1 + number)
    f1 = 1 - abs(size - 5) / 20 - left / 10
    return Epoch(number, 1.0, 0.5, size / 10 + left / 5, size / 20 - left / 100, 0.25, objective=f1)


def train(params: Params, seed: int, running: RunningTrial) -> Outcome | None:
    """As the Keras objective does: an epoch has the metric of its own only where the study asks for one."""
    metric, end = running.metric, running.pause_at or N_EPOCHS
    epochs = [epoch_at(number, params) for number in range(end)]
    for epoch in epochs[running.n_recorded :]:
        told = Epoch(**{**vars(epoch), "objective": epoch.objective if metric.is_compiled else None})
        if not running.report(told):
            return Outcome(State.PRUNED, reason="pruned") if running.ending == "pruned" else None
    if running.pause_at is not None:
        return Outcome(State.PARKED)
    best = min(epochs, key=lambda epoch: metric.rank(metric.value_of(epoch)))
    return Outcome(State.COMPLETE, metric.value_of(best), val_accuracy=best.val_accuracy)


@POSTGRES_SLOW
@pytest.mark.parametrize(("objective", "direction", "best"), [(LOSS, "MINIMIZE", 1), (F1, "MAXIMIZE", 5)])
def test_the_best_is_the_best_by_the_metric(
    new_session: Sessions, objective: Mapping[str, str], direction: str, best: int
) -> None:
    """The winner, the leaders, Optuna's best trial and the leaderboard agree; the accuracy would choose another."""
    session = new_session("worker", spec=spec_of(objective))
    run_all(session, train)
    metric, study = session.record.metric, session.optuna_study
    assert (study.direction.name, study.best_trial.params) == (direction, {"hidden_size": best})
    winner, cells = find_winner(session), session.history.leaders(9)
    assert winner.params == {"hidden_size": best}
    assert winner.val_accuracy == pytest.approx(best / 20 - 0.01 / N_EPOCHS)
    values = [cell.value for cell in cells if cell.value is not None]
    assert values == sorted(values, key=metric.rank)
    assert session.history.best_value() == values[0] == winner.value == study.best_value
    assert [attempt.value for attempt in list_attempts(session)] == values
    assert max(cell.val_accuracy or 0.0 for cell in cells) > winner.val_accuracy
    assert verify_study(session).ok


@ON_SQLITE
@pytest.mark.parametrize(("objective", "pruned"), [(LOSS, {4, 6, 7, 9}), (F1, {1, 9})])
def test_the_median_pruner_follows_it(new_session: Sessions, objective: Mapping[str, str], pruned: set[int]) -> None:
    """It cuts what is on the wrong side of the median; the accuracy of the last epoch stands beside."""
    session = new_session("worker", spec=spec_of(objective, {"name": "median", "n_startup_trials": 4}))
    run_all(session, train)
    cells = [cell for cell in session.history.cells() if cell.state is State.PRUNED]
    assert {int(cell.params["hidden_size"]) for cell in cells} == pruned
    for cell in cells:
        epoch = epoch_at(cell.n_epochs - 1, cell.params)
        assert (cell.value, cell.val_accuracy) == (session.record.metric.value_of(epoch), epoch.val_accuracy)


@POSTGRES_SLOW
@pytest.mark.parametrize(("objective", "best"), [(LOSS, {1, 2, 3}), (F1, {4, 5, 6})])
def test_the_ladder_follows_it(new_session: Sessions, objective: Mapping[str, str], best: set[int]) -> None:
    """The best three go to the end, whatever is far behind is cut, and each cut is what the rule gives."""
    session = new_session("worker", spec=spec_of(objective, {**LADDER, "keep": 3}))
    run_all(session, train)
    metric = session.record.metric
    complete = {int(cell.params["hidden_size"]) for cell in session.history.cells() if cell.state is State.COMPLETE}
    assert best <= complete < set(range(1, 10))
    assert verify_study(session).problems == ()
    cut = next(cell for cell in session.history.cells() if cell.cut_at is not None)
    epoch = epoch_at((cut.cut_at or 0) - 1, cut.params)
    told = explain_cut(session, cut.trial_id or 0)
    assert told is not None
    assert told.startswith(f"cut at epoch {cut.cut_at}: {metric.value_of(epoch):.3f} and gaining")
    assert (cut.value, cut.val_accuracy) == (metric.value_of(epoch), epoch.val_accuracy)
    (first, *_) = session.rungs.decided()
    leader = metric.best_of(metric.value_of(epoch_at(1, {"hidden_size": size})) for size in range(1, 10))
    assert leader is not None
    assert first.leader_value == metric.score(leader)
    assert describe_decided(first, metric).endswith(f"the best has {leader:.3f}")


@ON_SQLITE
def test_a_metric_that_is_no_number_comes_last(new_session: Sessions) -> None:
    """It is NULL in the table, and its cell is cut at the rung."""
    session = new_session("worker", spec=spec_of(F1, {**LADDER, "keep": 0}, n_cells=2))

    def spoilt(params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        if params["hidden_size"] == 1:
            return train(params, seed, running)
        for number in range(running.n_recorded, running.pause_at or N_EPOCHS):
            running.report(Epoch(number, 1.0, 0.5, 1.0, 0.9, 0.1, objective=math.nan))
        return Outcome(State.PARKED)

    run_all(session, spoilt)
    cells = {int(cell.params["hidden_size"]): cell for cell in session.history.cells()}
    assert (cells[1].state, cells[2].state, cells[2].cut_at) == (State.COMPLETE, State.PRUNED, 2)
    assert explain_cut(session, cells[2].trial_id or 0) == "cut at epoch 2: its val_f1 is not a finite number"
    assert session.history.curve(cells[2].trial_id or 0)[0].objective is None


@ON_SQLITE
def test_a_value_that_is_no_number_fails_its_trial(new_session: Sessions) -> None:
    """It names the metric."""
    session = new_session("worker", spec=spec_of(LOSS, n_cells=1))
    run_next(session, lambda params, seed, running: Outcome(State.COMPLETE, math.inf, val_accuracy=0.5))
    (attempt,) = list_attempts(session)
    assert "the val_loss of a finished training must be finite, but is inf" in (attempt.attributes.error or "")


@ON_SQLITE
def test_a_join_with_another_metric_is_refused(new_session: Sessions) -> None:
    """It says both; the direction of a known one may be given or not."""
    session = new_session("worker", spec=spec_of(LOSS))
    new_session("second", spec=spec_of({**LOSS, "direction": "minimize"}))
    with pytest.raises(JoinRefusedError) as error:
        new_session("third", spec=spec_of({"metric": "val_accuracy"}))
    assert 'objective.metric: the study has "val_loss", this run "val_accuracy"' in str(error.value)
    assert session.record.metric.name == "val_loss"


@ON_SQLITE
def test_everything_tells_the_metric(new_session: Sessions, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables, lines, answers, the note and the report have the value under its name, and the accuracy beside it."""
    session = new_session("worker", spec=spec_of(LOSS, {**LADDER, "keep": 3}))
    run_all(session, train)
    record, attempts, winner = session.record, list_attempts(session), find_winner(session)
    value, accuracy = f"{winner.value:.4f}", f"{100 * winner.val_accuracy:.2f} %"
    overview = read_overview(session)
    best = session.history.best()
    assert best is not None
    print_trials(attempts, record)
    print_details(read_details(session, winner.trial))
    print_winner(record, winner, session.history.counts())
    print_studies([(record, session.history.counts(), session.history.best_value())])
    shown = capsys.readouterr().out
    for text in ("val loss", value, accuracy, f"validation loss      {value}", f"val loss {value}"):
        assert text in shown
    assert f"val loss {value}, val accuracy {accuracy}" in describe_finished(best, record)
    assert f"val_loss {value} (val acc {accuracy})" in str(StudyView(session).draw().renderables[-1])
    assert f"val loss {value}, val accuracy {accuracy}" in describe_study(record, overview.counts, None, winner)
    page = render_report(overview, None)
    assert f"<b>{value}</b><span>validation loss" in page


@ON_SQLITE
def test_answers_have_the_metric(new_session: Sessions, capsys: pytest.CaptureFixture[str]) -> None:
    """The winner and the best so far as an object, each trial and each row of a table in columns."""
    session = new_session("worker", spec=spec_of(LOSS))
    run_all(session, train)
    record, attempts, winner = session.record, list_attempts(session), find_winner(session)
    answers = {
        "winner": winner_answer(record, winner),
        "status": status_answer(session),
        "trials": trials_answer(record, attempts),
        "details": details_answer(read_details(session, winner.trial)),
    }
    print_json({**answers})
    told = json.loads(capsys.readouterr().out)
    objective = {"metric": "val_loss", "direction": "minimize", "value": winner.value}
    assert told["winner"]["objective"] == told["status"]["best"]["objective"] == objective
    columns, rows = flat_table(attempts, record)
    for row in (told["trials"]["trials"][0], told["details"], rows[0]):
        assert (row["metric"], row["value"]) == ("val_loss", winner.value)
        assert row["val_accuracy"] == winner.val_accuracy
    assert {"metric", "value", "val_accuracy"} <= set(columns)


@ON_SQLITE
def test_a_curve_names_a_metric_of_the_models_own(new_session: Sessions) -> None:
    """In JSON and in the table; a study of the accuracy has no such key."""
    session = new_session("worker", spec=spec_of(F1, n_cells=1))
    run_all(session, train)
    curve = details_answer(read_details(session, 0))["curve"]
    assert isinstance(curve, list)
    assert curve[0]["val_f1"] == epoch_at(0, {"hidden_size": 1}).objective
    assert "objective" not in curve[0]
