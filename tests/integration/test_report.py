"""The page of a study made up without Keras."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna_dashboard
import pytest
from optuna.trial import TrialState
from rung_study import run_next
from small_study import (
    GRID,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    finish_cell,
    ladder_objective,
    ladder_spec,
    make_spec,
)

from fmnist_optuna.ledger.openings import Scores
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.timeline import draw_timeline
from fmnist_optuna.pages.notes import describe_study, describe_winner
from fmnist_optuna.pages.overview import Overview, read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.results.all_data import AllData
from fmnist_optuna.results.confirmation import Candidate, Confirmation
from fmnist_optuna.results.seeds import Sample
from fmnist_optuna.running import rung_note, training
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.search.metric import VAL_ACCURACY
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import format_interval
from fmnist_optuna.work.attempt import decide_rung, run_attempt


def finish_with_opening(
    session: Session, val_accuracy: float, wrong_class: int, *, has_flips: bool = False, has_loss: bool = False
) -> str:
    """A COMPLETE cell whose weights take all Trousers (1) for another class; returns the weights' hash."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    sha256 = f"{wrong_class:064x}"
    session.optuna_storage.set_trial_user_attr(trial_id, "weights_sha256", sha256)
    session.optuna_storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [val_accuracy])
    finish_cell(session, claim, trial_id)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 10)
    answers = np.eye(10, dtype=np.float32)[np.where(labels == 1, wrong_class, labels)]
    mirrored = 2 * np.eye(10, dtype=np.float32)[np.roll(labels, -4)] if has_flips else None  # the means are wrong of 40
    scores = Scores(answers, labels, mirrored, *([0.5, 0.25] if has_loss else []))
    session.openings.open(trial_id, sha256, "winner", lambda: scores)
    return sha256


def finish_with_flips(session: Session, **options: bool) -> Overview:
    """A study of one complete cell, opened with the answers to mirror images too, and confirmed as such."""
    finish_with_opening(session, 0.5, 3, has_flips=True, **options)
    overview = read_overview(session)
    assert overview.winner is not None
    runs, metric = (overview.winner.attempt,) * 2, session.record.metric
    candidate = Candidate(overview.winner.attempt, Sample((0.5, 0.75), metric), 1_000, 0, runs)
    alone, flipped = Sample((0.5, 0.7), VAL_ACCURACY), Sample((0.6, 0.7), VAL_ACCURACY)
    losses = {
        "test_objective": Sample((0.1, 0.2), metric), "flipped_objective": Sample((0.1, 0.16), metric),
    }  # fmt: skip
    more: dict[str, Any] = {} if metric.is_accuracy else losses
    confirmation = Confirmation((candidate,), candidate, test=alone, flipped=flipped, metric=metric, **more)
    winner = replace(overview.winner, confirmation=confirmation)
    return replace(overview, winner=winner, confirmation=confirmation)


def read_rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, row by row."""
    table = page.split(f"<h2>{heading}</h2>")[1].split("</table>")[0]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]


def read_tiles(page: str) -> dict[str, str]:
    """What each tile says of its figure."""
    return dict(re.findall(r'<div class="tile"><b>(.*?)</b><span>(.*?)</span></div>', page))


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
def test_each_score_is_there_without_flips_and_with_them(session: Session) -> None:
    """In tiles, in a table, of each opening and in the note; before a confirmation too."""
    overview = finish_with_flips(session)
    page = render_report(overview, None)
    tiles = read_tiles(page)
    assert tiles["90.00 %"].endswith(", 100 images, without mirror images; averaged with them <strong>60.00 %</strong>")
    assert tiles["60.00 %"].endswith(", without mirror images; averaged with them <strong>65.00 %</strong>")
    intervals = ["0.00 to 100.00", "1.47 to 100.00"]
    assert read_rows(page, "After the choice")[1:] == [
        ["confirmation", "2", "60.00 %", intervals[0]],
        ["confirmation, with flips", "2", "65.00 %", intervals[1]],
        ["trial 0", "1", "90.00 %", read_rows(page, "After the choice")[3][3]],
        ["trial 0, with flips", "1", "60.00 %", ""],
    ]
    head, opened = read_rows(page, "Openings of the test set")
    assert (head[2:4], opened[2:4]) == (["test accuracy", "with flips"], ["90.00 %", "60.00 %"])
    assert overview.winner is not None
    assert overview.winner.evaluation is not None
    interval = format_interval(overview.winner.evaluation.interval)
    both = f"test accuracy 90.00 % (95 % interval {interval}) without mirror images, 60.00 % with answers averaged "
    assert both in describe_study(overview.record, overview.counts, None, overview.winner)
    assert f"\n\n{both}" in describe_winner(overview, overview.winner)
    unconfirmed = replace(overview, confirmation=None, winner=replace(overview.winner, confirmation=None))
    names = [row[0] for row in read_rows(render_report(unconfirmed, None), "After the choice")]
    assert names == ["what", "trial 0", "trial 0, with flips"]


@ON_SQLITE
def test_another_metric_is_there_without_flips_and_with_them(new_session: Callable[..., Session]) -> None:
    """As the accuracy is; where it is not measured with flips, it says of which answers it is."""
    session = new_session("worker", spec=make_spec(GRID, objective={"metric": "val_loss"}))
    overview = finish_with_flips(session, has_loss=True)
    page = render_report(overview, None)
    tiles = read_tiles(page)
    assert tiles["0.5000"].endswith("test loss, without mirror images; averaged with them <strong>0.2500</strong>")
    assert tiles["0.1500"].endswith(", without mirror images; averaged with them <strong>0.1300</strong>")
    assert read_rows(page, "Openings of the test set")[1][2:6] == ["0.5000", "0.2500", "90.00 %", "60.00 %"]
    assert overview.winner is not None
    note = "test loss 0.5000 without mirror images, 0.2500 with answers averaged with those to mirror images"
    assert note in describe_winner(overview, overview.winner)
    assert overview.winner.opening is not None
    scores = replace(overview.winner.opening.scores, flip_objective=None)
    winner = replace(overview.winner, opening=replace(overview.winner.opening, scores=scores))
    overview = replace(overview, winner=winner)
    assert read_tiles(render_report(overview, None))["0.5000"] == "test loss, without mirror images"
    assert "\n\ntest loss 0.5000 without mirror images\n\n" in describe_winner(overview, winner)


@ON_SQLITE
def test_another_metric_on_all_data_has_a_tile(new_session: Callable[..., Session]) -> None:
    """Beside that of the accuracy, as `best` and the card have both."""
    session = new_session("worker", spec=make_spec(GRID, objective={"metric": "val_loss"}))
    overview, metric = finish_with_flips(session, has_loss=True), session.record.metric
    assert overview.winner is not None
    losses, flipped = Sample((0.3, 0.5), metric), Sample((0.2, 0.4), metric)
    accuracies = {"test": Sample((0.5, 0.6), VAL_ACCURACY), "flipped": Sample((0.6, 0.7), VAL_ACCURACY)}
    objectives = {"test_objective": losses, "flipped_objective": flipped}
    runs = (overview.winner.attempt,) * 2
    all_data = AllData(study="small/all-data", n_epochs=5, runs=runs, metric=metric, **accuracies, **objectives)
    tiles = read_tiles(render_report(replace(overview, winner=replace(overview.winner, all_data=all_data)), None))
    scored = f"test loss, mean of 2 seeds trained on all data, 95 % interval {metric.format_interval(losses.interval)}"
    assert tiles["0.4000"] == f"{scored}, without mirror images; averaged with them <strong>0.3000</strong>"
    assert tiles["55.00 %"].startswith("test accuracy, mean of 2 seeds trained on all data")


@ON_SQLITE
def test_nothing_is_said_of_flips_where_none_were_asked_for(session: Session) -> None:
    """A study without them has one figure of each score, and no table before something follows."""
    finish_with_opening(session, 0.5, 3)
    overview = read_overview(session)
    assert overview.winner is not None
    page = render_report(overview, None)
    note = describe_study(overview.record, overview.counts, None, overview.winner)
    assert ("mirror images" in page, "with flips" in page, "After the choice" in page) == (False, False, False)
    assert "mirror" not in note + describe_winner(overview, overview.winner)


@ON_SQLITE
def test_one_of_a_kind_is_said_in_the_singular(new_session: Callable[..., Session]) -> None:
    """Of a study of one cell, in the page and in the notes."""
    session = new_session("worker", spec=make_spec({"hidden_size": [64], "dropout_rate": [0.5]}))
    finish_with_opening(session, 0.5, 3)
    overview = read_overview(session)
    assert overview.winner is not None
    page = render_report(replace(overview, n_foreign=1), None)
    shown = page.partition("<script>")[0]
    for text in ("1 of 1 cell done:", "<b>1</b><span>cell, 1 attempt<", ">1 attempt, the best first<"):
        assert text in shown
    assert "1 trial of another program is in this study too; it counts for nothing and is left out." in shown
    assert not re.search(r"\b1 (cells|attempts|trials)\b", shown)
    note = describe_study(overview.record, overview.counts, overview.climb, overview.winner)
    assert "\n1 of 1 cell done: 1 complete, 0 pruned.\n" in note
    assert describe_winner(overview, overview.winner).startswith("**Named winner** when 1 of 1 cell was done.\n")


@ON_SQLITE
def test_values_are_no_markdown_of_the_note(new_session: Callable[..., Session]) -> None:
    """A value with a pipe stays in its row of the table, and one with HTML is shown as it is."""
    session = new_session("worker", spec=make_spec({"kind": ["a|b", "<img src=x>"]}, model={"architecture": "my:net"}))
    finish_with_opening(session, 0.5, 3)
    overview = read_overview(session)
    note = describe_study(overview.record, overview.counts, overview.climb, overview.winner)
    assert r"| kind | a\|b, \<img src=x\> |" in note
    assert re.search(r"\(kind (a\\\|b|\\<img src=x\\>)\), val accuracy 50\.00 %", note)


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
