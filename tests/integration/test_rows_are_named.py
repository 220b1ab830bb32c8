"""A study of rows of numbers is told of in these words wherever a person reads: none of its examples is an image."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_study import (
    GRID,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    finish_cell,
    finish_everything,
    finish_trial,
    make_spec,
)

from fmnist_optuna.cli.console import describe_study as describe_in_terminal
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.export.card import write_card
from fmnist_optuna.export.facts import Facts
from fmnist_optuna.export.source import Source
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.pages.notes import describe_study
from fmnist_optuna.pages.overview import Overview, read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.results.all_data import AllData
from fmnist_optuna.results.confirmation import Candidate, Confirmation
from fmnist_optuna.results.ensemble import Ensemble
from fmnist_optuna.results.seeds import Sample
from fmnist_optuna.results.winner import Winner
from fmnist_optuna.search.metric import VAL_ACCURACY
from fmnist_optuna.study.records import ALL_DATA
from fmnist_optuna.study.session import Session

ROWS = DatasetInfo("Measured leaves", (4,), "float32", (0, 8), tuple("abcdefghij"))
OTHER_WORDS = ("`image`: float32",)  # the name of the model's input, whatever goes in


def finish_rows(session: Session) -> tuple[Session, Opening]:
    """The same study, complete and of rows, with an opening of its first trial."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    finish_trial(session, trial_id, 0.5)
    finish_cell(session, claim, trial_id)
    finish_everything(session)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 10)
    answers = np.where(labels == 1, 3, labels)
    scores = Scores(np.eye(10, dtype=np.float32)[answers], labels)
    opening = session.openings.open(trial_id, "0" * 64, "winner", lambda: scores)
    return Session(session.storage, replace(session.record, info=ROWS), session.name), opening


def found_winner(overview: Overview) -> Winner:
    assert overview.winner is not None
    return overview.winner


def read_pages(overview: Overview) -> str:
    """The report without its scripts, styles and tags, and the note of the dashboard."""
    page = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", "", render_report(overview, None), flags=re.DOTALL)
    return page + describe_study(overview.record, overview.counts, overview.climb, overview.winner)


def read_terminal(overview: Overview, capsys: pytest.CaptureFixture[str]) -> str:
    print_winner(overview.record, found_winner(overview), overview.counts)
    return capsys.readouterr().out


def read_card(session: Session, winner: Winner, source: Source, file: Path) -> str:
    assert winner.evaluation is not None
    write_card(
        file, Facts(session.record, source, winner.evaluation, 4, "0" * 64, ("savedmodel",), False, None), "all.png"
    )
    return file.read_text()


def images_in(text: str) -> list[str]:
    """The lines that speak of images."""
    for other in OTHER_WORDS:
        text = text.replace(other, "")
    return [line for line in text.splitlines() if re.search(r"\bimages?\b", line)]


@ON_SQLITE
@pytest.mark.parametrize("is_trained", [False, True])
def test_folds_of_rows(
    new_session: Callable[..., Session], is_trained: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after the best point is trained on all of them."""
    session, opening = finish_rows(new_session("worker", make_spec(GRID, data={"source": "synthetic", "folds": 2})))
    overview = read_overview(session)
    winner = found_winner(overview)
    assert winner.folds is not None
    text = ""
    if is_trained:
        folds = replace(winner.folds, trained=winner.attempt)
        winner = replace(winner, folds=folds, opening=opening)
        overview = replace(overview, winner=winner)
        source = Source(session, (winner.attempt,), None, folds=folds)
        text = read_card(session, winner, source, tmp_path / "card.md")
        assert "- The intervals are about other test rows of the same kind and about one seed;" in text
    text += read_pages(overview) + read_terminal(overview, capsys)
    assert images_in(text) == []
    assert text.count("all training rows" if is_trained else "all rows yet") == (4 if is_trained else 1)


@ON_SQLITE
def test_what_follows_from_rows(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A confirmation, its seeds on all data, and several of them together."""
    session, opening = finish_rows(session)
    overview = read_overview(session)
    winner = found_winner(overview)
    runs, sample = (winner.attempt, winner.attempt), Sample((0.5, 0.75), VAL_ACCURACY)
    candidate = Candidate(winner.attempt, sample, 1_000, 0, runs)
    confirmation = Confirmation((candidate,), candidate, test=sample)
    all_data = AllData(study="small/all-data", n_epochs=3, runs=runs, test=sample)
    ensembles = (Ensemble(2, True, opening, ROWS.class_names),)
    winner = replace(
        winner, opening=opening, confirmation=confirmation, all_data=all_data, ensembles=ensembles, n_on_all_data=2
    )
    overview = replace(overview, winner=winner, confirmation=confirmation)
    text = read_card(session, winner, Source(session, runs, confirmation, all_data), tmp_path / "card.md")
    text += read_pages(overview) + read_terminal(overview, capsys)
    assert images_in(text) == []
    assert "training and validation rows" in text
    assert "each seed anew, on validation rows too" in text
    assert "- The intervals of means are about other seeds, that of these nets about other test rows of" in text


@ON_SQLITE
def test_rows_that_were_trained_on(session: Session) -> None:
    """A study on all data says that of its validation rows, on every page and beside its name."""
    session, _ = finish_rows(session)
    record = replace(session.record, kind=ALL_DATA)
    overview = replace(read_overview(session), record=record, winner=None)
    text = read_pages(overview) + describe_in_terminal(record)
    assert images_in(text) == []
    assert text.count("The validation rows are trained on here") == 2
    assert "small (SYNTHETIC" not in text
    assert "(validation rows trained on)" in text


@ON_SQLITE
def test_a_card_shows_names_as_they_are(session: Session, tmp_path: Path) -> None:
    """Of classes and data, which Markdown and HTML would take for marks."""
    session, opening = finish_rows(session)
    winner = replace(found_winner(read_overview(session)), opening=opening, class_names=("a", "<unk>", *"cdefghij"))
    card = read_card(session, winner, Source(session, (winner.attempt,), None), tmp_path / "card.md")
    assert r"| \<unk\> | 10 |" in card
    assert r"- \<unk\> is found least often" in card


@ON_SQLITE
def test_a_card_of_a_keras_model_is_of_its_outputs(session: Session, tmp_path: Path) -> None:
    """They have no class or label, may be logits, and are those to the image alone; nothing was checked elsewhere."""
    session, opening = finish_rows(session)
    winner = replace(found_winner(read_overview(session)), opening=opening)
    assert winner.evaluation is not None
    source = Source(session, (winner.attempt,), None)
    facts = Facts(session.record, source, winner.evaluation, 4, "0" * 64, ("keras",), True, None)
    write_card(tmp_path / "card.md", facts, None)
    card = (tmp_path / "card.md").read_text()
    assert "| output | logits: float32 (n, 10) |" in card
    assert "class_id" not in card


@ON_SQLITE
def test_a_pipe_stays_in_its_row_of_the_card(new_session: Callable[..., Session], tmp_path: Path) -> None:
    """Of a value, which a table in Markdown would end at it, in backticks too."""
    spec = make_spec({"kind": ["a|b"]}, model={"architecture": "my:net"})
    session, opening = finish_rows(new_session("worker", spec=spec))
    winner = replace(found_winner(read_overview(session)), opening=opening)
    card = read_card(session, winner, Source(session, (winner.attempt,), None), tmp_path / "card.md")
    assert r"| parameters | kind `a\|b` |" in card
