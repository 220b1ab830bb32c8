"""Trials that other programs add to a study: reported, never touched, counted for nothing, no harm to any answer."""

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from small_study import (
    N_CELLS,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    cut_cells,
    expected_cuts,
    finish_everything,
    finish_trial,
    ladder_objective,
    ladder_spec,
    make_spec,
)

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.cli.answers import print_json, status_answer, trial_answer, trials_answer, verification_answer
from fmnist_optuna.cli.study_tables import print_verification
from fmnist_optuna.cli.trial_tables import print_trials
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.study.attempts import list_attempts
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work.loop import LeaveRequest, work

ODD: dict[str, Any] = {"other": float("inf"), "kind": None}
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "other": CategoricalDistribution((math.inf, 1.0)),
    "kind": CategoricalDistribution((None, "a")),
}
GARBAGE = {"attempt": "x", "worker": {"a": 1}, "seed": [1], "reason": 7, "best_epoch": "no", "environment": "old"}


def add_foreign(session: Session) -> int:
    """A trial of each state, with other parameters, better values and attributes that ours have with other types."""
    study = session.optuna_study
    study.enqueue_trial({"hidden_size": 64, "dropout_rate": 0.5})
    study.enqueue_trial({"anything": [1, 2]})
    for state, value in (
        (TrialState.COMPLETE, 0.999), (TrialState.COMPLETE, math.inf), (TrialState.COMPLETE, -math.inf),
        (TrialState.PRUNED, 0.99), (TrialState.RUNNING, None), (TrialState.FAIL, None),
    ):  # fmt: skip
        trial = optuna.create_trial(
            state=state, value=value, params=ODD, distributions=DISTRIBUTIONS, user_attrs=GARBAGE,
            intermediate_values={0: 2.0, 1: math.nan},
        )  # fmt: skip
        session.optuna_storage.create_new_trial(session.record.study_id, template_trial=trial)
    session.optuna_storage.create_new_trial(session.record.study_id)
    return 9


def test_foreign_trials_are_reported_and_count_for_nothing(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    """In `verify`, `status`, `trials` and the report, in words and as JSON; the winner is one of ours."""
    finish_everything(session)
    before = list_attempts(session)
    n_foreign = add_foreign(session)
    session.recovery.sweep()
    found = verify(session.storage, session.optuna_storage, session.record.study_id)
    assert (found.ok, found.n_results, found.n_surplus, found.n_foreign) == (True, N_CELLS, 0, n_foreign)
    rows = list_attempts(session)
    assert rows[:N_CELLS] == before
    assert [row.is_foreign for row in rows] == [False] * N_CELLS + [True] * n_foreign
    for answer in (trials_answer(session.record, rows), status_answer(session), verification_answer(found)):
        print_json(answer)
    assert (status_answer(session)["foreign_trials"], verification_answer(found)["foreign_trials"]) == (n_foreign,) * 2
    assert {trial_answer(row)["foreign"] for row in rows[N_CELLS:]} == {True}
    print_trials(rows, session.record)
    print_verification("small", found)
    assert f"{n_foreign} trials of other programs" in capsys.readouterr().out
    assert find_winner(session).trial == before[0].number
    assert session.optuna_study.best_trial.number != before[0].number  # stock Optuna prefers one of the others
    overview = read_overview(session)
    assert (len(overview.attempts), overview.n_foreign) == (N_CELLS, n_foreign)
    assert f"{n_foreign} trials of other programs" in render_report(overview, None)
    states = [trial.state.name for trial in session.optuna_storage.get_all_trials(session.record.study_id)[N_CELLS:]]
    assert states == ["WAITING"] * 2 + ["COMPLETE"] * 3 + ["PRUNED", "RUNNING", "FAIL", "RUNNING"]


MEDIAN = {"name": "median", "n_startup_trials": 0, "n_warmup_steps": 0, "interval_steps": 1, "n_min_trials": 1}


def add_better_trials(session: Session) -> None:
    """Five complete trials of another program, better than any of the study's own."""
    for _ in range(5):
        trial = optuna.create_trial(
            state=TrialState.COMPLETE, value=0.99, params={"other": 0.5},
            distributions={"other": FloatDistribution(0, 1)}, intermediate_values={0: 0.99},
        )  # fmt: skip
        session.optuna_storage.create_new_trial(session.record.study_id, template_trial=trial)


@ON_SQLITE
def test_foreign_trials_cut_nothing_at_a_rung(new_session: Any) -> None:
    """What is decided is that of a study without them."""
    session = new_session(spec=ladder_spec(6))
    add_better_trials(session)
    work(session, ladder_objective, LeaveRequest(), session.record.generation)
    assert cut_cells(session) == expected_cuts(session.record.spec)


@ON_SQLITE
def test_foreign_trials_prune_nothing(new_session: Any) -> None:
    """However good theirs are, the study's own are compared with the study's own."""
    session = new_session(spec=make_spec(pruner=MEDIAN))
    add_better_trials(session)
    own = optuna.Trial(session.optuna_study, begin_trial(session, claim_cell(session)))
    own.report(0.5, 0)
    assert not own.should_prune()
    finish_trial(session, trial_id_of(own), 0.5)
    second = optuna.Trial(session.optuna_study, begin_trial(session, claim_cell(session)))
    second.report(0.4, 0)
    assert second.should_prune()
