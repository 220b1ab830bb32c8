"""The study that confirms another: its cells, and what is read from it, on both databases."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from confirmed_study import LARGE, SMALL, confirm, finish
from small_study import (
    FINGERPRINT,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    finish_cell,
    finish_everything,
    finish_trial,
    make_spec,
    value_of,
)

from fmnist_optuna import confirming as confirming_room
from fmnist_optuna.cli.winner_tables import print_confirmation, print_winner
from fmnist_optuna.confirming import ConfirmedStudy, _fresh_points, confirm_study
from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.export.choice import describe_choice
from fmnist_optuna.export.source import choose_source
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.results import seeds, winner
from fmnist_optuna.results.confirmation import Confirmation, find_confirmation
from fmnist_optuna.results.evaluation import Evaluation, hash_together
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.running.catching import no_signals
from fmnist_optuna.running.following import following_spec
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.search.cell import TRAINING_SEED
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.records import CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following
from fmnist_optuna.study.verification import verify

Sessions = Callable[..., Session]


def _print(session: Session, confirmation: Confirmation) -> None:
    chosen = find_winner(session)
    print_confirmation(session.record, ConfirmedStudy(chosen, confirmation, chosen))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told, and for what weights are opened, in their order; every answer is right without a model."""
    lines: list[str] = []

    def open_weights(of: Session, attempts: Sequence[Attempt], data_dir: Path | None, purpose: str) -> Opening:
        lines.append(purpose)
        scores = Scores(np.eye(10, dtype=np.float32), np.arange(10))
        return of.openings.open(attempts[0].trial_id, hash_together(attempts), purpose, lambda: scores)

    for module in (seeds, winner):
        monkeypatch.setattr(module, "open_weights", open_weights)
    return lines


def test_the_cells_are_the_points_times_the_seeds(session: Session) -> None:
    """And no other point of the grid around them; a second call adds what is new."""
    finish_everything(session)
    confirming = confirm(session, [LARGE, SMALL], 2)
    assert confirming.record.name == f"{session.record.name}/confirm"
    assert confirming.record.spec.pruner.name == "none"
    assert confirming.history.counts().total == 4
    assert confirm(session, [LARGE, SMALL, {**SMALL, "dropout_rate": 0.0}], 3).history.counts().total == 9


def test_every_seed_has_a_result_of_its_own(session: Session) -> None:
    """Both studies verify, and the smaller cell is chosen within one standard error."""
    finish_everything(session)
    confirming = confirm(session, [LARGE, SMALL], 3)
    finish(confirming, {128: (0.90, 0.92, 0.91), 64: (0.89, 0.92, 0.91)})
    assert verify(confirming.storage, confirming.optuna_storage, confirming.record.study_id).ok
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok
    confirmation = find_confirmation(session)
    assert confirmation is not None
    assert [c.val.values for c in confirmation.candidates] == [(0.90, 0.92, 0.91), (0.89, 0.92, 0.91)]
    assert [c.original.val_accuracy for c in confirmation.candidates] == [value_of(LARGE), value_of(SMALL)]
    assert confirmation.chosen.original.params == SMALL  # half as large, and within one standard error
    assert [run.params[TRAINING_SEED] for run in confirmation.chosen.runs] == [1, 2, 3]
    assert confirmation.test is None  # nothing was opened


@ON_SQLITE
def test_seeds_of_the_grid_are_not_fresh(new_session: Sessions) -> None:
    """What was searched is no candidate twice, none of its seeds confirms it, and seeds that it gets later do not."""
    session = new_session("worker", spec=make_spec({"hidden_size": [64, 128], TRAINING_SEED: [1, 3]}))
    finish_everything(session)
    leaders = session.history.leaders_of_points()[:3]
    assert sorted(int(cell.params["hidden_size"]) for cell in leaders) == [64, 128]
    points = _fresh_points(session, leaders, 3)
    assert [point[TRAINING_SEED] for point in points] == [2, 2, 4, 4, 5, 5]
    confirming = confirm(session, [{"hidden_size": 64}, {"hidden_size": 128}], 5)
    finish(confirming, {64: (0.9, 0.6, 0.9, 0.7, 0.8), 128: (0.9, 0.5, 0.9, 0.5, 0.5)})
    confirmation = find_confirmation(session)
    assert confirmation is not None
    assert confirmation.chosen.val.values == (0.6, 0.7, 0.8)
    assert [run.params[TRAINING_SEED] for run in confirmation.chosen.runs] == [2, 4, 5]


@ON_SQLITE
def test_repeats_are_not_fresh(new_session: Sessions) -> None:
    """A confirmation goes on with the seeds after those of the repeats."""
    session = new_session("worker", spec=make_spec({"hidden_size": [64, 128]}, search={"repeats": 3}))
    finish_everything(session)
    leaders = session.history.leaders_of_points()[:1]
    assert [point[TRAINING_SEED] for point in _fresh_points(session, leaders, 2)] == [4, 5]


@ON_SQLITE
def test_a_confirmation_answers_as_its_study_now_says(session: Session) -> None:
    """Whether by mirror images may be switched after it was made: an ensemble of its seeds is opened once."""
    finish_everything(session)
    confirm(session, [LARGE], 2)
    asked = make_spec(confirm={"flip": True})
    record, _ = create_or_join(session.storage, asked, FINGERPRINT)
    before = open_following(session, CONFIRMATION)
    after = open_following(replace(session, record=record), CONFIRMATION)
    assert before is not None
    assert after is not None
    assert (before.record.spec.confirm.flip, after.record.spec.confirm.flip) == (False, True)
    assert after.record.spec.grid == before.record.spec.grid


@pytest.mark.more
def test_an_unfinished_confirmation_says_nothing(session: Session) -> None:
    """Neither before it is begun nor before its last cell has a result."""
    finish_everything(session)
    assert find_confirmation(session) is None
    confirming = confirm(session, [LARGE], 2)
    assert find_confirmation(session) is None
    finish(confirming, {128: (0.9, 0.8)})
    assert find_confirmation(session) is not None


@ON_SQLITE
def test_a_confirmation_without_the_present_leader_says_nothing(session: Session) -> None:
    """The grid may have grown since."""
    finish_everything(session)
    finish(confirm(session, [SMALL], 2), {64: (0.9, 0.8)})
    assert find_confirmation(session) is None


@ON_SQLITE
def test_a_diverged_seed_is_missing(session: Session) -> None:
    """A cell without a result for each seed is not chosen."""
    finish_everything(session)
    confirming = confirm(session, [LARGE], 3)
    finish(confirming, {128: (0.9, 0.8, 0.9)}, diverged=[(128, 3)])
    assert find_confirmation(session) is None  # its only cell is not eligible


@ON_SQLITE
def test_a_better_cell_without_all_seeds_is_told(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """The choice is among the others, and every text about it says so."""
    finish_everything(session)
    finish(confirm(session, [LARGE, SMALL], 3), {128: (0.9, 0.9, 0.9), 64: (0.8, 0.7, 0.8)}, diverged=[(128, 3)])
    confirmation = find_confirmation(session)
    assert confirmation is not None
    assert confirmation.chosen.params == SMALL
    _print(session, confirmation)
    facts: Any = SimpleNamespace(source=choose_source(session, None, False, None), record=session.record, n_cells=4)
    page = render_report(read_overview(session), None)
    for text in (capsys.readouterr().out, describe_choice(facts), page):
        assert "of the best mean, of those with a result for each seed" in " ".join(
            text.replace("error of the best,", "error of the best mean,").split()
        )
    assert re.search(r'<td class="n">3</td>(<td class="n">[^<]*</td>){3}<td>1 without a result</td>', page)


@ON_SQLITE
def test_a_leader_without_results_is_left_out(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two seeds of the best cell one diverges: the other cell, which has a result for each, is chosen."""
    finish_everything(session)
    confirming = confirm(session, [LARGE, SMALL], 2)
    finish(confirming, {128: (0.9, 0.9), 64: (0.9, 0.8)}, diverged=[(128, 1)])
    confirmation = find_confirmation(session)
    assert confirmation is not None
    assert confirmation.chosen.original.params == SMALL
    assert confirmation.n_left_out == 1
    _print(session, confirmation)
    assert "1 cell left out: fewer than two of the seeds have a result\n" in capsys.readouterr().out


@ON_SQLITE
def test_cells_may_have_different_numbers_of_seeds(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """A later call has more seeds for fewer cells: nobody is told that each cell has had as many."""
    finish_everything(session)
    values = {128: (0.90, 0.92, 0.90, 0.92), 64: (0.80, 0.81)}
    for points, n_seeds in (([LARGE, SMALL], 2), ([LARGE], 4)):
        finish(confirm(session, points, n_seeds), values)
        confirmation = find_confirmation(session)
        assert confirmation is not None
        _print(session, confirmation)
    same, different = capsys.readouterr().out.split("Confirmation of ")[1:]
    assert ": 2 cells, 2 fresh seeds each" in " ".join(same.split())
    assert ": 2 cells, 2 to 4 fresh seeds each" in " ".join(different.split())
    heads = [next(line for line in text.splitlines() if line.startswith("trial")) for text in (same, different)]
    assert ["seeds" in head for head in heads] == [False, True]
    facts: Any = SimpleNamespace(source=choose_source(session, None, False, None), record=session.record, n_cells=4)
    assert " were trained again over 2 to 4 fresh seeds each. This is the smallest" in describe_choice(facts)


@ON_SQLITE
def test_the_page_of_a_confirmation_names_no_refused_command(session: Session) -> None:
    """It is neither confirmed nor exported by its own name; nor does `run` open its best seed."""
    finish_everything(session)
    confirming = confirm(session, [LARGE], 2)
    finish(confirming, {128: (0.90, 0.92)})
    pages = [render_report(read_overview(each), None) for each in (session, confirming)]
    commands = [sorted(set(re.findall(r"fmnist-optuna (?:run|confirm|export)[\w /-]*", page))) for page in pages]
    assert commands == [["fmnist-optuna export small"], []]


@ON_SQLITE
def test_a_card_says_that_fresh_seeds_chose_another_cell(session: Session) -> None:
    """Of a cell that was trained again and not chosen, where it is exported by its number; of others nothing was."""
    finish_everything(session)
    finish(confirm(session, [LARGE, SMALL], 2), {128: (0.90, 0.92), 64: (0.50, 0.52)})
    numbers = {cell.cell_id: cell.trial_number for cell in session.history.finished()}
    cells = [cell for cell in session.history.leaders() if cell.params != LARGE]
    told = {}
    for cell in cells:
        source = choose_source(session, numbers[cell.cell_id], False, None)
        facts: Any = SimpleNamespace(source=source, record=session.record, n_cells=4)
        told[cell.params == SMALL] = describe_choice(facts).partition("; ")[2]
    assert told == {True: "trained again over fresh seeds, which chose another.", False: "not confirmed over seeds."}


@ON_SQLITE
def test_repeats_are_told_as_points(new_session: Sessions, capsys: pytest.CaptureFixture[str]) -> None:
    """The card counts points and names their mean; the first repeat of the best is not called the best trial."""
    session = new_session("worker", spec=make_spec(search={"repeats": 2}))
    finish_everything(session)
    finish(confirm(session, [LARGE], 4), {128: (0.1, 0.1, 0.90, 0.92)})
    source, winner = choose_source(session, None, False, None), find_winner(session)
    facts: Any = SimpleNamespace(source=source, record=session.record, n_cells=8)
    told = describe_choice(facts)
    assert told.startswith("The best of 4 points by the mean validation accuracy of 2 repeats, trained again over 2 ")
    assert told.endswith(", in the first of its original trainings.")
    evaluation = Evaluation(0.5, (0.4, 0.6), 100, (), ())
    vars(winner)["evaluation"] = evaluation
    assert winner.confirmation is not None
    confirmation = replace(winner.confirmation, test=winner.confirmation.chosen.val)
    print_confirmation(session.record, ConfirmedStudy(winner, confirmation, winner))
    shown = " ".join(capsys.readouterr().out.split())
    assert "points for the first repeat of the best mean val accuracy," in shown


@ON_SQLITE
def test_what_was_confirmed_is_told_before_the_test(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """As the JSON has it: the scoring may have been interrupted. Of a confirmation, what scores its seeds is named."""
    finish_everything(session)
    confirming = confirm(session, [LARGE], 2)
    finish(confirming, {128: (0.90, 0.92)})
    for each in (session, confirming):
        print_winner(each.record, find_winner(each), each.history.counts())
    told, of_confirmation = capsys.readouterr().out.split("Winner of ")[1:]
    assert f"not opened yet: the command that began the study does,\n{'':23}`fmnist-optuna run`, when all" in told
    assert "confirmed validation 91.00 %" in told
    assert "not opened: `fmnist-optuna confirm small` scores the seeds of the cell that it chooses" in of_confirmation


@ON_SQLITE
def test_what_is_still_to_be_scored_is_told(session: Session, told: list[str]) -> None:
    """The seeds without an opening before they take their time, then the winner; of recorded openings nothing."""
    finish_everything(session)
    confirming = confirm(session, [LARGE], 3)
    finish(confirming, {128: (0.9, 0.8, 0.9)})
    confirmation = find_confirmation(session)
    assert confirmation is not None
    seeds.open_seeds(confirming, confirmation.chosen.runs[:1], None, "confirmation")
    told.clear()
    number = winner.evaluate_winner(session, None, told.append).trial
    assert told == ["2 seeds", *["confirmation"] * 3, f"trial {number}", "winner"]
    told.clear()
    winner.evaluate_winner(session, None, told.append)
    assert told == ["winner"]


@ON_SQLITE
def test_a_dashboard_learns_what_is_scored_later(
    session: Session, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a call that finds all seeds trained, as an earlier one ended before it scored them; and by no further one."""
    finish_everything(session)
    finish(confirm(session, [LARGE], 2), {128: (0.9, 0.8)})
    monkeypatch.setattr(confirming_room, "decorate_study", lambda session: told.append("decorated"))
    for n_decorated in (1, 1):
        confirming_room._confirm(session, None, RunOptions(), Observer(), no_signals)
        assert told.count("decorated") == n_decorated


@ON_SQLITE
def test_a_study_that_is_not_finished_is_not_confirmed(session: Session) -> None:
    """Without a complete trial there is nothing to compare, and with open cells the best may still come."""
    claim = claim_cell(session)
    with pytest.raises(NotFoundError, match="no trial is complete yet"):
        confirm_study(session, RunOptions())
    trial_id = begin_trial(session, claim)
    finish_trial(session, trial_id, 0.5)
    finish_cell(session, claim, trial_id)
    with pytest.raises(UsageError, match="must be finished before it is confirmed, but 3 of 4 cells are not"):
        confirm_study(session, RunOptions())


@ON_SQLITE
def test_a_confirmation_is_not_confirmed(session: Session) -> None:
    """Its cells have their seeds already."""
    named = replace(session, record=replace(session.record, name="small/confirm", kind="confirmation"))
    with pytest.raises(UsageError, match="is itself a confirmation"):
        confirm_study(named, RunOptions())


def test_strings_keep_all_their_values() -> None:
    """Optuna refuses new choices of a categorical parameter later."""
    spec = make_spec({"activation": ["relu", "tanh", "gelu"], "hidden_size": [8, 16, 32], "bias": [True, False]})
    points = [{"activation": "relu", "hidden_size": 16, "bias": True, TRAINING_SEED: seed} for seed in (1, 2)]
    grid = following_spec(spec, "small/confirm", points).grid
    assert grid == {
        "activation": ("relu", "tanh", "gelu"), "hidden_size": (16,), "bias": (True, False), TRAINING_SEED: (1, 2),
    }  # fmt: skip


def test_the_seed_is_no_part_of_the_point() -> None:
    """What remains are the parameters that the study searches."""
    assert point_of({**LARGE, TRAINING_SEED: 3}) == LARGE
