"""The page of a study made up without Keras."""

import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna_dashboard
import pytest
from optuna.trial import TrialState
from rung_study import run_next
from small_study import ON_SQLITE, begin_trial, claim_cell, finish_cell, ladder_objective, ladder_spec

from fmnist_optuna.ledger.openings import Scores
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.timeline import draw_timeline
from fmnist_optuna.pages.notes import describe_study
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.running import rung_note, training
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.attempt import decide_rung, run_attempt


def finish_with_opening(session: Session, val_accuracy: float, wrong_class: int) -> str:
    """A COMPLETE cell whose weights take all Trousers (1) for another class; returns the weights' hash."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    sha256 = f"{wrong_class:064x}"
    session.optuna_storage.set_trial_user_attr(trial_id, "weights_sha256", sha256)
    session.optuna_storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [val_accuracy])
    finish_cell(session, claim, trial_id)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 10)
    answers = np.where(labels == 1, wrong_class, labels)
    session.openings.open(trial_id, sha256, "winner", lambda: Scores(np.eye(10, dtype=np.float32)[answers], labels))
    return sha256


@ON_SQLITE
def test_equal_accuracies_keep_their_own_confusion_matrix(session: Session) -> None:
    """The winner's opening is that of its weights, whichever other cell scored the same before it."""
    for val_accuracy, wrong_class in ((0.5, 7), (0.6, 3)):
        sha256 = finish_with_opening(session, val_accuracy, wrong_class)
        overview = read_overview(session)
        assert overview.winner is not None
        assert overview.winner.opening is not None
        assert overview.winner.opening.weights_sha256 == sha256
        (confusion,) = re.findall(r'<script[^>]*id="confusion-data"[^>]*>(.*?)</script>', render_report(overview, None))
        assert json.loads(confusion)["data"][0]["text"][1][wrong_class] == "100"
    assert len({opening.accuracy for opening in overview.openings}) == 1


@ON_SQLITE
def test_rungs_are_in_the_note_and_in_the_figures(new_session: Callable[..., Session]) -> None:
    """After the first decision: a row of the note, parked and cut trials by their colours, a line in the timeline."""
    session = new_session("worker", spec=ladder_spec(12))
    for _ in range(14):  # all come to epoch 2, and two go on from there
        run_attempt(session, claim_cell(session), ladder_objective, lambda: False, session.record.generation)
    overview = read_overview(session)
    assert overview.climb is not None
    first, *_ = overview.climb.steps
    note = describe_study(overview.record, overview.counts, overview.climb, overview.winner)
    assert f"| epoch 2 | 12 | 0 | {first.n_cut} | {first.n_went_on} |" in note
    standings = [attempt.standing for attempt in overview.attempts]
    assert standings.count(State.PARKED) == len(overview.attempts) - standings.count(State.PRUNED) > 0
    timeline = draw_timeline(overview)
    assert timeline is not None
    assert {bars.name for bars in timeline.data} == set(standings)
    assert [mark.text for mark in timeline.layout.annotations] == ["2"]


@ON_SQLITE
def test_each_leg_is_noted_and_drawn(new_session: Callable[..., Session]) -> None:
    """A trial goes on from each rung that it passed, by a worker that is named; one that is cut does not."""
    first, second = (new_session(name, spec=ladder_spec(12)) for name in ("first", "second"))
    while not first.history.counts().is_over:
        for session in (first, second):
            if claim := session.ledger.claim(session.name, session.record.generation):
                run_attempt(session, claim, ladder_objective, lambda: False, session.record.generation)
    overview = read_overview(first)
    assert first.ladder is not None
    for attempt in overview.attempts:
        passed = [rung for rung in first.ladder.rungs() if rung < len(attempt.epochs)]
        legs = attempt.attributes.legs or ()
        assert [leg.n_epochs for leg in legs] == passed
        begins = [attempt.began, *(leg.began for leg in legs)]
        assert begins == sorted(begins)
    everybodys = {leg.worker for attempt in overview.attempts for leg in attempt.attributes.legs or ()}
    assert everybodys == {"first", "second"}
    timeline = draw_timeline(overview)
    assert timeline is not None
    n_legs = sum(1 + len(attempt.attributes.legs or ()) for attempt in overview.attempts)
    rows = [row for bars in timeline.data for row in bars.y]
    assert sum(row.startswith("worker") for row in rows) == sum(row.startswith("trial") for row in rows) == n_legs


@ON_SQLITE
def test_the_note_keeps_up_with_the_rungs(new_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run writes it anew after each decision, and not in between."""
    session = new_session("supervisor", spec=ladder_spec(6))
    notes: list[tuple[int, str]] = []

    def tick() -> bool:
        notes.append((len(session.rungs.decided()), optuna_dashboard.get_note(session.optuna_study)))
        return run_next(session) is not None or decide_rung(session)

    monkeypatch.setattr(rung_note, "NOTE_SECONDS", 0.0)
    monkeypatch.setattr(training, "TICK_SECONDS", 0.0)
    supervisor: Any = SimpleNamespace(session=session, tick=tick, stop=lambda: None, wait=lambda is_impatient: None)
    training._supervise(supervisor, Observer(), [], None)
    assert session.history.counts().is_over
    told = dict(notes)  # the last note of those that were there after as many decisions
    assert (told[0], len(told)) == ("", len(session.rungs.decided()) + 1)
    assert "| epoch 2 | 6 | 0 |" in told[1]
    assert len(set(told.values())) == len({note for _, note in notes}) == len(told)
