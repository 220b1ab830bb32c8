"""What `trials` prints where points have several cells: those of a point together, beside their mean."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from small_study import (
    BEST_POINT,
    FINGERPRINT,
    GRID,
    ON_SQLITE,
    STUDY,
    finish_everything,
    make_spec,
    value_of,
    value_within,
)

from fmnist_optuna.cli.answers import trials_answer
from fmnist_optuna.cli.live import describe_finished
from fmnist_optuna.cli.trial_tables import print_trials
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.running.following import following_spec
from fmnist_optuna.search.cell import TRAINING_SEED, VALIDATION_FOLD
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.spec.study_names import CONFIRMATION_SUFFIX
from fmnist_optuna.study.attempts import arrange_attempts, list_attempts, list_points, with_point_means
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session

pytestmark = pytest.mark.more

Sessions = Callable[..., Session]
SECOND, THIRD, LAST = ({"hidden_size": h, "dropout_rate": d} for h, d in ((128, 0.0), (64, 0.0), (128, 0.5)))


def grouped(session: Session) -> list[Attempt]:
    """As the table has them."""
    return arrange_attempts(session, list_attempts(session))


@ON_SQLITE
def test_trials_of_a_point_stand_together(new_session: Sessions) -> None:
    """By their seeds, the best mean first; a point of which one diverged has none, and comes last."""
    session = new_session("worker", make_spec(GRID, search={"repeats": 3}))
    gone = {**THIRD, TRAINING_SEED: 2}
    finish_everything(session, lambda params: None if params == gone else value_within(params, TRAINING_SEED))
    found = [(point_of(each.params), each.params[TRAINING_SEED], each.point_mean) for each in grouped(session)]
    means = [(BEST_POINT, 0.75), (SECOND, 2 / 3), (LAST, 0.25), (THIRD, None)]
    assert found == [(point, seed, mean) for point, mean in means for seed in (1, 2, 3)]


@ON_SQLITE
def test_the_table_says_the_mean_of_each_row(new_session: Sessions, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside its own value, in 80 characters; the JSON has it too, in the order of single trials as ever."""
    session = new_session("worker", make_spec(GRID, data={"source": "synthetic", "folds": 3}))
    finish_everything(session, lambda params: value_within(params, VALIDATION_FOLD))
    print_trials(grouped(session), session.record)
    *header, _ = lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = [line.split(" %")[:2] for line in header if "COMPLETE" in line]
    assert [(value.split()[-1], mean.strip()) for value, mean in shown[:4]] == [
        ("62.50", "75.00"), ("75.00", "75.00"), ("87.50", "75.00"), ("50.00", "66.67")
    ]  # fmt: skip
    trials = trials_answer(session.record, with_point_means(list_attempts(session), list_points(session)))["trials"]
    assert isinstance(trials, list)
    values = [(trial["value"], trial["point_mean"]) for trial in trials if isinstance(trial, dict)]
    assert values[:3] == [(1.0, 2 / 3), (0.875, 0.75), (0.75, 0.75)]


@ON_SQLITE
def test_the_report_has_the_rows_of_the_table(new_session: Sessions) -> None:
    """In the same order, each with the mean of its point; without repeats there is no such column."""
    session = new_session("worker", make_spec(GRID, search={"repeats": 3}))
    finish_everything(session, lambda params: value_within(params, TRAINING_SEED))
    page = render_report(read_overview(session), None)
    ((header, *rows),) = [table for table in _tables(page) if "epochs" in table[0]]
    assert header[-4:] == ["val acc", "mean val acc", "epochs", "note"]
    expected = grouped(session)
    assert [row[0] for row in rows] == [str(attempt.number) for attempt in expected]
    assert [row[-3] for row in rows] == [session.record.metric.format(attempt.point_mean) for attempt in expected]
    single = new_session("worker", make_spec(GRID, name="single"))
    finish_everything(single)
    assert "mean val acc" not in render_report(read_overview(single), None)


def _tables(page: str) -> list[list[list[str]]]:
    """The cells' text of each row of each table."""
    return [
        [
            [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table>(.*?)</table>", page, re.DOTALL)
    ]


@ON_SQLITE
def test_seeds_of_a_confirmation_stand_together(new_session: Sessions) -> None:
    """Its cells are points times seeds, though its study file knows of no repeats."""
    session = new_session("worker", make_spec(GRID))
    finish_everything(session)
    cells = [{**point, TRAINING_SEED: seed} for seed in (1, 2) for point in (LAST, BEST_POINT)]
    spec = following_spec(session.record.spec, session.record.name + CONFIRMATION_SUFFIX, cells)
    record, _ = create_or_join(session.storage, spec, FINGERPRINT, cells, parent=session.record)
    confirming = Session(session.storage, record, "confirming")
    assert confirming.history.counts().total == 4
    finish_everything(confirming, lambda params: value_within(params, TRAINING_SEED))
    found = [(point_of(each.params), each.params[TRAINING_SEED], each.point_mean) for each in grouped(confirming)]
    assert found == [(BEST_POINT, 1, 0.6875), (BEST_POINT, 2, 0.6875), (LAST, 1, 0.25), (LAST, 2, 0.25)]


@ON_SQLITE
def test_lines_of_one_point_are_told_apart(new_session: Sessions) -> None:
    """Seed and fold come first where a line of `run` has no room for all parameters."""
    grid = {**GRID, **{f"a_parameter_with_a_long_name_{n}": [1] for n in range(4)}}
    session = new_session("worker", make_spec(grid, data={"source": "synthetic", "folds": 3}))
    finish_everything(session, lambda params: value_within(params, VALIDATION_FOLD))
    lines = [
        describe_finished(cell, session.record)
        for cell in session.history.repeats_of(session.history.cells()[0].cell_id)
    ]
    assert [line.partition(" (")[2].partition(",")[0] for line in lines] == [f"validation_fold {n}" for n in (1, 2, 3)]
    assert all(line.endswith(" more)") for line in lines)


@ON_SQLITE
@pytest.mark.parametrize(
    ("tables", "parameter", "expected"),
    [
        ({}, None, "best of 4 complete cells, 0 pruned"),
        ({"search": {"repeats": 3}}, TRAINING_SEED, "first repeat of the best of 4 points, 0 pruned"),
        ({"data": {"source": "synthetic", "folds": 3}}, VALIDATION_FOLD, "best of 4 points, 0 pruned"),
    ],
)
def test_a_winner_is_one_of_so_many_points(
    new_session: Sessions,
    capsys: pytest.CaptureFixture[str],
    tables: Mapping[str, Mapping[str, Any]],
    parameter: str | None,
    expected: str,
) -> None:
    """The first repeat of the best mean need not be the best of all cells, and a mean is of no cell."""
    session = new_session("worker", make_spec(GRID, STUDY, **tables))
    finish_everything(session, value_of if parameter is None else lambda params: value_within(params, parameter))
    print_winner(session.record, find_winner(session), session.history.counts())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "validation accuracy" in line]
    assert line.endswith(f"   {expected}")


@ON_SQLITE
def test_trials_of_single_cells_stay_as_they_are(new_session: Sessions, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the training seed is one more parameter of the grid: no mean decides there, and none is shown."""
    session = new_session("worker", make_spec({**GRID, TRAINING_SEED: [1, 2]}))
    finish_everything(session, lambda params: value_within(params, TRAINING_SEED))
    attempts = list_attempts(session)
    assert grouped(session) == attempts
    print_trials(attempts, session.record)
    assert "mean" not in capsys.readouterr().out
